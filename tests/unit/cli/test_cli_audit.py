"""`fleet audit` and `fleet accept-loss` where no fleet runs, and what they print."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fleet.audit.checkpoint import sign_checkpoint
from fleet.audit.files.ed25519 import KeyFile, read_public_key
from fleet.audit.files.witness import CheckpointFolder
from fleet.audit.finding import LogFinding, Verdict
from fleet.audit.service.auditor import AuditReport
from fleet.cli.app import app
from fleet.cli.audit.verify import report_of, stream_of
from fleet.cli.output import Output
from fleet.kernel.errors import InvalidInput


def fleet(home: Path, *args: str) -> Result:
    environ = {"FLEET_HOME": str(home), "FLEET_CONFIG": None, "FLEET_REDIS_URL": None, "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, list(args), env=environ)


def report(*findings: LogFinding) -> AuditReport:
    return AuditReport(
        streams=2,
        events=9,
        archives=3,
        checkpoints=1,
        exported=1,
        newest=1,
        findings=findings,
        accepted=(),
        remarks=("[b]new[/b]",),
    )


@pytest.mark.rule("EV-32")
def test_clean_report_ends_with_ok_and_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert report_of(Output(as_json=False), report()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "2 streams with 9 events, 3 archived stories, 1 checkpoints, 1 exported, newest signed checkpoint: 1",
        "  note: [b]new[/b]",
        "ok: everything is as it was recorded",
    ]


@pytest.mark.rule("EV-32")
def test_finding_is_named_and_the_command_fails(capsys: pytest.CaptureFixture[str]) -> None:
    found = LogFinding(Verdict.ROLLED_BACK, "story:st-a", 4, "checkpoint 2 attests version 4, the log ends at 3")
    assert report_of(Output(as_json=True), report(found)) == 4
    told = capsys.readouterr()
    assert "rolled back: story:st-a version 4: checkpoint 2 attests version 4" in told.err
    assert json.loads(told.out)["findings"] == [found.to_json()]
    assert json.loads(told.out)["ok"] is False


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["audit", "verify"], 5),
        (["audit", "proof", "st-a", "1", "--out", "x"], 5),
        (["accept-loss", "st-a", "--reason", "because it is so"], 5),
        (["audit", "verify", "--checkpoint", "none.json"], 2),
        (["audit", "verify", "--key", "none.pub"], 2),
        (["audit", "check-proof", "none.json", "--key", "none.pub"], 2),
        (["audit", "export", "--out", "x"], 2),
        (["audit", "rotate-key"], 2),
        (["accept-loss", "ST-A", "--reason", "because it is so"], 2),
    ],
)
def test_what_is_missing_is_one_line_and_the_right_code(tmp_path: Path, args: list[str], code: int) -> None:
    result = fleet(tmp_path / "home", *args)
    assert result.exit_code == code, result.output
    assert len(result.stderr.strip().splitlines()) == 1


def test_export_needs_no_running_fleet(tmp_path: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    key = KeyFile(home / "audit" / "notary.key")
    folder = CheckpointFolder(home / "audit" / "exported")
    signed = sign_checkpoint([], sequence=1, previous=None, time_ms=1, key=key.key, sign=key.sign)
    assert fleet(home, "audit", "export", "--out", str(out)).exit_code == 2
    asyncio.run(folder.write(signed, sequence=1))
    result = fleet(home, "audit", "export", "--out", str(out), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"checkpoints": 1, "folder": str(out), "key": key.key.text}
    assert sorted(path.name for path in out.iterdir()) == ["1.json", "notary.pub"]


@pytest.mark.rule("EV-32")
def test_key_that_shall_follow_is_made_once_and_told(tmp_path: Path) -> None:
    home = tmp_path / "home"
    key = KeyFile(home / "audit" / "notary.key").key
    told = [json.loads(fleet(home, "audit", "rotate-key", "--json").stdout) for _ in range(2)]

    assert told[0] == told[1]
    assert told[0]["retiring"] == key.text
    assert told[0]["successor"] == read_public_key(home / "audit" / "notary.next.pub").text
    assert "within 60 s while the fleet runs" in fleet(home, "audit", "rotate-key").output
    (home / "audit" / "notary.key").chmod(0o644)
    refused = fleet(home, "audit", "rotate-key")
    assert (refused.exit_code, len(refused.stderr.strip().splitlines())) == (2, 1)


def test_stream_is_named_by_story_or_in_full() -> None:
    assert (stream_of("st-a"), stream_of("project:pr-a")) == ("story:st-a", "project:pr-a")
    with pytest.raises(InvalidInput):
        stream_of("st")
