"""Format what an edit brings, and leave the rest of a file as its authors wrote it.

A whole file is formatted, and its imports are cleaned, only when that was already so before the edit (or the file is
new): otherwise the diff would be full of lines that nobody asked to change.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_IMPORT_RULES = ("F401", "I")
_TIMEOUT_S = 60


class Formatter:
    """ruff with the project's own configuration; without ruff, or switched off, texts come back unchanged."""

    def __init__(self, root: Path, *, enabled: bool) -> None:
        self._root = root
        self._enabled = enabled
        self.is_used = False

    def snippet(self, path: str, content: str) -> str:
        """The content of one edit, formatted by itself."""
        return self._format(path, content)

    def whole(self, path: str, old: str | None, new: str) -> str:
        """The file after all edits: import rules that held before are kept up, and so is the format."""
        if not path.endswith(".py") or not self._enabled:
            return new
        was_formatted = old is None or self._format(path, old) == old
        rules = [rule for rule in _IMPORT_RULES if old is None or self._is_clean(path, old, rule)]
        if rules:
            new = self._fixed(path, new, rules)
        return self._format(path, new) if was_formatted else new

    def _format(self, path: str, text: str) -> str:
        if not path.endswith(".py"):
            return text
        done = self._ruff(["format", "--no-cache", "-q", "--stdin-filename", path, "-"], text)
        return done if done is not None else text

    def _fixed(self, path: str, text: str, rules: Sequence[str]) -> str:
        argv = ["check", "--no-cache", "-q", "--fix-only", "--exit-zero", "--select", ",".join(rules)]
        done = self._ruff([*argv, "--stdin-filename", path, "-"], text)
        return done if done is not None else text

    def _is_clean(self, path: str, text: str, rule: str) -> bool:
        argv = ["check", "--no-cache", "-q", "--select", rule, "--stdin-filename", path, "-"]
        return self._ruff(argv, text) is not None

    def _ruff(self, argv: Sequence[str], text: str) -> str | None:
        if not self._enabled:
            return None
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *argv],
            cwd=self._root,
            input=text.encode(),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            return None
        self.is_used = True
        return done.stdout.decode()
