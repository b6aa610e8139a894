"""`fleet dlq` without a fleet; with one it is tested beside the stores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fleet.cli.app import app


def fleet(home: Path, *args: str) -> Result:
    environ = {"FLEET_HOME": str(home), "FLEET_CONFIG": None, "FLEET_REDIS_URL": None, "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, ["dlq", *args], env=environ)


@pytest.mark.parametrize("args", [["list"], ["retry", "dl-00-000000000000"]])
def test_dlq_without_a_fleet_says_how_to_start_one(tmp_path: Path, args: list[str]) -> None:
    result = fleet(tmp_path, *args)
    assert result.exit_code == 5
    assert "fleet up --detach" in result.stderr
    assert result.stdout == ""
    found = json.loads(fleet(tmp_path, *args, "--json").stdout)
    assert found["error"]["code"] == "store_unavailable"


@pytest.mark.parametrize("args", [["retry"], ["drop", "dl-00-000000000000"], ["list", "--all"]])
def test_dlq_used_wrongly_is_exit_code_two(tmp_path: Path, args: list[str]) -> None:
    assert fleet(tmp_path, *args).exit_code == 2
