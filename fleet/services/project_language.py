"""Which language a tree is written in, by the files at its root: what the pipeline builds and tests (RC-41). Pure."""

from __future__ import annotations

from collections.abc import Collection

from fleet.tools import Language

__all__ = ["language_of", "toolchain_for"]

_PYTHON = frozenset({"pyproject.toml", "setup.py", "setup.cfg", "tox.ini", "pytest.ini", "requirements.txt"})
_OTHERS: tuple[tuple[str, Language], ...] = (("go.mod", "go"), ("Cargo.toml", "rust"), ("package.json", "node"))


def language_of(paths: Collection[str]) -> Language:
    """The language whose build file lies at the root: of Python, Go, Rust and Node the first; Python when none does."""
    root = {path for path in paths if "/" not in path}
    if not root & _PYTHON and not any(path.endswith(".py") for path in root):
        for name, language in _OTHERS:
            if name in root:
                return language
    return "python"


def toolchain_for(language: Language, toolchain: str) -> str:
    """The toolchain to run the project's tools in: a Python one has no compiler of another language."""
    is_python = toolchain == "python" or toolchain.startswith("env:")
    return language if is_python and language != "python" else toolchain
