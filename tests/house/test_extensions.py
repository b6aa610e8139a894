"""Extensions are entry points of our own distribution: wiring loads them by name, and no module imports them."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest

from fleet.kernel.plugin import Plugin
from fleet.tools.kit.parts import ToolPlugin
from fleet.wiring.change_requests import FORGES
from fleet.wiring.desk.export import SINKS
from fleet.wiring.models.plugins import MODEL_ENGINES
from fleet.wiring.notifications import TARGETS
from fleet.wiring.plugins import Group, find
from fleet.wiring.sandbox.backend import SANDBOX_BACKENDS
from fleet.wiring.sandbox.plugins import REMOTE, TOOLS
from fleet.wiring.stores.blobs import BLOB_STORES
from fleet.wiring.stores.secrets import SECRET_PROVIDERS

ROOT = Path(__file__).resolve().parents[2]
GROUPS: tuple[Group[ToolPlugin] | Group[Plugin], ...] = (
    TOOLS,
    BLOB_STORES,
    MODEL_ENGINES,
    SANDBOX_BACKENDS,
    SECRET_PROVIDERS,
    FORGES,
    TARGETS,
    SINKS,
)


def declared() -> dict[str, dict[str, str]]:
    """The entry points of pyproject.toml by group."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]


def imported(path: Path) -> set[str]:
    """The modules that a module names in import statements."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.ImportFrom(module=str(module), names=aliases):
                found |= {module, *(f"{module}.{alias.name}" for alias in aliases)}
            case ast.Import(names=aliases):
                found |= {alias.name for alias in aliases}
            case _:
                pass
    return found


def test_no_module_imports_an_extension() -> None:
    folders = ("fleet", "actors", "serve_apps", "cluster", "scripts", "benchmarks", "examples", "swe_fleet_client")
    others = [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if "node_modules" not in path.parts and (ROOT / "fleet" / "extensions") not in path.parents
    ]
    assert len(others) > 900
    wrong = [path for path in others if any(name.startswith("fleet.extensions") for name in imported(path))]
    assert wrong == [], "name it in an entry point of pyproject.toml, and let wiring load it"


def test_installed_distribution_has_the_entry_points_of_the_project() -> None:
    found: dict[str, dict[str, str]] = {}
    for entry in distribution("swe-fleet").entry_points:
        if entry.group.startswith("swe_fleet."):
            found.setdefault(entry.group, {})[entry.name] = entry.value
    assert found == declared(), "they were changed after the installation: `make setup`"
    assert set(found) <= {group.name for group in GROUPS}
    assert set(found[TOOLS.name]) == REMOTE


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_every_entry_point_leads_to_what_its_group_holds(group: Group[ToolPlugin]) -> None:
    for name in declared().get(group.name, {}):
        assert find(group, name).name == name
        assert name not in group.shipped


def test_every_extension_is_reached_by_an_entry_point() -> None:
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in (ROOT / "fleet" / "extensions").rglob("*.py")
        if path.name != "__init__.py"
    }
    reached = {value.partition(":")[0] for entries in declared().values() for value in entries.values()}
    waiting = list(reached)
    while waiting:
        for name in imported(modules[waiting.pop()]) & modules.keys() - reached:
            reached.add(name)
            waiting.append(name)
    assert sorted(modules.keys() - reached) == [], "no entry point leads there"


CHECK = """
import importlib.metadata, json, os, sys
asked, real = [], importlib.metadata.entry_points
def entry_points(**given):
    asked.append(given.get("group", ""))
    return real(**given)
importlib.metadata.entry_points = entry_points
{program}
loaded = sorted(name for name in sys.modules if name.startswith("fleet.extensions."))
print(json.dumps({{"loaded": loaded, "asked": [name for name in asked if name.startswith("swe_fleet")]}}))
"""
COMMAND = """
from fleet.cli.app import main
sys.argv = ["fleet", {words}]
try:
    main()
except SystemExit:
    pass
"""
START = """
from fleet.wiring.checks import check_configuration
from fleet.wiring.places import cluster_endpoints
stores = {"FLEET_REDIS_URL": "redis://:p@log:6379/0", "FLEET_NEO4J_URI": "bolt://graph:1", "FLEET_NEO4J_PASSWORD": "p"}
check_configuration(cluster_endpoints({**os.environ, **stores}))
"""


def seen(program: str, home: Path) -> dict[str, list[str]]:
    """The extensions that a program imported, and the groups that it looked through."""
    environ = {"HOME": str(home), "FLEET_HOME": str(home / "fleet"), "PATH": os.environ["PATH"]}
    argv = [sys.executable, "-c", CHECK.format(program=program)]
    ended = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize("words", ["'--help'", "'status'", "'story', 'list'", "'models', 'pull', 'mock'"])
def test_command_that_needs_no_plugin_looks_for_none(words: str, tmp_path: Path) -> None:
    assert seen(COMMAND.format(words=words), tmp_path) == {"loaded": [], "asked": []}


def test_start_of_the_packaged_configuration_imports_no_extension(tmp_path: Path) -> None:
    assert seen(START, tmp_path) == {"loaded": [], "asked": ["swe_fleet.tools"]}
