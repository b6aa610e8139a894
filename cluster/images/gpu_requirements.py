"""Print what the environment of vLLM shares with the fleet: its dependencies, and Ray at the version of its lock.

`python gpu_requirements.py DIR` reads requirements.lock and pyproject.toml in that folder. Standard library only.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def main(folder: Path) -> int:
    """One requirement a line."""
    ray = re.search(r"^ray==(\S+)", (folder / "requirements.lock").read_text(), re.MULTILINE)
    assert ray, "requirements.lock has no Ray"
    for wanted in tomllib.loads((folder / "pyproject.toml").read_text())["project"]["dependencies"]:
        name = re.split(r"[<>=!~; ]", wanted)[0]
        sys.stdout.write(f"{name}=={ray[1]}\n" if name.startswith("ray[") else f"{wanted}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
