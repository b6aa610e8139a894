"""Text views of trees for prompts and reviews: outlines, file contents, diffs. Reads text only, parses nothing."""

from __future__ import annotations

import ast
import asyncio
import difflib
import re
from collections.abc import Iterable, Sequence

from fleet.kernel.ids import Digest
from fleet.trees.delta import Delta, Rows, applied, decode_delta, encode_delta, entries_in, rows_of
from fleet.trees.port import BlobStore
from fleet.trees.tree import FileEntry, Tree, decode_tree, differing_rows, encode_tree

_DEFINITION = re.compile(r"^(?:async )?(?:def|class) \w+[^\n]*", re.MULTILINE)
_TOP_DEF = re.compile(r"^(?:async )?def (\w+)")
_HUMPS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SOURCE = (".py",)
_TEST_FILE = re.compile(
    r"/(?:tests?|__tests__)/|/test_[^/]*$|/conftest\.py$|_test\.(?:py|go|rb|exs)$|_spec\.rb$|Tests?\.(?:java|kt|cs)$"
    r"|(?:/test[^/]*/.*|/test(?:[.-][^/]*)?|[.\-_](?:test|spec|e2e|integ)(?:\.[^/]*)?)\.[cm]?[jt]sx?$"
)


async def read_tree(blobs: BlobStore, tree: Digest) -> dict[str, FileEntry]:
    """The tree's entries by path, whether it is stored whole or as a delta."""
    data = await blobs.get(tree)
    delta = decode_delta(data)
    return decode_tree(data) if delta is None else applied(decode_tree(await blobs.get(delta.base)), delta.rows)


async def read_delta(blobs: BlobStore, tree: Digest) -> Delta:
    """The tree as rows over its base; one that is stored whole is its own base."""
    return decode_delta(await blobs.get(tree)) or Delta(tree, {})


async def read_listing(blobs: BlobStore, tree: Digest) -> bytes:
    """The canonical bytes of the whole tree."""
    data = await blobs.get(tree)
    delta = decode_delta(data)
    return data if delta is None else encode_tree(applied(decode_tree(await blobs.get(delta.base)), delta.rows))


async def put_tree(blobs: BlobStore, delta: Delta) -> Digest:
    """The digest of the stored tree, as a delta; that of its base when nothing differs."""
    return await blobs.put(encode_delta(delta)) if delta.rows else delta.base


async def put_kept(blobs: BlobStore, tree: Tree, *, root: Digest | None) -> Digest:
    """The digest of the stored tree: as a delta over the whole tree `root`, or whole where there is none."""
    if root is None:
        return await blobs.put(encode_tree(tree))
    return await put_tree(blobs, Delta(root, rows_of(await read_tree(blobs, root), tree)))


async def put_whole(blobs: BlobStore, tree: Digest) -> Digest:
    """The digest under which the same tree is stored whole: equal for equal trees, whatever they were made from."""
    delta = await read_delta(blobs, tree)
    return await blobs.put(await read_listing(blobs, tree)) if delta.rows else delta.base


async def rows_over(blobs: BlobStore, base: Digest, tree: Digest) -> Rows:
    """What the tree has otherwise than this whole tree."""
    delta = await read_delta(blobs, tree)
    if delta.base == base:
        return delta.rows
    gone, come = await read_changes(blobs, base, tree)
    return {**dict.fromkeys(gone), **come}


async def read_changes(blobs: BlobStore, old: Digest, new: Digest) -> tuple[Tree, Tree]:
    """The entries of each tree that the other has not, by path; the rest of neither is looked at."""
    data, other = await blobs.get_many([old, new])
    before, after = decode_delta(data), decode_delta(other)
    if before is None and after is None:
        gone, come = await asyncio.to_thread(differing_rows, data, other)
        return decode_tree(gone), decode_tree(come)
    before, after = before or Delta(old, {}), after or Delta(new, {})
    if before.base == after.base:
        return await _changed_rows(blobs, before, after)
    whole = [decode_tree(await read_listing(blobs, tree)) for tree in (old, new)]
    return dict(whole[0].items() - whole[1].items()), dict(whole[1].items() - whole[0].items())


async def _changed_rows(blobs: BlobStore, old: Delta, new: Delta) -> tuple[Tree, Tree]:
    """As `read_changes`, of two trees over one base."""
    paths = {path for path, _ in old.rows.items() ^ new.rows.items()}
    below: Tree = {}
    if unsaid := [path for path in paths if not (path in old.rows and path in new.rows)]:
        listing = await blobs.get(old.base)
        found = entries_in(listing, unsaid)
        below = decode_tree(listing) if found is None else found

    def entries(rows: Rows) -> dict[str, FileEntry]:
        told = {path: rows.get(path, below.get(path)) for path in paths}
        return {path: entry for path, entry in told.items() if entry is not None}

    gone, come = entries(old.rows), entries(new.rows)
    return dict(gone.items() - come.items()), dict(come.items() - gone.items())


async def file_text(blobs: BlobStore, tree: Tree, path: str, *, limit: int = 6000) -> str | None:
    """The file's text, cut after `limit` characters; None when there is none or it is no text."""
    entry = tree.get(path)
    if entry is None or entry.mode not in ("100644", "100755"):
        return None
    try:
        text = (await blobs.get(entry.blob)).decode()
    except UnicodeDecodeError:
        return None
    return text if len(text) <= limit else text[:limit] + "\n# [the rest of the file is left out]\n"


def signatures(text: str) -> str:
    """The import lines and the first lines of the top-level definitions of a source text."""
    imports = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
    return "\n".join([*imports[:20], *_DEFINITION.findall(text)[:60]])


async def outline(blobs: BlobStore, tree: Tree, *, paths: Sequence[str] | None = None, max_files: int = 30) -> str:
    """Every source file with the first lines of its top-level definitions, in order of path.

    Args:
        paths: the files to show, in this order, instead of the first `max_files`.
    """
    lines: list[str] = []
    for path in _sources(tree)[:max_files] if paths is None else paths:
        lines.append(path)
        text = await file_text(blobs, tree, path, limit=100_000) or ""
        lines += [f"  {line}" for line in _DEFINITION.findall(text)[:12]]
    return "\n".join(lines)


def _sources(tree: Tree) -> list[str]:
    return sorted(p for p in tree if p.endswith(_SOURCE) and not is_test(p))


def is_test(path: str) -> bool:
    """Whether the path names a test file, or what lies beside one, by the conventions of its language."""
    return _TEST_FILE.search(f"/{path}") is not None


async def unified_diff(blobs: BlobStore, old: Digest, new: Digest, *, paths: Iterable[str] | None = None) -> str:
    """A unified diff of two trees, text files only, in order of path."""
    before, after = await read_changes(blobs, old, new)
    chosen = set(paths) if paths is not None else set(before) | set(after)
    out: list[str] = []
    for path in sorted(p for p in chosen if before.get(p) != after.get(p)):
        a = await file_text(blobs, before, path, limit=200_000) or ""
        b = await file_text(blobs, after, path, limit=200_000) or ""
        out += difflib.unified_diff(a.splitlines(), b.splitlines(), f"a/{path}", f"b/{path}", lineterm="", n=2)
    return "\n".join(out)


def keep_tests(code: str, kept: frozenset[str]) -> str:
    """The code without the top-level test functions that are not in `kept`."""
    blocks: list[list[str]] = [[]]
    for line in code.splitlines():
        starts = bool(line) and not line[0].isspace() and not line.startswith((")", "]", "}"))
        if starts and not _is_decorator(blocks[-1]):
            blocks.append([])
        blocks[-1].append(line)
    return "\n".join(line for block in blocks if _stays(block, kept) for line in block).strip() + "\n"


def named_criteria(code: str, criteria: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Top-level test function -> the criteria that its name, its docstring or a decorator names (RG-47).

    `ac-1` is named by `ac-1`, `ac_1`, `ac 1` and `ac1`, as a word of its own. Code that does not parse names none.
    """
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    forms = {ac_id: _forms_of(ac_id) for ac_id in criteria}
    named: dict[str, tuple[str, ...]] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            decorators = [ast.unparse(d) for d in node.decorator_list]
            text = "\n".join([node.name, ast.get_docstring(node) or "", *decorators]).lower()
            if found := tuple(ac_id for ac_id, form in forms.items() if form.search(text)):
                named[node.name] = found
    return named


def criteria_in_names(tests: Iterable[str], criteria: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """As `named_criteria`, of tests of any language by their names alone; `TestAC1Adds` names `ac-1` too."""
    forms = {ac_id: _forms_of(ac_id) for ac_id in criteria}
    words = {test: _HUMPS.sub("_", test).lower() for test in tests}
    named = {test: tuple(a for a, form in forms.items() if form.search(text)) for test, text in words.items()}
    return {test: found for test, found in named.items() if found}


def _forms_of(ac_id: str) -> re.Pattern[str]:
    parts = [re.escape(part) for part in re.findall(r"[a-z]+|[0-9]+", ac_id.lower())]
    return re.compile(r"(?<![a-z0-9])" + r"[-_ ]?".join(parts) + r"(?![a-z0-9])")


def merge_modules(parts: Sequence[str]) -> str:
    """One module from several: the single-line imports first, each once, then everything else in order."""
    imports: list[str] = []
    rest: list[str] = []
    for part in parts:
        body: list[str] = []
        for line in part.splitlines():
            if line.startswith(("import ", "from ")) and "(" not in line:
                imports.append(line.rstrip())
            else:
                body.append(line)
        rest.append("\n".join(body).strip())
    if not any(rest):
        return ""
    head = "\n".join(dict.fromkeys(imports))
    return "\n\n\n".join([head, *(r for r in rest if r)]).strip() + "\n"


def _is_decorator(block: list[str]) -> bool:
    # A decorator may go over several lines; what it decorates belongs to it.
    return bool(block) and block[0].startswith("@") and not any(_TOP_DEF.match(x) or x[:6] == "class " for x in block)


def _stays(block: list[str], kept: frozenset[str]) -> bool:
    names = [m.group(1) for line in block if (m := _TOP_DEF.match(line))]
    return not any(name.startswith("test_") and name not in kept for name in names)
