"""Listings of trees are compared as bytes, and what differs is exactly what differs."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.kernel.digest import digest_of
from fleet.trees.tree import FileEntry, decode_tree, differing_rows, encode_tree

PATHS = st.lists(
    st.sampled_from(["a", "ab", "b/c", 'q"],["r', 'q"]', "z\\", "é", "a.py", "b/d.py", '"', "],["]), unique=True
)
TREES = st.dictionaries(PATHS.map("x".join).filter(bool), st.sampled_from("123"), max_size=8).map(
    lambda found: {path: FileEntry("100644", digest_of(name.encode())) for path, name in found.items()}
)


@settings(max_examples=200, deadline=None)
@given(TREES, TREES)
def test_rows_that_are_told_turn_one_tree_into_the_other(old: dict[str, FileEntry], new: dict[str, FileEntry]) -> None:
    gone, come = (decode_tree(rows) for rows in differing_rows(encode_tree(old), encode_tree(new)))
    assert gone == dict(old.items() - new.items())
    assert come == dict(new.items() - old.items())


def test_one_changed_file_is_one_row() -> None:
    tree = {f"src/m{n:04d}.py": FileEntry("100644", digest_of(b"%d" % n)) for n in range(500)}
    for path in ("src/m0000.py", "src/m0250.py", "src/m0499.py"):
        changed = {**tree, path: FileEntry("100755", digest_of(b"new"))}
        gone, come = (decode_tree(rows) for rows in differing_rows(encode_tree(tree), encode_tree(changed)))
        assert (gone, come) == ({path: tree[path]}, {path: changed[path]})
        without = {name: entry for name, entry in tree.items() if name != path}
        gone, come = (decode_tree(rows) for rows in differing_rows(encode_tree(tree), encode_tree(without)))
        assert (gone, come) == ({path: tree[path]}, {})
    same = encode_tree(tree)
    assert differing_rows(same, same) == (b"[]", b"[]")


def test_changed_files_far_from_each_other_are_the_only_rows() -> None:
    tree = {f"src/m{n:04d}.py": FileEntry("100644", digest_of(b"%d" % n)) for n in range(500)}
    changed = {path: FileEntry("100755", entry.blob) for path, entry in list(tree.items())[::50]}
    gone, come = (decode_tree(rows) for rows in differing_rows(encode_tree(tree), encode_tree(tree | changed)))
    assert (gone, come) == ({path: tree[path] for path in changed}, changed)
