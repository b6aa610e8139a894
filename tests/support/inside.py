"""The scripts that run inside the sandbox, as modules for a test or as a process of their own."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

INSIDE = Path(__file__).parents[2] / "fleet" / "sandbox" / "inside"


def load(name: str) -> Any:
    """One script as a module; they import each other by bare name, because they are staged as one flat folder."""
    if str(INSIDE) not in sys.path:
        sys.path.append(str(INSIDE))
    return importlib.import_module(name)


def run_script(
    name: str, *argv: object, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """One script as the sandbox starts it, with an environment of its own."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd), "LANG": "C.UTF-8", **(env or {})}
    # The toolchain has pytest alone; the environment of these tests has plugins.
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    command = [sys.executable, str(INSIDE / f"{name}.py"), *map(str, argv)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def write_files(root: Path, files: dict[str, str]) -> Path:
    """The files below the root, with their folders."""
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return root


def read_json(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text())
