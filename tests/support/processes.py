"""Which processes a fleet has left."""

from __future__ import annotations

import os
from pathlib import Path


def processes_below(home: Path) -> list[str]:
    """Command lines of living processes that name this folder, the calling one left out."""
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(home) in line:
                found.append(line)
    return found
