"""Whether a Python project can have tests with a marker, without collecting them.

Collecting costs a start of pytest and the import of every test module, in each run of the pipeline, and most projects
have no test of the marker that is asked for.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_SKIPPED = {".git", ".hg", ".venv", "venv", "node_modules", "__pycache__", "site-packages", "test-reports"}
"""Not the project's own, or what earlier runs left: their results have the marker in their names."""


def can_have(root: Path, marker: str) -> bool:
    """Whether the word stands in a Python file or in a path. Elsewhere neither a decorator nor a hook can give it.

    A hook gives markers by the folder or the name of a file as well, hence the paths. What cannot be read, and an
    expression of several words, is answered with True: then pytest decides.
    """
    if not marker.isidentifier():
        return True
    failed: list[OSError] = []
    for folder, folders, files in os.walk(root, onerror=failed.append):
        folders[:] = [name for name in folders if name not in _SKIPPED]
        if any(marker in name for name in (*folders, *files)):
            return True
        if any(name.endswith(".py") and _says(Path(folder, name), marker.encode()) for name in files):
            return True
    return bool(failed)


def _says(path: Path, word: bytes) -> bool:
    try:
        # What is no file (a pipe, say) could block whoever opens it, and pytest does not read it either.
        return stat.S_ISREG(path.stat().st_mode) and word in path.read_bytes()
    except OSError:
        return True
