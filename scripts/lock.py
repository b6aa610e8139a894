"""Resolve requirements.lock again: all platforms and versions, hashes, and no host name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
HEADER = "# Made by `make lock` from pyproject.toml; not edited by hand.\n"
_OPTIONS = (
    "--extra dev --universal --generate-hashes --python-version 3.11 --no-header --no-annotate --no-emit-index-url "
    "--no-emit-find-links --quiet"
)


def main() -> int:
    """Write the lock; versions that still fit stay as they are unless --upgrade is given."""
    uv = Path(sys.executable).parent / "uv"
    command = [str(uv) if uv.exists() else "uv", "pip", "compile", "pyproject.toml", *_OPTIONS.split(), *sys.argv[1:]]
    subprocess.run([*command, "-o", str(LOCK)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    text = HEADER + LOCK.read_text()
    if "://" in text:
        LOCK.unlink()
        raise SystemExit("the lock would name a host: no package may come from an address of its own")
    LOCK.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
