"""`fleet audit access`: who used which secret, as people and programs read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleet.cli.app import app
from fleet.cli.audit.access import report_of
from fleet.cli.output import Output
from fleet.policy.secret_grants import SecretAccess

USED = SecretAccess(
    name="forge-token",
    provider="vault",
    role="devops",
    tool="git",
    op="fetch",
    outcome="resolved",
    at_ms=1_700_000_000_123,
)
DENIED = SecretAccess(
    name="kube", provider=None, role="qa", tool="kubectl", op="get", outcome="denied", error="policy_denied", at_ms=0
)


@pytest.mark.rule("RT-65")
def test_uses_are_lines_with_time_role_operation_and_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    assert report_of(Output(as_json=False), [USED, DENIED]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2023-11-14T22:13:20.123Z devops git.fetch forge-token from vault: resolved",
        "1970-01-01T00:00:00.000Z qa kubectl.get kube: denied (policy_denied)",
    ]


@pytest.mark.rule("RT-65")
def test_uses_of_one_secret_are_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert report_of(Output(as_json=True), [USED, DENIED], secret="kube") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"accesses": [DENIED.model_dump(mode="json")], "read": 2}


def test_no_use_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert report_of(Output(as_json=False), [USED], secret="other") == 0
    assert capsys.readouterr().out == "no use of a secret is on record for other\n"


@pytest.mark.parametrize(("more", "code"), [([], 5), (["--limit", "0"], 2), (["--limit", "x"], 2), (["--nobody"], 2)])
def test_access_without_a_fleet_or_with_wrong_options_is_an_exit_code(
    tmp_path: Path, more: list[str], code: int
) -> None:
    environ = {
        "FLEET_HOME": str(tmp_path),
        "FLEET_CONFIG": None,
        "FLEET_REDIS_URL": None,
        "NO_COLOR": "1",
        "TERM": "dumb",
    }
    done = CliRunner().invoke(app, ["audit", "access", *more], env=environ)
    assert done.exit_code == code, done.output


def test_revoke_without_a_fleet_names_the_missing_service(tmp_path: Path) -> None:
    environ = {
        "FLEET_HOME": str(tmp_path),
        "FLEET_CONFIG": None,
        "FLEET_REDIS_URL": None,
        "NO_COLOR": "1",
        "TERM": "dumb",
    }
    done = CliRunner().invoke(app, ["story", "revoke", "st-a-1", "ap-1", "--reason", "it was a mistake"], env=environ)
    assert done.exit_code == 5, done.output
