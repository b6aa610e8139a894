"""Resolve the two locks again: all platforms and versions, hashes, and no host name.

requirements.lock is what runs a fleet, as images install it. requirements-dev.lock holds the same, and what tests and
checks need; `make setup` installs it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN, DEV = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
HEADER = "# Made by `make lock` from pyproject.toml; not edited by hand.\n"
# Images serve every provider of models, count tokens as the models do, and test JavaScript; what is larger stays out.
_RUN_OPTIONS = ("--extra", "anthropic", "--extra", "tokenizers", "--extra", "node")
# A test environment has what runs for users, to the version.
_DEV_OPTIONS = ("--group", "dev", "--constraints", RUN.name)
_OPTIONS = (
    "--universal --generate-hashes --python-version 3.11 --no-header --no-annotate --no-emit-index-url "
    "--no-emit-find-links --quiet"
)


def main() -> int:
    """Write the locks; versions that still fit stay as they are unless --upgrade is given."""
    resolve(RUN, *_RUN_OPTIONS)
    resolve(DEV, *_DEV_OPTIONS)
    return 0


def resolve(lock: Path, *options: str) -> None:
    """One of the locks is what pyproject.toml gives. Ends with a message when it would name a host."""
    uv = Path(sys.executable).parent / "uv"
    command = [str(uv) if uv.exists() else "uv", "pip", "compile", "pyproject.toml", *_OPTIONS.split(), *options]
    subprocess.run([*command, *sys.argv[1:], "-o", lock.name], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    text = HEADER + lock.read_text()
    if "://" in text:
        lock.unlink()
        raise SystemExit("the lock would name a host: no package may come from an address of its own")
    lock.write_text(text)


if __name__ == "__main__":
    raise SystemExit(main())
