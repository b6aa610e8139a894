"""`fleet --log-json`: log lines of the command are JSON, and those of a fleet that it starts."""

from __future__ import annotations

import json
import logging
import os

import pytest
from typer.testing import CliRunner

from fleet import __version__
from fleet.cli.app import app

VARIABLE = "FLEET_OBSERVABILITY_LOG_FORM"


@pytest.mark.parametrize("is_wanted", [True, False])
def test_log_lines_are_json_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, is_wanted: bool
) -> None:
    monkeypatch.setenv(VARIABLE, "")
    done = CliRunner().invoke(app, [*(["--log-json"] if is_wanted else []), "--version"])
    assert (done.exit_code, done.stdout) == (0, f"fleet {__version__}\n")
    assert os.environ[VARIABLE] == ("json" if is_wanted else "")
    logging.getLogger("fleet.of_a_test").info("a line")
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["process"] for line in lines] == (["command-line"] if is_wanted else [])
