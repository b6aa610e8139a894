"""Looks and edits of a work session: functions of the files and the arguments of a call, without any sandbox."""

from __future__ import annotations

import ast
import difflib
from typing import NamedTuple

from fleet.engineering.changes import blocked_by, reviewed
from fleet.engineering.edits import Refused, Replacement, edit_text, numbered
from fleet.engineering.shown import fenced, is_binary, untrusted, window
from fleet.engineering.state import SeenKind, Session
from fleet.engineering.tools import SessionCall, checked_glob
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Digest
from fleet.owner.engineering.diffs import tree_diff
from fleet.owner.engineering.evidence_tree import judged_tree
from fleet.policy.arguments import glob_matches
from fleet.redaction.secrets import find_secrets
from fleet.trees.delta import Delta, applied, with_row
from fleet.trees.port import BlobStore
from fleet.trees.service import put_tree, read_delta, read_tree, rows_over
from fleet.trees.tree import FileEntry, Tree, check_path

MAX_FILE_BYTES = 2 << 20
"""Of a file that is edited or written by a call; a command may leave larger ones."""
_MAX_READ_BYTES = 4 << 20
_MAX_LISTED = 200
_MAX_NESTING = 80
_SIMILAR = 3


class Looked(NamedTuple):
    """What a look or an edit came to."""

    kind: SeenKind
    text: str
    head: Digest
    brief: str = ""


class _Held(NamedTuple):
    """A tree, and how it is told."""

    head: Digest
    delta: Delta
    base: Tree
    tree: Tree


class Desk:
    """The files of one session as they lie in the blob store."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._base: tuple[Digest, Tree] | None = None
        """The whole tree that the last one is told over: all trees of a session have one, which is read once."""
        self._held: _Held | None = None
        """The last tree: most calls are about the files that the one before was about."""

    async def tree(self, head: Digest) -> Tree:
        """The files of this tree by path."""
        return (await self._hold(head)).tree

    async def root(self, head: Digest) -> Digest:
        """The whole tree that this one is told over, and those that come of it will be."""
        return (await self._hold(head)).delta.base

    async def told_over(self, root: Digest, tree: Digest) -> Digest:
        """The same tree, told over another whole one."""
        return await put_tree(self._blobs, Delta(root, await rows_over(self._blobs, root, tree)))

    async def _hold(self, head: Digest) -> _Held:
        if self._held is None or self._held.head != head:
            delta = await read_delta(self._blobs, head)
            if self._base is None or self._base[0] != delta.base:
                self._base = delta.base, await read_tree(self._blobs, delta.base)
            base = self._base[1]
            self._held = _Held(head, delta, base, applied(base, delta.rows) if delta.rows else base)
        return self._held

    async def carry_out(self, call: SessionCall, state: Session) -> Looked:
        """What the call comes to; whatever is wrong with it is told and changes nothing."""
        tree = await self.tree(state.head)
        try:
            match call.name:
                case "read":
                    return await self._read(call, tree, state)
                case "files":
                    return _files(call, tree, state)
                case "edit":
                    return await self._edit(call, tree, state)
                case "write":
                    return await self._write(call, tree, state)
                case _:
                    return await self.review(state)
        except InvalidInput as error:
            kind: SeenKind = "refused" if call.name in ("edit", "write") else "result"
            return Looked(kind, f"Refused: {error.message}.", state.head)

    async def _read(self, call: SessionCall, tree: Tree, state: Session) -> Looked:
        start, count = call.number("from", 1), call.number("lines", 0) or None
        if output := call.text("output"):
            blob = state.output_of(output)
            if blob is None:
                known = ", ".join(name for name, _ in state.outputs()) or "none"
                return Looked("result", f"There is no output {output}; there are: {known}.", state.head)
            lines = (await self._blobs.get(blob)).decode().split("\n")
            shown = window(lines, start=start, count=count, chars=state.terms.run_chars, what=f"output {output}")
            return Looked("result", fenced("read", shown), state.head, brief=f"lines from {start}; read them again")
        path = _path(call.text("path"))
        data = await self._data(tree, path)
        if isinstance(data, str):
            return Looked("result", data, state.head)
        if len(data) > _MAX_READ_BYTES:
            told = (
                f"{path} has {len(data)} bytes, too many to be shown: look at parts of it with run, as `sed -n 1,50p`."
            )
            return Looked("result", told, state.head)
        if is_binary(data):
            return Looked("result", f"{path} is no text: {len(data)} bytes, first {data[:16].hex(' ')}.", state.head)
        lines = data.decode().removesuffix("\n").split("\n")
        if not data:
            return Looked("result", f"{path} is empty.", state.head)
        shown = window(lines, start=start, count=count, chars=state.terms.read_chars, what=path)
        return Looked("result", fenced("read", shown), state.head, brief=f"{len(lines)} lines; read it again if needed")

    async def _data(self, tree: Tree, path: str) -> bytes | str:
        """The bytes of a file, or why there are none."""
        entry = tree.get(path)
        if entry is None:
            return _missing(tree, path)
        if entry.mode == "160000":
            return f"{path} is a submodule; its files are not here."
        data = await self._blobs.get(entry.blob)
        if entry.mode == "120000":
            return f"{path} is a link to {untrusted(data.decode(errors='replace'))[:300]!r}; links are not followed."
        return data

    async def _edit(self, call: SessionCall, tree: Tree, state: Session) -> Looked:
        path = _path(call.text("path"))
        data = await self._data(tree, path)
        if isinstance(data, str):
            return Looked("refused", f"{data} Nothing was changed; write makes a new file.", state.head)
        if is_binary(data) or len(data) > MAX_FILE_BYTES:
            why = "is no text" if is_binary(data) else f"has more than {MAX_FILE_BYTES} bytes"
            return Looked("refused", f"{path} {why}: change it with a command. Nothing was changed.", state.head)
        text = data.decode()
        edited = edit_text(text, _replacements(call), path=path)
        if isinstance(edited, Refused):
            return Looked("refused", untrusted(f"{edited.message}{_last_change(state, path)}"), state.head)
        head = await self._put(state, path, edited.text)
        notes = [f"{note}." for note in edited.notes]
        notes += [problem] if (problem := _new_syntax_error(path, text, edited.text)) else []
        told = "\n".join([f"Edited {path}.", *notes, fenced("edit", edited.shown)])
        return Looked("edit", told, head)

    async def _write(self, call: SessionCall, tree: Tree, state: Session) -> Looked:
        path, content = _path(call.text("path")), call.text("content")
        entry = tree.get(path)
        if len(content.encode(errors="replace")) > MAX_FILE_BYTES:
            told = f"The content has more than {MAX_FILE_BYTES} bytes: make such a file with a command."
            return Looked("refused", f"{told} Nothing was changed.", state.head)
        if why := blocked_by(tree, path):
            return Looked("refused", f"{why}. Nothing was changed.", state.head)
        if entry is not None and entry.mode in ("120000", "160000"):
            what = "a link" if entry.mode == "120000" else "a submodule"
            return Looked(
                "refused", f"{path} is {what}, which write does not replace. Nothing was changed.", state.head
            )
        if entry is not None and not _is_known(state, path):
            told = f"{path} is there already and you have not read it: read it first, then edit it, or write it whole."
            return Looked("refused", f"{told} Nothing was changed.", state.head)
        before = (await self._blobs.get(entry.blob)).decode(errors="replace") if entry is not None else ""
        if entry is not None and before == content:
            return Looked("refused", f"{path} has this very content already. Nothing was changed.", state.head)
        head = await self._put(state, path, content)
        lines = content.count("\n") + (not content.endswith("\n"))
        problem = _new_syntax_error(path, before, content)
        done = "Wrote" if entry is not None else "Made"
        return Looked("edit", "\n".join(filter(None, (f"{done} {path}, {lines} lines.", problem))), head)

    async def _put(self, state: Session, path: str, text: str) -> Digest:
        try:
            blob = await self._blobs.put(text.encode())
        except UnicodeEncodeError as error:
            raise InvalidInput("the text holds half of a character (a lone surrogate)") from error
        held = await self._hold(state.head)
        entry = FileEntry(held.tree[path].mode if path in held.tree else "100644", blob)
        delta = Delta(held.delta.base, with_row(held.base, held.delta.rows, path, entry))
        head = await put_tree(self._blobs, delta)
        self._held = _Held(head, delta, held.base, {**held.tree, path: entry})
        return head

    async def changes(self, state: Session) -> str:
        """The diff of the session so far, within what one reading shows."""
        return await tree_diff(self._blobs, state.base, state.head, chars=state.terms.read_chars)

    async def review(self, state: Session) -> Looked:
        """What the first submission is answered with: the whole diff, and what to look at."""
        if state.head == state.base:
            told = (
                "You changed nothing. Submit again to end the work as not possible, with your reasons in the summary; "
                "or go on."
            )
            return Looked("review", told, state.head)
        base, head = await read_tree(self._blobs, state.base), await self.tree(state.head)
        found = reviewed(base, head, await judged_tree(self._blobs, head, base))
        diff = await self.changes(state)
        added = "\n".join(line[1:] for line in diff.split("\n") if line.startswith("+") and line[:4] != "+++ ")
        remarks = list(found.remarks)
        if secrets := sorted(set(find_secrets(added))):
            remarks.append(f"The changes hold what looks like secrets ({', '.join(secrets)}): take them out.")
        listed = "\n".join([*found.changed, *(f"- {remark}" for remark in remarks)])
        told = f"Review of what you changed:\n{untrusted(listed)}\n{fenced('diff', diff)}"
        return Looked("review", f"{told}\nSubmit again when this is right.", state.head)


def _path(text: str) -> str:
    """The path below the repository; InvalidInput for one that leads out of it."""
    return check_path(text.strip().removeprefix("/workspace/").removeprefix("./"))


def _missing(tree: Tree, path: str) -> str:
    if below := sorted(other for other in tree if other.startswith(f"{path}/")):
        return f"{path} is a folder with {len(below)} files, such as {', '.join(below[:5])}."
    name = path.rpartition("/")[2]
    same = sorted(other for other in tree if other.rpartition("/")[2] == name)[:_SIMILAR]
    similar = same or difflib.get_close_matches(path, sorted(tree)[:20_000], n=_SIMILAR)
    return f"There is no file {path}." + (f" Did you mean {', '.join(similar)}?" if similar else "")


def _files(call: SessionCall, tree: Tree, state: Session) -> Looked:
    glob = checked_glob(call.text("glob"))
    paths = sorted(path for path in tree if not glob or glob_matches(glob, path) or glob_matches(f"**/{glob}", path))
    if not paths:
        return Looked("result", f"No file fits {glob!r}; the repository has {len(tree)} files.", state.head)
    shown, room = list[str](), state.terms.search_chars
    for path in paths[:_MAX_LISTED]:
        room -= len(path) + 1
        if room < 0:
            break
        shown.append(path)
    left = len(paths) - len(shown)
    more = [f"[{left} more; narrow it with glob]"] if left else []
    text = "\n".join([*shown, *more])
    return Looked("result", fenced("files", text), state.head, brief=f"{len(paths)} files")


def _replacements(call: SessionCall) -> list[Replacement]:
    listed = call.args.get("edits")
    if not isinstance(listed, list):
        return [Replacement(call.text("old"), call.text("new"), call.args.get("all") is True)]
    return [
        Replacement(str(one["old"]), str(one["new"]), one.get("all") is True) for one in listed if isinstance(one, dict)
    ]


def _is_known(state: Session, path: str) -> bool:
    """Whether this session has read or made the file."""
    known = ("result", "edit")
    calls = (one.call for one in state.seen if one.call is not None and one.kind in known)
    return any(
        call.name in ("read", "edit", "write") and call.text("path").removeprefix("./") == path for call in calls
    )


def _last_change(state: Session, path: str) -> str:
    """When this session changed the file last; the text that an engineer remembers may be that from before."""
    for number in range(len(state.turns), 0, -1):
        for one in state.turns[number - 1].seen:
            if one.kind == "edit" and one.call is not None and one.call.text("path").removeprefix("./") == path:
                return f" You changed this file in turn {number}."
    return ""


def _new_syntax_error(path: str, before: str, after: str) -> str:
    """A syntax error of a Python file that was not there before, with its lines; "" when there is none."""
    if not path.endswith(".py") or (found := _syntax_error(after)) is None or _syntax_error(before) is not None:
        return ""
    line, what = found
    lines = after.split("\n")
    start = max(0, line - 3)
    shown = numbered(lines[start : line + 2], first=start + 1, most=6)
    return f"This is no valid Python any more: line {line}: {what}\n{fenced('syntax', shown)}"


def _syntax_error(text: str) -> tuple[int, str] | None:
    """Line and reason; None when it parses, or is nested too deeply to be parsed here."""
    depth = most = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        most = max(most, depth)
    if most > _MAX_NESTING:
        return None
    try:
        ast.parse(text)
    except SyntaxError as error:
        return error.lineno or 1, error.msg
    except (ValueError, RecursionError, MemoryError):
        return None
    return None
