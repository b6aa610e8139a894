"""Tool `files`: reads and changes recorded trees directly, so that no path of a host exists at all (RT-40, RT-57).

A call starts from `ToolContext.tree` and ends in a new tree; the bytes lie in the blob store. Links in a tree are never
followed: `info`, `list`, `search`, `move` and `delete` see the link itself, everything else refuses it.
"""

from __future__ import annotations

import asyncio
import fnmatch
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from pydantic import JsonValue

from fleet.kernel.errors import PolicyDenied
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.tree_paths import PathInTree, below, check_writable, place_of
from fleet.tools.kit.parts import ToolParts
from fleet.tools.port import ToolContext
from fleet.trees.port import BlobStore
from fleet.trees.service import read_tree
from fleet.trees.text_diff import unified_diff
from fleet.trees.tree import FileEntry, changed_paths, encode_tree

_MAX_READ_BYTES = 4 << 20
_MAX_DIFF_BYTES = 1 << 20
_MAX_LISTED = 2_000
_MAX_FILES = 200_000
_MAX_FILE_BYTES = 64 << 20


class _Failed(Exception):
    """The call cannot be done on this tree; becomes an outcome that says why."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class _Desk(NamedTuple):
    """The tree that a call works on, and its arguments."""

    tree: dict[str, FileEntry]
    args: Mapping[str, Any]
    context: ToolContext
    blobs: BlobStore

    def place(self, name: str = "path", *, may_be_link: bool = False) -> PathInTree:
        """What is at the path of an argument; the root when it was left out."""
        return place_of(self.tree, str(self.args.get(name, ".")), may_be_link=may_be_link)

    def may_write(self, *paths: str) -> None:
        """Return when the role may change all these files."""
        for path in paths:
            check_writable(path, self.context.obligations.write_paths)

    async def bytes_of(self, place: PathInTree) -> bytes:
        """The content of the file there."""
        if place.kind != "file" or place.entry is None:
            raise _Failed(*_not_a_file(place))
        return await self.blobs.get(place.entry.blob)


class FilesTool:
    """Operations on the files of a workspace. Implements the port Tool."""

    def __init__(self, parts: ToolParts) -> None:
        self._blobs = parts.blobs

    @property
    def name(self) -> str:
        """See the port."""
        return "files"

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """See the port. The operations that change something keep the tree's other files as they are."""
        tree = await read_tree(self._blobs, context.tree) if context.tree else {}
        desk = _Desk(tree, call.args, context, self._blobs)
        try:
            if call.op in _READING:
                return await _READING[call.op](desk)
            summary = await _WRITING[call.op](desk)
            return await self._recorded(desk, summary)
        except _Failed as error:
            return ToolOutcome(outcome="failed", reason=error.reason, text=error.text)

    async def _recorded(self, desk: _Desk, summary: str) -> ToolOutcome:
        if len(desk.tree) > _MAX_FILES:
            raise _Failed("too_many_files", f"the workspace would have more than {_MAX_FILES} files")
        tree_out = await self._blobs.put(encode_tree(desk.tree))
        changed = tree_out != desk.context.tree and (desk.tree or desk.context.tree is not None)
        return ToolOutcome(outcome="succeeded", text=summary, tree_out=tree_out if changed else None)


def _not_a_file(place: PathInTree) -> tuple[str, str]:
    if place.kind == "missing":
        return "not_found", f"there is no file {place.path}"
    return f"is_{place.kind}", f"{place.path} is a {place.kind}, no file"


# Reading.


async def _read(desk: _Desk) -> ToolOutcome:
    place = desk.place()
    data = await desk.bytes_of(place)
    content: dict[str, JsonValue] = {"path": place.path, "size_bytes": len(data), "is_binary": _is_binary(data)}
    if _is_binary(data):
        return ToolOutcome(outcome="succeeded", content=content, text=f"{place.path}: binary, {len(data)} bytes")
    first, last = desk.args.get("first_line", 1), desk.args.get("last_line")
    if len(data) > _MAX_READ_BYTES and last is None:
        raise _Failed("too_large", f"{place.path} has {len(data)} bytes: name first_line and last_line")
    lines = data.decode(errors="replace").split("\n")
    if lines[-1] == "":
        lines.pop()
    shown = lines[first - 1 : last]
    content |= {"lines": len(lines), "first_line": first, "last_line": first + len(shown) - 1}
    return ToolOutcome(outcome="succeeded", content=content, text="\n".join(shown))


def _is_binary(data: bytes) -> bool:
    return b"\0" in data[:65_536]


async def _list(desk: _Desk) -> ToolOutcome:
    place = desk.place(may_be_link=True)
    if place.kind == "missing":
        raise _Failed("not_found", f"there is no folder {place.path}")
    if place.kind != "folder":
        return _listed([place.path])
    paths = sorted(below(desk.tree, place.path))
    if desk.args.get("recursive"):
        return _listed(paths)
    start = 0 if place.path == "." else len(place.path) + 1
    rest = [(path[:start], path[start:].partition("/")) for path in paths]
    return _listed(list(dict.fromkeys(f"{prefix}{name}{slash}" for prefix, (name, slash, _) in rest)))


def _listed(paths: list[str]) -> ToolOutcome:
    left_out = max(0, len(paths) - _MAX_LISTED)
    shown = paths[:_MAX_LISTED]
    text = "\n".join([*shown, *([f"[... {left_out} more ...]"] if left_out else [])])
    content: JsonValue = {"total": len(paths), "paths": [*shown]}
    return ToolOutcome(outcome="succeeded", content=content, text=text or "nothing")


async def _info(desk: _Desk) -> ToolOutcome:
    place = desk.place(may_be_link=True)
    if place.kind == "missing":
        raise _Failed("not_found", f"there is no {place.path}")
    content: dict[str, JsonValue] = {"path": place.path, "kind": place.kind}
    if place.entry is None:
        content["files"] = sum(1 for _ in below(desk.tree, place.path))
    else:
        content |= {"mode": place.entry.mode, "digest": str(place.entry.blob)}
        if place.kind != "submodule":
            data = await desk.blobs.get(place.entry.blob)
            content["size_bytes"] = len(data)
            if place.kind == "link":
                content["target"] = data.decode(errors="replace")
    return ToolOutcome(
        outcome="succeeded", content=content, text="\n".join(f"{name}: {value}" for name, value in content.items())
    )


async def _search(desk: _Desk) -> ToolOutcome:
    """Paths that hold the pattern, whatever the letter case. With `*`, `?` or `[` all of path or name has to fit."""
    place, pattern = desk.place(may_be_link=True), str(desk.args["pattern"])
    if place.kind == "missing":
        raise _Failed("not_found", f"there is no folder {place.path}")
    paths = sorted(below(desk.tree, place.path)) if place.kind == "folder" else [place.path]
    return _listed(await asyncio.to_thread(_matching, paths, pattern))


def _matching(paths: list[str], pattern: str) -> list[str]:
    if not any(c in pattern for c in "*?["):
        return [path for path in paths if pattern.casefold() in path.casefold()]
    # fnmatch translates to atomic groups: no pattern makes it slow. A star passes slashes.
    fits = re.compile(fnmatch.translate(pattern.replace("**/", "*").replace("**", "*"))).match
    return [path for path in paths if fits(path) or fits(path.rpartition("/")[2])]


async def _diff(desk: _Desk) -> ToolOutcome:
    place = desk.place(may_be_link=True)
    base = await read_tree(desk.blobs, desk.context.base_tree) if desk.context.base_tree else {}
    changes = [c for c in changed_paths(base, desk.tree) if _is_within(c.path, place.path)]
    parts = [await _file_diff(base.get(c.path), desk.tree.get(c.path), c.path, desk.blobs) for c in changes]
    files: list[JsonValue] = [{"path": c.path, "change": c.change} for c in changes[:_MAX_LISTED]]
    content: JsonValue = {"total": len(changes), "files": files}
    return ToolOutcome(outcome="succeeded", content=content, text="".join(parts) or "no difference")


def _is_within(path: str, folder: str) -> bool:
    return folder == "." or path == folder or path.startswith(f"{folder}/")


async def _file_diff(old: FileEntry | None, new: FileEntry | None, path: str, blobs: BlobStore) -> str:
    head = "".join(
        f"{word} file mode {entry.mode}\n"
        for word, entry, other in (("deleted", old, new), ("new", new, old))
        if entry is not None and other is None
    )
    if old is not None and new is not None and old.mode != new.mode:
        head = f"old mode {old.mode}\nnew mode {new.mode}\n"
    title = f"diff --git a/{path} b/{path}\n{head}"
    before, after = await _diffable(old, blobs), await _diffable(new, blobs)
    if before is None or after is None:
        return f"{title}Binary or large files differ: {path}\n"
    # Thousands of lines are compared outside of the event loop: other stories live there.
    body = await asyncio.to_thread(unified_diff, before, after, path=path, is_new=old is None, is_gone=new is None)
    return title + body


async def _diffable(entry: FileEntry | None, blobs: BlobStore) -> str | None:
    """The text of an entry; None when a difference of it shows nothing."""
    if entry is None:
        return ""
    if entry.mode == "160000":
        return f"Subproject {entry.blob}\n"
    data = await blobs.get(entry.blob)
    return None if _is_binary(data) or len(data) > _MAX_DIFF_BYTES else data.decode(errors="replace")


# Writing: each changes the tree of the desk and says what it did.


def _new_file(desk: _Desk, place: PathInTree) -> None:
    """Return when a file can be at this place."""
    if place.blocked_by:
        raise _Failed("not_a_folder", f"{place.blocked_by} is no folder, so nothing can be below it")
    if place.kind in ("folder", "submodule"):
        raise _Failed(f"is_{place.kind}", f"{place.path} is a {place.kind}")
    desk.may_write(place.path)


async def _put(desk: _Desk, place: PathInTree, data: bytes) -> None:
    if len(data) > _MAX_FILE_BYTES:
        raise _Failed("too_large", f"{place.path} would have {len(data)} bytes, at most {_MAX_FILE_BYTES}")
    mode = place.entry.mode if place.entry else "100644"
    desk.tree[place.path] = FileEntry(mode, await desk.blobs.put(data))


async def _write(desk: _Desk) -> str:
    place = desk.place()
    _new_file(desk, place)
    data = str(desk.args["content"]).encode()
    await _put(desk, place, data)
    return f"wrote {place.path}, {len(data)} bytes"


async def _edit(desk: _Desk) -> str:
    """`old` is there exactly once: an edit that could mean two places means none."""
    place, old = desk.place(), str(desk.args["old"])
    data = await desk.bytes_of(place)
    desk.may_write(place.path)
    if _is_binary(data):
        raise _Failed("is_binary", f"{place.path} is binary")
    count = data.count(old.encode()) if old else 0
    if count != 1:
        reason = "not_unique" if count else "text_not_found"
        raise _Failed(reason, f"the old text stands {count} times in {place.path}; it must stand there once")
    await _put(desk, place, data.replace(old.encode(), str(desk.args["new"]).encode()))
    return f"edited {place.path}"


async def _append(desk: _Desk) -> str:
    place = desk.place()
    _new_file(desk, place)
    before = await desk.bytes_of(place) if place.entry else b""
    await _put(desk, place, before + str(desk.args["content"]).encode())
    return f"appended to {place.path}"


async def _mkdir(desk: _Desk) -> str:
    """A tree has folders through their files alone: nothing is recorded, and the first file brings the folder."""
    place = desk.place()
    if place.blocked_by or place.kind in ("file", "submodule"):
        raise _Failed("exists", f"{place.blocked_by or place.path} is there and is no folder")
    return f"{place.path} is there" if place.kind == "folder" else f"{place.path} comes with its first file"


async def _move(desk: _Desk) -> str:
    source, target = desk.place(may_be_link=True), desk.place("to", may_be_link=True)
    if source.kind == "missing":
        raise _Failed("not_found", f"there is no {source.path}")
    if source.path == "." or _is_within(target.path, source.path):
        raise _Failed("into_itself", f"{source.path} cannot be moved to {target.path}")
    if target.blocked_by:
        raise _Failed("not_a_folder", f"{target.blocked_by} is no folder, so nothing can be below it")
    if target.kind != "missing":
        raise _Failed("exists", f"{target.path} is there: delete it first, or choose another name")
    paths = [source.path] if source.entry else list(below(desk.tree, source.path))
    moved = {path: place_of({}, target.path + path[len(source.path) :]).path for path in paths}
    desk.may_write(*moved, *moved.values())
    for old, new in moved.items():
        desk.tree[new] = desk.tree.pop(old)
    return f"moved {source.path} to {target.path}, {len(moved)} files"


async def _delete(desk: _Desk) -> str:
    place = desk.place(may_be_link=True)
    if place.kind == "missing":
        raise _Failed("not_found", f"there is no {place.path}")
    if place.path == ".":
        raise PolicyDenied("the workspace itself cannot be deleted: name what is in it", rule_id="path_not_granted")
    paths = [place.path] if place.entry else list(below(desk.tree, place.path))
    desk.may_write(*paths)
    for path in paths:
        del desk.tree[path]
    return f"deleted {place.path}, {len(paths)} files"


_READING: Mapping[str, Callable[[_Desk], Awaitable[ToolOutcome]]] = {
    "read": _read,
    "list": _list,
    "info": _info,
    "search": _search,
    "diff": _diff,
}
_WRITING: Mapping[str, Callable[[_Desk], Awaitable[str]]] = {
    "write": _write,
    "edit": _edit,
    "append": _append,
    "mkdir": _mkdir,
    "move": _move,
    "delete": _delete,
}
