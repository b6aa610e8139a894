"""Trees told over a base: the same trees as whole ones, with one digest for each tree and base."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Digest
from fleet.trees.delta import Delta, applied, decode_delta, encode_delta, entries_in, rows_of, with_row
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.service import put_kept, put_tree, put_whole, read_changes, read_delta, read_tree, rows_over
from fleet.trees.tree import FileEntry, Mode, Tree, encode_tree

BLOBS = tuple(digest_of(bytes([number])) for number in range(4))
MODES: tuple[Mode, ...] = ("100644", "100755", "120000")
NAMES = ("a", "b", "b[", "b[,", 'q"uote', "back\\slash", "new\nline", "ü", ",", "[a", "dir/a", 'dir/"],["b', "z/y/x")
ENTRIES = st.builds(FileEntry, st.sampled_from(MODES), st.sampled_from(BLOBS))
TREES = st.dictionaries(st.sampled_from(NAMES), ENTRIES, max_size=len(NAMES))


async def stored(blobs: MemoryBlobStore, tree: Tree) -> Digest:
    return await blobs.put(encode_tree(tree))


@given(TREES, TREES)
def test_rows_tell_the_tree_over_its_base_and_nothing_that_the_base_says(base: Tree, tree: Tree) -> None:
    rows = rows_of(base, tree)
    assert applied(base, rows) == tree
    assert all(base.get(path) != entry for path, entry in rows.items())
    delta = Delta(digest_of(encode_tree(base)), rows)
    assert decode_delta(encode_delta(delta)) == delta
    assert encode_delta(Delta(delta.base, dict(reversed(rows.items())))) == encode_delta(delta)


@given(TREES, TREES, st.sampled_from(NAMES), st.none() | ENTRIES)
def test_a_row_more_is_the_tree_with_that_entry(base: Tree, tree: Tree, path: str, entry: FileEntry | None) -> None:
    expected = {p: e for p, e in tree.items() if p != path} | ({path: entry} if entry else {})
    assert dict(with_row(base, rows_of(base, tree), path, entry)) == rows_of(base, expected)


@given(TREES, st.sets(st.sampled_from(NAMES)))
def test_entries_of_a_listing_are_found_without_reading_it(tree: Tree, paths: set[str]) -> None:
    found = entries_in(encode_tree(tree), paths)
    assert found == {path: tree[path] for path in paths if path in tree}
    assert entries_in(b"[]", {str(number) for number in range(65)}) is None


@given(TREES, TREES, TREES, st.booleans(), st.booleans(), st.booleans())
async def test_changes_are_those_of_the_whole_trees_however_they_are_stored(
    base: Tree, old: Tree, new: Tree, old_is_delta: bool, new_is_delta: bool, has_other_base: bool
) -> None:
    blobs = MemoryBlobStore()
    root = await stored(blobs, base)
    other = await stored(blobs, {"other": FileEntry("100644", BLOBS[0])}) if has_other_base else root
    one = await put_kept(blobs, old, root=root if old_is_delta else None)
    two = await put_kept(blobs, new, root=other if new_is_delta else None)

    gone, come = await read_changes(blobs, one, two)
    assert dict(gone) == dict(old.items() - new.items())
    assert dict(come) == dict(new.items() - old.items())
    assert await read_tree(blobs, two) == new
    assert await put_whole(blobs, two) == await stored(blobs, new)
    assert dict(await rows_over(blobs, root, two)) == rows_of(base, new)


async def test_a_tree_without_rows_is_its_base_and_equal_trees_have_one_digest():
    blobs = MemoryBlobStore()
    base = {"a": FileEntry("100644", BLOBS[0]), "b": FileEntry("100644", BLOBS[1])}
    root = await stored(blobs, base)
    assert await put_kept(blobs, base, root=root) == root
    assert await put_tree(blobs, Delta(root, {})) == root
    assert await read_delta(blobs, root) == Delta(root, {})
    changed = {**base, "c": FileEntry("100755", BLOBS[2])}
    first = await put_kept(blobs, changed, root=root)
    second = await put_tree(blobs, Delta(root, with_row(base, {}, "c", changed["c"])))
    assert first == second != root
    assert b'"b"' not in await blobs.get(first)


def test_stored_form_of_a_delta_stays_as_it_is():
    delta = Delta(BLOBS[0], {"new": FileEntry("100755", BLOBS[1]), "gone": None})
    expected = f'{{"base":"{BLOBS[0]}","rows":[["gone"],["new","100755","{BLOBS[1]}"]]}}'
    assert encode_delta(delta) == expected.encode()


@pytest.mark.parametrize(
    "rows", ['[["../up"]]', '[["a","100600","{0}"]]', '[["a","100644","sha256:0"]]', "[[]]", "7", '[["a",1]']
)
def test_damaged_delta_is_refused(rows: str):
    with pytest.raises(InvalidInput):
        decode_delta(f'{{"base":"{BLOBS[0]}","rows":{rows.replace("{0}", BLOBS[1])}}}'.encode())


def test_whole_tree_is_no_delta():
    assert decode_delta(encode_tree({"a": FileEntry("100644", BLOBS[0])})) is None
    assert decode_delta(b"[]") is None
