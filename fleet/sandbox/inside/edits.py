"""Merge definitions into a Python source, and compare sources by meaning. Pure functions over text.

A model answers with whole definitions, not with patches: each top-level definition replaces the one of the same name.
Two candidates that differ in format or comments alone are one (CN-34).
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


class EditProblem(Exception):
    """The edit cannot be applied; the message says why and what to send instead."""


@dataclass
class Block:
    """One top-level statement: the lines it covers (0-based, end exclusive), the names it binds, its text."""

    node: ast.stmt
    start: int
    end: int
    text: str
    names: tuple[str, ...] = ()
    comment_lines: int = 0


@dataclass
class Source:
    """A parsed module as lines and blocks."""

    lines: list[str]
    blocks: list[Block]
    docstring: Block | None = None
    imports: list[Block] = field(default_factory=list[Block])

    @property
    def text(self) -> str:
        """The module's text."""
        return "\n".join(self.lines)


def parse(text: str, what: str) -> Source:
    """The blocks of a module; EditProblem names the line when it is no Python."""
    try:
        module = ast.parse(text)
    except SyntaxError as error:
        raise EditProblem(f"{what} is no valid Python: line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise EditProblem(f"{what} cannot be parsed: {type(error).__name__}") from error
    lines = text.split("\n")
    source = Source(lines, [])
    last_end = 0
    for node in module.body:
        block = _block(node, lines)
        if block.start + block.comment_lines < last_end:
            raise EditProblem(f"{what} has two statements on line {last_end}: write one statement per line")
        last_end = block.end
        source.blocks.append(block)
    if source.blocks and is_docstring(module.body[0]):
        source.docstring = source.blocks[0]
    source.imports = [b for b in source.blocks if isinstance(b.node, (ast.Import, ast.ImportFrom))]
    return source


def _block(node: ast.stmt, lines: Sequence[str]) -> Block:
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) - 1
    start = first
    while start and lines[start - 1].startswith("#") and not lines[start - 1].startswith("#!"):
        start -= 1
    end = node.end_lineno or node.lineno
    return Block(node, start, end, "\n".join(lines[start:end]), _bound_names(node), first - start)


def _bound_names(node: ast.stmt) -> tuple[str, ...]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return (node.name,)
    if isinstance(node, ast.Assign):
        names = [name for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        return tuple(name.id for name in names if isinstance(name.ctx, ast.Store))
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return (node.target.id,)
    alias: object = getattr(node, "name", None) if type(node).__name__ == "TypeAlias" else None
    return (alias.id,) if isinstance(alias, ast.Name) else ()


def is_docstring(node: ast.stmt) -> bool:
    """True for a statement that is nothing but a string."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__name__" in ast.dump(node.test) and "__main__" in ast.dump(node.test)


def _is_guarded_import(node: ast.stmt) -> bool:
    children = [n for n in ast.walk(node) if isinstance(n, ast.stmt) and n is not node]
    return isinstance(node, (ast.If, ast.Try)) and any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in children)


def merge_definitions(target: str, content: str, *, path: str) -> str:
    """The target with every top-level definition of the content in the place of its namesake, or appended.

    New definitions go to the end, before an `if __name__ == "__main__":` block. Imports that the target lacks are added
    below its own; imports of the module itself are left out. New public names join a literal `__all__`.

    Args:
        target: present text of the file, "" for a new one.
        path: its repository-relative path, which says what importing itself would be called.

    Raises:
        EditProblem: one of the two is no Python, or the content defines nothing.
    """
    old, new = parse(target, path), parse(content, f"the edit of {path}")
    if not new.blocks:
        raise EditProblem(f"the edit of {path} holds no definition")
    old_names = {name for block in old.blocks for name in block.names}
    text = _place_definitions(old, new)
    text = _add_imports(text, new, path=path)
    defines_all = any("__all__" in block.names for block in new.blocks)
    public = [n for b in new.blocks for n in b.names if n not in old_names and not n.startswith("_")]
    return text if defines_all else _extend_all(text, public)


def _place_definitions(old: Source, new: Source) -> str:
    replaced: dict[int, list[str]] = {}
    removed: set[int] = set()
    appended: list[str] = []
    guard: str | None = None
    kept_statements = {ast.dump(b.node) for b in old.blocks}
    groups = _groups(new.blocks)
    for key, blocks in groups:
        hits = [i for i, b in enumerate(old.blocks) if key and set(b.names) & set(key)]
        if hits:
            first = next((i for i in hits if i not in removed and i not in replaced), None)
            if first is None:
                appended += [b.text for b in blocks]
                continue
            replaced[first] = [_with_comments(old.blocks[first], b) if n == 0 else b.text for n, b in enumerate(blocks)]
            removed |= set(hits) - {first}
        elif _is_main_guard(blocks[0].node):
            guard = blocks[0].text
        elif key or ast.dump(blocks[0].node) not in kept_statements:
            appended += [b.text for b in blocks]
    return _assemble(old, replaced, removed, appended, guard)


def _groups(blocks: Sequence[Block]) -> list[tuple[tuple[str, ...], list[Block]]]:
    """Definitions of one name together (overloads, properties); imports and the docstring are placed elsewhere."""
    groups: list[tuple[tuple[str, ...], list[Block]]] = []
    for n, block in enumerate(blocks):
        if isinstance(block.node, (ast.Import, ast.ImportFrom)) or (n == 0 and is_docstring(block.node)):
            continue
        if _is_guarded_import(block.node) and not _is_main_guard(block.node):
            continue
        same = next((g for g in groups if block.names and set(g[0]) & set(block.names)), None)
        if same:
            same[1].append(block)
        else:
            groups.append((block.names, [block]))
    return groups


def _with_comments(old: Block, new: Block) -> str:
    """The new text; it keeps the comment above the old one when it brings none itself."""
    if new.comment_lines or not old.comment_lines:
        return new.text
    return "\n".join([*old.text.split("\n")[: old.comment_lines], new.text])


def _assemble(
    old: Source, replaced: dict[int, list[str]], removed: set[int], appended: list[str], guard: str | None
) -> str:
    lines: list[str] = []
    position = 0
    tail: list[str] = []
    for index, block in enumerate(old.blocks):
        is_guard = _is_main_guard(block.node)
        if is_guard and block is old.blocks[-1]:
            lines += old.lines[position : block.start]
            tail = (guard or block.text).split("\n") + old.lines[block.end :]
            position, guard = len(old.lines), None
            break
        lines += old.lines[position : block.start]
        position = block.end
        if is_guard and guard:
            lines, guard = lines + guard.split("\n"), None
        elif index in replaced:
            lines += "\n\n\n".join(replaced[index]).split("\n")
        elif index not in removed:
            lines += old.lines[block.start : block.end]
    lines += old.lines[position:]
    additions = [*appended, guard] if guard else appended
    parts = ["\n".join(lines).rstrip("\n"), *additions, "\n".join(tail).rstrip("\n")]
    return "\n\n\n".join(part for part in parts if part) + "\n"


def _add_imports(text: str, new: Source, *, path: str) -> str:
    target = parse(text, path)
    own = _own_names(path)
    present = {key for block in target.imports for key in _import_keys(block.node)}
    future: list[str] = []
    others: list[str] = []
    for block in new.imports:
        kept = _missing_aliases(block.node, present, own)
        if kept is None:
            continue
        is_future = isinstance(kept, ast.ImportFrom) and kept.module == "__future__"
        (future if is_future else others).append(ast.unparse(kept))
        present |= set(_import_keys(kept))
    dumps = {ast.dump(b.node) for b in target.blocks}
    guarded = [b for b in new.blocks if _is_guarded_import(b.node) and not _is_main_guard(b.node)]
    others += [b.text for b in guarded if ast.dump(b.node) not in dumps]
    docstring = new.docstring.text if new.docstring and not target.docstring else None
    return _insert_at_top(target, docstring, future, others)


def _own_names(path: str) -> set[str]:
    parts = path.removesuffix(".py").split("/")
    if parts[-1] == "__init__":
        parts = parts[:-1]
    if parts and parts[0] in ("src", "lib"):
        parts = parts[1:]
    return {".".join(parts), "." + parts[-1]} if parts else set()


def _import_keys(node: ast.stmt) -> list[tuple[str, str | None, str | None]]:
    if isinstance(node, ast.Import):
        return [(alias.name, None, alias.asname) for alias in node.names]
    assert isinstance(node, ast.ImportFrom)
    module = "." * node.level + (node.module or "")
    return [(module, alias.name, alias.asname) for alias in node.names]


def _missing_aliases(
    node: ast.stmt, present: set[tuple[str, str | None, str | None]], own: set[str]
) -> ast.Import | ast.ImportFrom | None:
    assert isinstance(node, (ast.Import, ast.ImportFrom))
    keys = _import_keys(node)
    names = [alias for alias, key in zip(node.names, keys, strict=True) if key not in present and key[0] not in own]
    if not names:
        return None
    if isinstance(node, ast.Import):
        return ast.Import(names=names)
    return ast.ImportFrom(module=node.module, names=names, level=node.level)


def _insert_at_top(target: Source, docstring: str | None, future: list[str], others: list[str]) -> str:
    lines = list(target.lines)
    has_future = [b for b in target.imports if isinstance(b.node, ast.ImportFrom) and b.node.module == "__future__"]
    top = target.docstring.end if target.docstring else _first_code_line(target)
    future_at = has_future[-1].end if has_future else top
    others_at = max(_end_of_import_run(target) or 0, future_at)
    # Bottom first, so that the positions above stay true.
    if others:
        at_import = others_at > future_at or bool(has_future)
        lines[others_at:others_at] = _spaced(others, lines, others_at, follows_import=at_import)
    if future:
        lines[future_at:future_at] = _spaced(future, lines, future_at, follows_import=bool(has_future))
    if docstring:
        lines[top:top] = [docstring, ""]
    return "\n".join(lines)


def _first_code_line(target: Source) -> int:
    return target.blocks[0].start if target.blocks else len(target.lines)


def _spaced(added: list[str], lines: list[str], at: int, *, follows_import: bool) -> list[str]:
    before = [] if follows_import or at == 0 or not lines[at - 1].strip() else [""]
    after = [] if at >= len(lines) or not lines[at].strip() or lines[at].startswith(("import ", "from ")) else [""]
    return [*before, *added, *after]


def _end_of_import_run(target: Source) -> int | None:
    """Where the leading imports end: a later import inside the code is no place for new ones."""
    end: int | None = None
    for block in target.blocks:
        if block is target.docstring:
            continue
        if not isinstance(block.node, (ast.Import, ast.ImportFrom)):
            break
        end = block.end
    return end


def _extend_all(text: str, names: Sequence[str]) -> str:
    source = parse(text, "the merged module")
    block = next((b for b in source.blocks if b.names == ("__all__",)), None)
    if block is None or not isinstance(block.node, (ast.Assign, ast.AnnAssign)):
        return text
    value = block.node.value
    if not isinstance(value, (ast.List, ast.Tuple)):
        return text
    present = [e.value for e in value.elts if isinstance(e, ast.Constant) and isinstance(e.value, str)]
    added = [name for name in dict.fromkeys(names) if name not in present]
    if len(present) != len(value.elts) or not added:
        return text
    both = sorted(present + added) if present == sorted(present) else present + added
    return _replace_span(source.lines, value, _literal(both, value))


def _literal(names: Sequence[str], value: ast.List | ast.Tuple) -> str:
    left, right = ("[", "]") if isinstance(value, ast.List) else ("(", ")")
    quoted = [f'"{name}"' for name in names]
    if value.lineno != value.end_lineno:
        return "\n".join([left, *(f"    {name}," for name in quoted), right])
    comma = "," if isinstance(value, ast.Tuple) and len(quoted) == 1 else ""
    return f"{left}{', '.join(quoted)}{comma}{right}"


def _replace_span(lines: list[str], node: ast.expr, text: str) -> str:
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    # ast counts columns in UTF-8 bytes.
    before = lines[first].encode()[: node.col_offset].decode()
    after = lines[last].encode()[node.end_col_offset or 0 :].decode()
    return "\n".join([*lines[:first], before + text + after, *lines[last + 1 :]])


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def normal_form(path: str, text: str) -> str:
    """What of a file counts between candidates: its syntax tree without docstrings, else its words (CN-34)."""
    if path.endswith(".py"):
        try:
            return ast.dump(_without_docstrings(ast.parse(text)))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass
    return " ".join(text.split())


def _without_docstrings(module: ast.Module) -> ast.Module:
    for node in ast.walk(module):
        if isinstance(node, _DOCUMENTED) and node.body and is_docstring(node.body[0]):
            node.body = node.body[1:]
    return module


def normal_form_digest(files: Iterable[tuple[str, str, str]]) -> str:
    """sha256 (hex) over the normal forms of (path, old text, new text), leaving out files whose form did not change."""
    digest = hashlib.sha256()
    for path, old, new in sorted(files):
        form = normal_form(path, new)
        if form != normal_form(path, old):
            digest.update(f"{path}\0{len(form)}\0{form}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
