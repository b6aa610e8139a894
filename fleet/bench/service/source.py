"""Python text of the solve benchmark: examples in a prompt, calls in tests, the normal form of a solution."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

_PROMPT = re.compile(r"^\s*>>> ?(.*)$")
_ARROW = re.compile(r"\s*(?:==>?|=>|->|➞|➔|→|returns?:?|should (?:return|be|equal))\s*")
_MAX_LITERAL = 2000


class Example(NamedTuple):
    """One example of a prompt: a call of the entry point and the literal that it is said to give."""

    call: str
    expected: str
    lines: tuple[int, int]
    """First line and line after the last, in the prompt."""

    @property
    def test(self) -> str:
        """The example as a test."""
        return f"assert {self.call} == {self.expected}"


def examples_in(prompt: str, entry_point: str) -> tuple[Example, ...]:
    """The examples that can be run, in order: doctests, and lines like `f(1) -> 2` or `f(1) == 2`."""
    lines, found, index = prompt.split("\n"), list[Example](), 0
    while index < len(lines):
        example = _doctest(lines, index, entry_point) or _arrow(lines[index], index, entry_point)
        if example is not None:
            found.append(example)
        index = example.lines[1] if example is not None else index + 1
    return tuple(found)


def _doctest(lines: list[str], index: int, entry_point: str) -> Example | None:
    opened = _PROMPT.match(lines[index])
    if opened is None or index + 1 >= len(lines):
        return None
    call, expected = _call(opened.group(1), entry_point), _literal(lines[index + 1])
    return Example(call, expected, (index, index + 2)) if call and expected else None


def _arrow(line: str, index: int, entry_point: str) -> Example | None:
    start = line.find(f"{entry_point}(")
    if start < 0 or line.lstrip().startswith(("def ", "async def ")):
        return None
    for arrow in _ARROW.finditer(line, start):
        call = _call(line[start : arrow.start()].removeprefix(">>>"), entry_point)
        expected = _literal(line[arrow.end() :])
        if call and expected:
            return Example(call, expected, (index, index + 1))
    return None


def _expression(text: str) -> ast.expr | None:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _call(text: str, entry_point: str) -> str:
    found = _expression(text)
    return ast.unparse(found) if isinstance(found, ast.Call) and _is_closed_call(found, entry_point) else ""


def _literal(text: str) -> str:
    stripped = text.strip().rstrip("`.;,").strip()
    if not 0 < len(stripped) <= _MAX_LITERAL:
        return ""
    found = _expression(stripped)
    return ast.unparse(found) if found is not None and _is_literal(found) else ""


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _is_closed_call(node: ast.Call, entry_point: str) -> bool:
    if not (isinstance(node.func, ast.Name) and node.func.id == entry_point):
        return False
    values = [*node.args, *(k.value for k in node.keywords)]
    return all(k.arg for k in node.keywords) and all(_is_literal(value) for value in values)


def without_examples(prompt: str, entry_point: str) -> str:
    """The prompt without the lines of its examples, and without what introduced them."""
    gone = {n for e in examples_in(prompt, entry_point) for n in range(*e.lines)}
    kept = [(n, line) for n, line in enumerate(prompt.split("\n")) if n not in gone]
    is_intro = re.compile(r"^\s*(?:for )?(?:examples?|e\.g\.?)\s*:?\s*$", re.IGNORECASE)
    return "\n".join(line for n, line in kept if not (n + 1 in gone and is_intro.match(line)))


def _module(code: str) -> ast.Module | None:
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def calls_in(code: str, entry_point: str) -> tuple[str, ...]:
    """Calls of the entry point with literal arguments, each once, in order; none where the code does not parse."""
    tree = _module(code)
    nodes = ast.walk(tree) if tree is not None else ()
    found = (ast.unparse(n) for n in nodes if isinstance(n, ast.Call) and _is_closed_call(n, entry_point))
    return tuple(dict.fromkeys(found))


def expectations_in(code: str, entry_point: str) -> dict[str, str]:
    """Call -> literal of every `f(...) == literal` in the code."""
    tree = _module(code)
    return dict(_expectations(tree, entry_point)) if tree is not None else {}


def _expectations(tree: ast.Module, entry_point: str) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=ast.Call() as call, ops=[ast.Eq() | ast.Is()], comparators=[value]):
                if _is_closed_call(call, entry_point) and _is_literal(value):
                    yield ast.unparse(call), ast.unparse(value)
            case _:
                continue


def arguments_in(code: str, entry_point: str) -> int:
    """Arguments of the first call of the entry point; 0 without one."""
    tree = _module(code)
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == entry_point:
            return len(node.args) + len(node.keywords)
    return 0


def defined_tests(code: str) -> tuple[str, ...]:
    """Functions `test_...` without required arguments, in order."""
    tree = _module(code)
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)] if tree is not None else []
    fits = [f.name for f in functions if f.name.startswith("test_") and not (f.args.args or f.args.kwonlyargs)]
    return tuple(dict.fromkeys(fits))


def one_assertion_each(code: str) -> str:
    """The code with each test that only asserts, and more than once, in as many tests; an assertion counts once.

    Small models put everything into one test, and one wrong value among ten would throw away the nine right ones.
    """
    tree = _module(code)
    if tree is None:
        return code
    seen, body = set[str](), list[ast.stmt]()
    for node in tree.body:
        asserts = _only_asserts(node)
        if asserts is None or not isinstance(node, ast.FunctionDef):
            body.append(node)
            continue
        new = [a for a in asserts if not (ast.unparse(a) in seen or seen.add(ast.unparse(a)))]
        for number, assertion in enumerate(new, start=1):
            name = node.name if len(new) == 1 else f"{node.name}_{number}"
            body.append(ast.FunctionDef(name, node.args, [assertion], node.decorator_list))
    tree.body = body
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def _only_asserts(node: ast.stmt) -> list[ast.Assert] | None:
    if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
        return None
    body = [s for n, s in enumerate(node.body) if not (n == 0 and _is_text(s))]
    asserts = [s for s in body if isinstance(s, ast.Assert)]
    return asserts if asserts and len(asserts) == len(body) else None


def normal_form(code: str) -> str:
    """The code without comments, docstrings and formatting; the code itself where it does not parse."""
    tree = _module(code)
    if tree is None:
        return code
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node.body = [s for n, s in enumerate(node.body) if not (n == 0 and _is_text(s))] or [ast.Pass()]
    return ast.unparse(ast.fix_missing_locations(tree))


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
