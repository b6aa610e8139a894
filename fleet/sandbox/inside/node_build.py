"""Build a Node project: its own `build` script where it has one, else every source is read by `node --check`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from node_tests import SKIPPED
from result_files import run_tool

_SOURCE = re.compile(r".+\.[cm]?js")


def has_build_script(root: Path) -> bool:
    """Whether package.json declares `scripts.build`."""
    try:
        package: Any = json.loads((root / "package.json").read_text(errors="replace"))
        return isinstance(package["scripts"]["build"], str)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def sources(root: Path) -> list[Path]:
    """The JavaScript files of the project, sorted, without those of other packages."""
    paths = (path for path in root.rglob("*") if _SOURCE.fullmatch(path.name) and path.is_file())
    return sorted(path for path in paths if not SKIPPED & set(path.relative_to(root).parts))


def main() -> int:
    """Exit with the build's code; without a build script with that of the first bad source, after all were read."""
    root = Path.cwd()
    if has_build_script(root):
        return run_tool(["npm", "run", "build"])
    codes = [run_tool(["node", "--check", str(path)]) for path in sources(root)]
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main())
