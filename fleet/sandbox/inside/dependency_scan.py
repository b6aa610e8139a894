"""What the project depends on, and which of it is not pinned (RT-45). No network and no list of known
weaknesses: whoever calls this says so.

Reads requirements*.txt, pyproject.toml, package.json, go.mod and Cargo.toml below the paths given. Prints a JSON list
of findings; exit 1 when there are any.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

_PINNED = re.compile(r"(===?\s*[^*,;\s]+|@\s*\S+)\s*(;.*)?$")
_EXACT = re.compile(r"=?\s*[0-9]+(\.[0-9]+)+([-+][\w.]+)?")
_LOCKS = {
    "package.json": ("package-lock.json", "yarn.lock", "pnpm-lock.yaml"),
    "Cargo.toml": ("Cargo.lock",),
    "pyproject.toml": ("uv.lock", "poetry.lock", "pdm.lock", "requirements.lock"),
}
_SKIPPED = {".git", "node_modules", ".venv", "target", "vendor"}


def findings(root: Path, start: Path) -> Iterator[dict[str, object]]:
    """One finding for each dependency whose version is left open, unless a lock file beside it says which."""
    for folder, folders, names in os.walk(start):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        here = Path(folder)
        for name in sorted(names):
            path = here / name
            if path.is_symlink() or any((here / lock).is_file() for lock in _LOCKS.get(name, ())):
                continue
            for line, dependency in _open_ones(path):
                where = path.relative_to(root).as_posix()
                message = f"{dependency}: no exact version, and no lock file"
                yield {"path": where, "line": line, "code": "unpinned", "message": message}


def _open_ones(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
        if re.fullmatch(r"requirements[\w.-]*\.txt", path.name):
            for n, line in enumerate(text.split("\n"), 1):
                entry = line.split("#")[0].strip().split(" --hash")[0].rstrip("\\ ")
                if entry and not entry.startswith("-") and not _PINNED.search(entry):
                    yield n, entry
        elif path.name == "package.json":
            yield from _of_table(text, json.loads(text), ("dependencies", "devDependencies"))
        elif path.name in ("pyproject.toml", "Cargo.toml"):
            import tomllib  # absent from toolchains older than 3.11

            document = tomllib.loads(text)
            yield from _of_table(text, document, ("dependencies", "dev-dependencies"))
            for entry in document.get("project", {}).get("dependencies", []):
                if not _PINNED.search(entry):
                    yield _line_of(text, entry), entry
    except (OSError, ValueError, AttributeError, TypeError, ImportError):
        return


def _of_table(text: str, document: Any, names: Sequence[str]) -> Iterator[tuple[int, str]]:
    for name in names:
        table: dict[str, Any] = document.get(name) or {}
        for dependency, version in table.items():
            asked: Any = cast("dict[str, Any]", version).get("version", "") if isinstance(version, dict) else version
            if not _EXACT.fullmatch(str(asked)):
                yield _line_of(text, dependency), f"{dependency} {asked}"


def _line_of(text: str, word: str) -> int:
    return text[: max(text.find(word), 0)].count("\n") + 1


def main(argv: Sequence[str]) -> int:
    """Exit 0 without findings, 1 with some."""
    root = Path.cwd()
    rows = [f for name in argv or ["."] for f in findings(root, root / name)]
    print(json.dumps(rows))
    return 1 if rows else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
