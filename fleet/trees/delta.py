"""Trees told by what differs from another one, their base: a few rows instead of a listing of all files.

A delta is canonical: its rows are sorted and each of them says something that the base does not. So equal trees over
one base have equal digests. A base is always a whole tree; deltas are never chained.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import NamedTuple

from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Digest
from fleet.trees.tree import MODES, FileEntry, Tree, check_paths

Rows = Mapping[str, FileEntry | None]
"""Path -> what a tree has there and its base has not; None where the base has a file and the tree has none."""
_SEARCHED = 64
"""Paths that are looked up in a listing one by one; for more of them it is read as a whole."""


class Delta(NamedTuple):
    """A tree as rows over its base; without rows it is the base."""

    base: Digest
    rows: Rows


def encode_delta(delta: Delta) -> bytes:
    """The canonical bytes of a tree with rows; those of a tree without any are the bytes of its base."""
    check_paths(delta.rows.keys())
    rows = [(path, *entry) if entry else (path,) for path, entry in sorted(delta.rows.items())]
    document = {"base": delta.base, "rows": rows}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def decode_delta(data: bytes) -> Delta | None:
    """The tree that `encode_delta` wrote; None for the bytes of anything else. InvalidInput for a damaged one."""
    if not data.startswith(b"{"):
        return None
    try:
        document = json.loads(data)
        rows = {row[0]: FileEntry(row[1], Digest(row[2])) if len(row) == 3 else None for row in document["rows"]}
        base = Digest(document["base"])
        check_paths(rows.keys())
        is_tree = MODES.issuperset(entry.mode for entry in rows.values() if entry)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise InvalidInput("these bytes are no tree") from error
    if not is_tree:
        raise InvalidInput("these bytes are no tree: a mode is none of git's")
    return Delta(base, rows)


def applied(base: Tree, rows: Rows) -> dict[str, FileEntry]:
    """The whole tree."""
    tree = dict(base)
    for path, entry in rows.items():
        if entry is None:
            tree.pop(path, None)
        else:
            tree[path] = entry
    return tree


def rows_of(base: Tree, tree: Tree) -> dict[str, FileEntry | None]:
    """What tells the tree over this base."""
    rows: dict[str, FileEntry | None] = {path: entry for path, entry in tree.items() - base.items()}
    return rows | dict.fromkeys(base.keys() - tree.keys())


def with_row(base: Tree, rows: Rows, path: str, entry: FileEntry | None) -> Rows:
    """The rows of a tree that has this entry at the path, or nothing there."""
    changed = dict(rows)
    if base.get(path) == entry:
        changed.pop(path, None)
    else:
        changed[path] = entry
    return changed


def entries_in(listing: bytes, paths: Collection[str]) -> dict[str, FileEntry] | None:
    """Those of the paths that a whole tree's canonical bytes hold; None where reading all of them is faster."""
    if len(paths) > _SEARCHED:
        return None
    found: dict[str, FileEntry] = {}
    for path in paths:
        # A row begins with a bracket, which JSON leaves as it is within a text: what precedes tells a row from a name.
        sign = b"[" + json.dumps(path, ensure_ascii=False).encode() + b","
        at = listing.find(sign)
        while at > 0 and listing[at - 1 : at] not in (b"[", b","):
            at = listing.find(sign, at + 1)
        if at > 0:
            _, mode, blob = json.loads(listing[at : listing.index(b"]", at + len(sign)) + 1])
            found[path] = FileEntry(mode, Digest(blob))
    return found
