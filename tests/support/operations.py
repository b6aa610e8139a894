"""The commands of docs/operations.md, as an operator copies them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PAGE = ROOT / "docs" / "operations.md"
_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks_of(heading: str) -> list[str]:
    """The shell commands below this heading of the page, one text for each block."""
    _, _, rest = _PAGE.read_text().partition(f"\n## {heading}\n")
    assert rest, f"{_PAGE.name} has no section {heading!r}"
    return _BLOCK.findall(rest.partition("\n## ")[0])


def as_written(block: str, folder: Path, environ: Mapping[str, str], *, within_s: float = 600) -> str:
    """What the commands of the block print in this folder; each of them has ended well."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    argv = ["bash", "-euo", "pipefail", "-c", block]
    done = subprocess.run(
        argv, cwd=folder, env={**environ, "PATH": path}, capture_output=True, text=True, check=False, timeout=within_s
    )
    assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
