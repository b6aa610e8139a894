"""What a user installs: the wheel of a fresh clone has everything that the commands and the client need."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("actors", "cluster", "fleet", "serve_apps", "swe_fleet_client")
IMPORT = """
from pathlib import Path
import swe_fleet_client.models, swe_fleet_client.operations
from swe_fleet_client import FleetClient
print(Path(swe_fleet_client.__file__).parents[1])
assert issubclass(FleetClient, swe_fleet_client.operations.Operations)
"""

LOAD = """
import json
from importlib.metadata import PathDistribution
from pathlib import Path
(info,) = Path({site!r}).glob("swe_fleet-*.dist-info")
found = [entry for entry in PathDistribution(info).entry_points if entry.group.startswith("swe_fleet.")]
print(json.dumps([[entry.group, entry.name, entry.load().name] for entry in found]))
"""


def clone(folder: Path) -> Path:
    """What git has of this tree, and would have: nothing that was built or generated here."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def generate(folder: Path) -> None:
    """The generated files of the clone, as its `make setup` writes them."""
    spec = importlib.util.spec_from_file_location("setup_env_of_the_clone", folder / "scripts" / "setup_env.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.generate(Path(sys.executable))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the wheel of a clone was installed."""
    folder = tmp_path_factory.mktemp("wheel")
    source = clone(folder / "clone")
    generate(source)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=source, check=True)
    (wheel,) = folder.glob("*.whl")
    uv = Path(sys.executable).parent / "uv"
    target = ["--target", str(folder / "installed"), "--python", sys.executable]
    subprocess.run([str(uv), "pip", "install", "--quiet", "--offline", "--no-deps", *target, str(wheel)], check=True)
    return folder / "installed"


def run(site: Path, *command: str) -> str:
    """What a program prints that finds the wheel's packages first, away from the checkout."""
    environ = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        command, cwd=site.parent, env=environ, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_client_of_the_wheel_has_its_types_and_methods(site: Path) -> None:
    assert run(site, sys.executable, "-c", IMPORT) == str(site)


def test_command_of_the_wheel_starts(site: Path) -> None:
    program = site / "bin" / "fleet"

    assert sys.executable in program.read_text().splitlines()[0]
    assert run(site, str(program), "--version").endswith("0.1.0")


def test_wheel_says_that_its_packages_are_typed(site: Path) -> None:
    assert [name for name in PACKAGES if not (site / name / "py.typed").is_file()] == []


def test_extensions_of_the_wheel_are_entry_points_that_load(site: Path) -> None:
    found = json.loads(run(site, sys.executable, "-c", LOAD.format(site=str(site))))
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert sorted(found) == sorted([group, name, name] for group, names in declared.items() for name in names)
    assert run(site, sys.executable, "-c", "import fleet.extensions; print(fleet.extensions.__file__)").startswith(
        str(site)
    )
