"""What a process does not need it does not import: every start and every command pays for what it does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

STORES_AND_FRAMEWORKS = frozenset({"ray", "httpx2", "neo4j", "redis", "mcp", "fastapi", "pyarrow", "numpy"})
COMMANDS = {
    ("--version",): STORES_AND_FRAMEWORKS | {"pydantic", "yaml"},
    ("--help",): STORES_AND_FRAMEWORKS,
    ("status",): STORES_AND_FRAMEWORKS,
    ("down",): STORES_AND_FRAMEWORKS,
    ("story", "list"): STORES_AND_FRAMEWORKS - {"redis"} | {"cluster.local.supervisor", "fleet.owner.workbench"},
    ("events", "st-none-1"): STORES_AND_FRAMEWORKS - {"redis"} | {"cluster.local.supervisor", "fleet.owner.workbench"},
}
"""What a command does not import in a home without a fleet."""


def imported(home: Path, *arguments: str) -> set[str]:
    """The modules that a new interpreter imports, by their full names."""
    argv = [sys.executable, "-X", "importtime", *arguments]
    environ = {"HOME": str(home), "FLEET_HOME": str(home / "fleet"), "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False)
    found = {line.rsplit("|", 1)[1].strip() for line in ended.stderr.splitlines() if line.startswith("import time:")}
    assert "Traceback" not in ended.stderr, ended.stderr[-2000:]
    return found


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_command_without_a_fleet_imports_no_more_than_it_needs(command: tuple[str, ...], tmp_path: Path) -> None:
    found = imported(tmp_path, "-m", "fleet.cli", *command)
    assert "fleet.cli.app" in found
    assert found & COMMANDS[command] == set()


DESCRIPTION = """
from fleet.config.files import ConfigFiles, packaged_directory
from fleet.config.settings import ServeSettings
from serve_apps.app import gateway_application, llm_application
front = ConfigFiles(packaged_directory(), None).load("serve.yaml", ServeSettings)
gateway_application(lambda: None, front)
llm_application(lambda: None, front)
"""


def test_front_that_is_described_to_serve_imports_no_routes(tmp_path: Path) -> None:
    found = imported(tmp_path, "-c", DESCRIPTION)
    assert "serve_apps.app" in found
    assert found & {"mcp", "redis", "neo4j", "serve_apps.routes.gateway", "serve_apps.llm.routes"} == set()


def test_models_front_imports_nothing_of_the_gateway(tmp_path: Path) -> None:
    found = imported(tmp_path, "-c", "import serve_apps.llm.replica")
    assert "serve_apps.llm.routes" in found
    assert found & {"mcp", "neo4j", "serve_apps.routes.gateway"} == set()


def test_actors_import_no_client_of_http_and_nothing_of_the_terminal(tmp_path: Path) -> None:
    shells = ("role", "council", "context", "notary", "projector", "sandbox")
    found = imported(tmp_path, "-c", "import " + ", ".join(f"actors.{shell}" for shell in shells))
    assert "actors.shell" in found
    assert found & {"httpx2", "typer", "rich", "mcp", "neo4j", "fastapi"} == set()


CLIENTS = {
    "fleet/models/engines/server_model.py": "the SDKs of the providers want a client of their own",
    "fleet/models/weight_sources/url.py": "gigabytes that come from wherever the address leads",
    "fleet/web/http.py": "everything else",
}
"""Who makes an HTTP client, and why it is not that of `fleet/web`."""


def test_http_client_is_made_in_one_place() -> None:
    made = re.compile(r"httpx2\.(Async)?Client\(|urllib\.request|aiohttp\.ClientSession\(")
    places = ("fleet", "actors", "serve_apps", "cluster")
    modules = (path for place in places for path in (ROOT / place).rglob("*.py"))
    makers = {str(path.relative_to(ROOT)) for path in modules if made.search(path.read_text())}
    assert makers == CLIENTS.keys()
