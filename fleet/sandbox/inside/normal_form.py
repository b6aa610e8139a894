"""Compare sources by meaning: two candidates that differ in format or comments alone are one (CN-34)."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable

from edits import is_docstring

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
