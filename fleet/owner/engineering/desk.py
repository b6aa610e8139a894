"""Looks and edits of a work session: functions of the files and the arguments of a call, without any sandbox."""

from __future__ import annotations

import ast
import asyncio
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from fleet.engineering.changes import blocked_by, reviewed
from fleet.engineering.edits import Refused, Replacement, changed_lines, edit_text, numbered
from fleet.engineering.patches import FilePatch, apply_patch, parse_patch
from fleet.engineering.shown import fenced, is_binary, untrusted, window
from fleet.engineering.state import SeenKind, Session
from fleet.engineering.tools import SessionCall, checked_glob
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Digest
from fleet.knowledge.syntax import MAX_BYTES, Symbol, Syntax, language_at, read_syntax, tells_errors
from fleet.owner.engineering.diffs import tree_diff
from fleet.owner.engineering.evidence_tree import judged_tree
from fleet.policy.arguments import glob_matches
from fleet.redaction.secrets import find_secrets
from fleet.trees.delta import Delta, applied, with_row
from fleet.trees.port import BlobStore
from fleet.trees.service import put_tree, read_delta, read_tree, rows_over
from fleet.trees.tree import FileEntry, Mode, Tree, check_path

MAX_FILE_BYTES = 2 << 20
"""Of a file that is edited or written by a call; a command may leave larger ones."""
_MAX_READ_BYTES = 4 << 20
_MAX_LISTED = 200
_MAX_NESTING = 80
_SIMILAR = 3
_MAX_SEARCHED, _MAX_PARSED = 2_000, 200
"""Files that one look at symbols reads, and those among them that it parses."""
_MAX_PARSED_BYTES = 4 << 20
_MAX_SYMBOLS = 200
_MAX_TOLD = 5


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
                case "symbols":
                    return await self._symbols(call, tree, state)
                case "edit":
                    return await self._edit(call, tree, state)
                case "write":
                    return await self._write(call, tree, state)
                case "patch":
                    return await self._patch(call, tree, state)
                case _:
                    return await self.review(state)
        except InvalidInput as error:
            kind: SeenKind = "refused" if call.name in ("edit", "write", "patch") else "result"
            return Looked(kind, f"Refused: {error.message}.", state.head)

    async def _read(self, call: SessionCall, tree: Tree, state: Session) -> Looked:
        start, count = call.number("from", 1), call.number("lines", 0) or None
        if output := call.text("output"):
            blob = state.output_of(output)
            if blob is None:
                names = ", ".join(name for name, _ in state.outputs()) or "none"
                return Looked("result", f"There is no output {output}; there are: {names}.", state.head)
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
        head = await self._put(state, {path: edited.text})
        notes = [f"{note}." for note in edited.notes]
        notes += await new_syntax_errors({path: (text, edited.text)})
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
        head = await self._put(state, {path: content})
        lines = content.count("\n") + (not content.endswith("\n"))
        problems = await new_syntax_errors({path: (before, content)})
        done = "Wrote" if entry is not None else "Made"
        return Looked("edit", "\n".join((f"{done} {path}, {lines} lines.", *problems)), head)

    async def _patch(self, call: SessionCall, tree: Tree, state: Session) -> Looked:
        text = call.text("patch")
        if len(text.encode(errors="replace")) > MAX_FILE_BYTES:
            told = f"The patch has more than {MAX_FILE_BYTES} bytes: send it in parts. Nothing was changed."
            return Looked("refused", told, state.head)
        patches = parse_patch(text)
        if isinstance(patches, Refused):
            return Looked("refused", untrusted(f"The patch was refused: {patches.message}"), state.head)
        before: dict[str, str] = {}
        for one in patches:
            one.old, one.new = (_path(path) if path else None for path in (one.old, one.new))
            read = await self._patchable(one, tree)
            if isinstance(read, Refused):
                return Looked("refused", untrusted(f"{read.message} Nothing was changed."), state.head)
            before |= read
        made = await asyncio.to_thread(apply_patch, before, patches)
        if isinstance(made, Refused):
            return Looked("refused", untrusted(f"The patch was refused: {made.message}"), state.head)
        after = {path: one.text if one is not None else None for path, one in made.items()}
        if largest := next((path for path, new in after.items() if new and len(new) > MAX_FILE_BYTES), None):
            raise InvalidInput(f"{largest} would have more than {MAX_FILE_BYTES} bytes; nothing was changed")
        modes: dict[str, Mode] = {one.new: _mode_after(one, tree) for one in patches if one.new}
        head = await self._put(state, after, modes)
        if head == state.head:
            return Looked("refused", "The patch leaves every file as it is. Nothing was changed.", state.head)
        notes = [untrusted(f"{note}.") for one in made.values() if one is not None for note in one.notes]
        sources = {one.new: before.get(one.old or "", "") for one in patches if one.new}
        notes += await new_syntax_errors({path: (sources[path], new) for path, new in after.items() if new is not None})
        shown = [_told_of(one, sources.get(one.path, ""), after.get(one.path)) for one in patches]
        listed = "\n".join(shown)
        room = state.terms.read_chars
        listed = listed if len(listed) <= room else f"{listed[:room]}\n[... the rest is left out: read the files]"
        told = "\n".join([f"Patched {len(patches)} files.", *notes, fenced("patch", listed)])
        return Looked("edit", told, head)

    async def _patchable(self, patch: FilePatch, tree: Tree) -> dict[str, str] | Refused:
        """The text that the patch of this file begins with, by its path; none for a new file."""
        if patch.new is not None and patch.new != patch.old:
            if patch.new in tree:
                return Refused(f"{patch.new} is there already: send its changes with `--- a/{patch.new}`.")
            if why := blocked_by(tree, patch.new):
                return Refused(f"{why}.")
        if patch.old is None:
            return {}
        data = await self._data(tree, patch.old)
        if isinstance(data, str):
            return Refused(f"{data} A new file has `--- /dev/null` before `+++ b/{patch.path}`.")
        if is_binary(data) or len(data) > MAX_FILE_BYTES:
            why = "is no text" if is_binary(data) else f"has more than {MAX_FILE_BYTES} bytes"
            return Refused(f"{patch.old} {why}: change it with a command.")
        return {patch.old: data.decode()}

    async def _put(
        self, state: Session, texts: Mapping[str, str | None], modes: Mapping[str, Mode] | None = None
    ) -> Digest:
        """The tree with these files, without those that have no text."""
        held = await self._hold(state.head)
        rows, tree = held.delta.rows, dict(held.tree)
        for path, text in texts.items():
            if text is None:
                rows = with_row(held.base, rows, path, None)
                tree.pop(path, None)
                continue
            try:
                blob = await self._blobs.put(text.encode())
            except UnicodeEncodeError as error:
                raise InvalidInput("the text holds half of a character (a lone surrogate)") from error
            mode = (modes or {}).get(path) or (held.tree[path].mode if path in held.tree else "100644")
            tree[path] = FileEntry(mode, blob)
            rows = with_row(held.base, rows, path, tree[path])
        delta = Delta(held.delta.base, rows)
        head = await put_tree(self._blobs, delta)
        self._held = _Held(head, delta, held.base, tree)
        return head

    async def _symbols(self, call: SessionCall, tree: Tree, state: Session) -> Looked:
        place, name = call.text("path").strip().rstrip("/"), call.text("name").strip()
        path = "" if place in ("", ".", "/workspace") else _path(place)
        paths = [path] if path in tree else sorted(other for other in tree if not path or other.startswith(f"{path}/"))
        if not paths:
            return Looked("result", _missing(tree, path), state.head)
        files, left = await self._sources(paths, tree, name.rpartition(".")[2])
        if path in tree and not files and not name:
            told = f"{path} is no source of at most {MAX_BYTES >> 10} KiB in a language whose symbols are known."
            return Looked("result", told, state.head)
        read = await asyncio.to_thread(read_syntax, files)
        shown = _symbols_shown([(one, syntax) for (one, _), syntax in zip(files, read, strict=True)], name)
        if left:
            shown.append(f"[{left} more files were not looked at: narrow it with path]")
        if not shown:
            where = f" below {path}" if path else ""
            return Looked("result", f"No definition{f' of {name!r}' if name else ''}{where}; try search.", state.head)
        lines, room = list[str](), state.terms.search_chars
        for line in shown:
            room -= len(line) + 1
            if room < 0 or len(lines) == _MAX_SYMBOLS:
                lines.append(f"[{len(shown) - len(lines)} more lines: narrow it with path or name]")
                break
            lines.append(line)
        return Looked("result", fenced("symbols", "\n".join(lines)), state.head, brief="list them again if needed")

    async def _sources(self, paths: Sequence[str], tree: Tree, name: str) -> tuple[list[tuple[str, str]], int]:
        """The sources at these paths that hold the name, and how many were left out for being too many."""
        sources = [path for path in paths if language_at(path) and tree[path].mode in ("100644", "100755")]
        files, size = list[tuple[str, str]](), 0
        for count, path in enumerate(sources):
            if count == _MAX_SEARCHED or len(files) == _MAX_PARSED or size > _MAX_PARSED_BYTES:
                return files, len(sources) - count
            data = await self._blobs.get(tree[path].blob)
            if len(data) > MAX_BYTES or is_binary(data) or name.encode(errors="replace") not in data:
                continue
            files.append((path, data.decode()))
            size += len(data)
        return files, 0

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
        comparison = reviewed(base, head, await judged_tree(self._blobs, head, base))
        diff = await self.changes(state)
        added = "\n".join(line[1:] for line in diff.split("\n") if line.startswith("+") and line[:4] != "+++ ")
        remarks = list(comparison.remarks)
        if secrets := sorted(set(find_secrets(added))):
            remarks.append(f"The changes hold what looks like secrets ({', '.join(secrets)}): take them out.")
        listed = "\n".join([*comparison.changed, *(f"- {remark}" for remark in remarks)])
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
    kinds = ("result", "edit")
    calls = (one.call for one in state.seen if one.call is not None and one.kind in kinds)
    return any(call.name in ("read", "edit", "write", "patch") and path in call.paths for call in calls)


def _last_change(state: Session, path: str) -> str:
    """When this session changed the file last; the text that an engineer remembers may be that from before."""
    for number in range(len(state.turns), 0, -1):
        for one in state.turns[number - 1].seen:
            if one.kind == "edit" and one.call is not None and path in one.call.paths:
                return f" You changed this file in turn {number}."
    return ""


def _mode_after(patch: FilePatch, tree: Tree) -> Mode:
    """Of a file after its patch: what it asks for where that is a file's, else what the file had."""
    if patch.mode == "100644" or patch.mode == "100755":
        return patch.mode
    return tree[patch.old].mode if patch.old is not None else "100644"


def _told_of(patch: FilePatch, before: str, after: str | None) -> str:
    if after is None:
        return f"Removed {patch.path}."
    if patch.old is None:
        return f"Made {patch.path}, {after.count(chr(10)) + (not after.endswith(chr(10)))} lines."
    moved = f"Renamed {patch.old} to {patch.new}." if patch.old != patch.new else f"{patch.path}:"
    return moved if before == after else f"{moved}\n{changed_lines(before, after)}"


def _symbols_shown(read: Iterable[tuple[str, Syntax]], name: str) -> list[str]:
    """One line for each definition, below its file; with a name only those that it names."""
    shown: list[str] = []
    for path, syntax in read:
        if syntax.unread:
            shown.append(f"{path}: not read: {syntax.unread}")
            continue
        named = [one for one in syntax.symbols if not name or _is_named(one, name)]
        if named:
            broken = f" (no valid code at line {syntax.error}: what follows may be missing)" if syntax.error else ""
            shown.append(f"{path}{broken}")
            shown += [f"  {one.line}-{one.end}  {one.kind} {one.name}" for one in named]
    return shown


def _is_named(symbol: Symbol, name: str) -> bool:
    plain = name.replace("::", ".").replace("#", ".")
    return symbol.name == plain or symbol.name.endswith(f".{plain}")


async def new_syntax_errors(texts: Mapping[str, tuple[str, str]]) -> list[str]:
    """What is told of each file that was valid code before and is none now: path -> its text before and after."""
    problems = {path: _new_python_error(path, *both) for path, both in texts.items()}
    told = [
        f"{untrusted(path)}: {problem}" if len(texts) > 1 else problem for path, problem in problems.items() if problem
    ]
    others = {path: both for path, both in texts.items() if not path.endswith(".py") and tells_errors(path)}
    # Most edits leave a file valid; the text before is read only where that makes a difference.
    read = await asyncio.to_thread(read_syntax, [(path, after) for path, (_, after) in others.items()])
    broken = {path: syntax.error for path, syntax in zip(others, read, strict=True) if syntax.error}
    were = await asyncio.to_thread(read_syntax, [(path, others[path][0]) for path in broken])
    for (path, line), was in zip(broken.items(), were, strict=True):
        if not was.error:
            told.append(_told_of_error(path, others[path][1], line, f"valid {_CALLED[language_at(path)]}"))
    return told[:_MAX_TOLD]


_CALLED = {
    **{"javascript": "JavaScript", "typescript": "TypeScript", "tsx": "TSX", "go": "Go", "rust": "Rust"},
    **{"java": "Java", "csharp": "C#", "ruby": "Ruby", "php": "PHP", "kotlin": "Kotlin", "swift": "Swift"},
    **{"scala": "Scala", "json": "JSON", "yaml": "YAML", "toml": "TOML", "python": "Python"},
}


def _told_of_error(path: str, text: str, line: int, what: str) -> str:
    lines = text.split("\n")
    start = max(0, line - 3)
    shown = numbered(lines[start : line + 2], first=start + 1, most=6)
    return f"{untrusted(path)} is no {what} any more: see line {line}.\n{fenced('syntax', shown)}"


def _new_python_error(path: str, before: str, after: str) -> str:
    """A syntax error of a Python file that was not there before, with its lines; "" when there is none."""
    if not path.endswith(".py") or (problem := _syntax_error(after)) is None or _syntax_error(before) is not None:
        return ""
    line, what = problem
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
