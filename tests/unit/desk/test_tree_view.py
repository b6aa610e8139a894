"""What people see of trees: text files whole, other files by name, and comparisons that end soon."""

from __future__ import annotations

import pytest

from fleet.desk import tree_view
from fleet.desk.tree_view import file_at, tree_changes
from fleet.kernel.errors import ArtifactNotFound
from fleet.kernel.ids import Digest
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.tree import FileEntry, encode_tree


async def _tree(blobs: MemoryBlobStore, **contents: bytes) -> Digest:
    entries = {name: FileEntry("100644", await blobs.put(raw)) for name, raw in contents.items()}
    return await blobs.put(encode_tree(entries))


@pytest.mark.parametrize(
    "raw", [b"\0\1", b"\xff\xfe", b"x" * (tree_view.MAX_TEXT + 1)], ids=["nul", "no-utf8", "too-large"]
)
async def test_what_is_no_text_or_too_large_has_no_patch(raw: bytes):
    blobs = MemoryBlobStore()
    old, new = await _tree(blobs, f=b"one\n"), await _tree(blobs, f=raw)
    (change,) = (await tree_changes(blobs, old, new)).files
    assert (change.change, change.patch) == ("modified", None)
    shown = await file_at(blobs, new, "f")
    assert (shown.text, shown.size_bytes) == (None, len(raw))


async def test_comparison_of_long_texts_that_have_nothing_in_common_is_left_out():
    blobs = MemoryBlobStore()
    old = await _tree(blobs, f="".join(f"old {n}\n" for n in range(2000)).encode())
    new = await _tree(blobs, f="".join(f"new {n}\n" for n in range(2000)).encode())
    (change,) = (await tree_changes(blobs, old, new)).files
    assert (change.patch, change.added, change.removed) == (None, 2000, 2000)


async def test_long_text_with_one_changed_line_is_compared():
    blobs = MemoryBlobStore()
    lines = [f"line {n}\n" for n in range(5000)]
    old = await _tree(blobs, f="".join(lines).encode())
    lines[2500] = "changed\n"
    new = await _tree(blobs, f="".join(lines).encode())
    (change,) = (await tree_changes(blobs, old, new)).files
    assert (change.added, change.removed) == (1, 1)
    assert "+changed" in (change.patch or "")


async def test_submodule_is_named_and_not_read():
    blobs = MemoryBlobStore()
    commit = await blobs.put(b"")
    old = await _tree(blobs)
    new = await blobs.put(encode_tree({"sub": FileEntry("160000", commit)}))
    (change,) = (await tree_changes(blobs, old, new)).files
    assert (change.path, change.patch) == ("sub", None)
    with pytest.raises(ArtifactNotFound):
        await file_at(blobs, new, "sub")


async def test_paths_over_the_bound_are_counted():
    blobs = MemoryBlobStore()
    many = {f"f{n}": b"x\n" for n in range(tree_view.MAX_FILES + 5)}
    found = await tree_changes(blobs, await _tree(blobs), await _tree(blobs, **many))
    assert (len(found.files), found.left_out) == (tree_view.MAX_FILES, 5)
