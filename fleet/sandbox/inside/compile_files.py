"""Check that every Python file of the workspace compiles; writes nothing but the JSON file that argv[1] names.

Data files of test folders (not named like tests) are left out: projects keep broken sources there on purpose.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

SKIPPED = {".git", ".hg", ".venv", "venv", "node_modules", "__pycache__", "site-packages", "out", "test-reports"}
TEST_FOLDERS = {"tests", "test", "testdata", "fixtures", "testing"}


def python_files(root: Path) -> Iterator[Path]:
    """The sources below a folder, sorted, without links and without what is not the project's own."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED)
        for name in sorted(files):
            path = Path(folder, name)
            if name.endswith(".py") and not path.is_symlink() and not _is_test_data(path.relative_to(root)):
                yield path


def _is_test_data(path: Path) -> bool:
    named = (
        path.name.startswith("test_") or path.name.endswith("_test.py") or path.name in ("conftest.py", "__init__.py")
    )
    return not named and any(part in TEST_FOLDERS for part in path.parts[:-1])


def problem_of(path: Path, name: str) -> dict[str, object] | None:
    """What the compiler says against a file; None when it compiles."""
    try:
        with warnings.catch_warnings(action="ignore"):
            compile(path.read_bytes(), name, "exec", dont_inherit=True)
    except SyntaxError as error:
        return {"path": name, "line": error.lineno or 0, "message": error.msg}
    except (ValueError, RecursionError, MemoryError) as error:
        return {"path": name, "line": 0, "message": f"{type(error).__name__}: {error}"}
    return None


def main(argv: list[str]) -> int:
    """Exit 1 when at least one file does not compile, and say which."""
    root = Path.cwd()
    files = list(python_files(root))
    problems = [p for path in files if (p := problem_of(path, path.relative_to(root).as_posix()))]
    for problem in problems:
        print(f"{problem['path']}:{problem['line']}: {problem['message']}", file=sys.stderr)
    Path(argv[0]).write_text(json.dumps({"schema": 1, "files": len(files), "problems": problems}))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
