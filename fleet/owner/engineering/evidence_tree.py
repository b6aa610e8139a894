"""The tree that evidence of a session is taken of: tests and settings of the base hold, whatever the author did."""

from __future__ import annotations

import asyncio

from fleet.engineering.changes import Judged, judged
from fleet.engineering.settings import holds_settings, with_settings_of
from fleet.trees.port import BlobStore
from fleet.trees.tree import FileEntry, Tree, changed_paths

_PLAIN = ("100644", "100755")


async def judged_tree(blobs: BlobStore, head: Tree, base: Tree) -> Judged:
    """The head with tests and settings of the base, also where settings stand in a file with other things."""
    judgement = judged(head, base)
    tree, merged = dict(judgement.tree), list[str]()
    for change in changed_paths(base, judgement.tree):
        path = change.path
        if not holds_settings(path):
            continue
        entry = await _with_settings(blobs, path, base.get(path), judgement.tree.get(path))
        if entry == judgement.tree.get(path):
            continue
        merged.append(path)
        if entry is None:
            del tree[path]
        else:
            tree[path] = entry
    return judgement._replace(tree=tree, merged=tuple(merged))


async def _with_settings(blobs: BlobStore, path: str, old: FileEntry | None, new: FileEntry | None) -> FileEntry | None:
    """What stands there in the end; None when nothing does."""
    if any(entry is not None and entry.mode not in _PLAIN for entry in (old, new)):
        return old  # a link in place of settings leads to any settings
    try:
        before, after = await _text(blobs, old), await _text(blobs, new)
    except UnicodeDecodeError:
        return old
    text = await asyncio.to_thread(with_settings_of, path, before, after)
    if text == after:
        return new
    if not text:
        return None
    mode = new.mode if new is not None else old.mode if old is not None else "100644"
    return FileEntry(mode, await blobs.put(text.encode()))


async def _text(blobs: BlobStore, entry: FileEntry | None) -> str:
    return (await blobs.get(entry.blob)).decode() if entry is not None else ""
