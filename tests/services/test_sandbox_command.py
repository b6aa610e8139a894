"""`fleet sandbox exec` and `check`: one command under the policy, in the real sandbox, without a fleet."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fleet.cli.app import app
from tests.support.sandbox import state_folder


class Command:
    """`fleet sandbox` with a home of its own."""

    def __init__(self, home: Path, config: Path | None = None) -> None:
        self.home, self.config = home, config

    def __call__(self, *args: str) -> Result:
        environ = {
            "FLEET_HOME": str(self.home),
            "FLEET_CONFIG": str(self.config) if self.config else None,
            "NO_COLOR": "1",
            "TERM": "dumb",
        }
        return CliRunner().invoke(app, ["sandbox", *args], env=environ)


@pytest.fixture(scope="module")
def home() -> Generator[Path]:
    with state_folder() as folder:
        folder.mkdir(mode=0o711)
        yield folder


@pytest.fixture
def fleet(home: Path) -> Command:
    return Command(home)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / ".git" / "hooks").mkdir(parents=True)
    (folder / ".git" / "config").write_text("[core]\n")
    (folder / "a.txt").write_text("old\n")
    return folder


def document(result: Result) -> dict[str, Any]:
    """The last line of standard output."""
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.rule("RC-25")
def test_check_lists_what_holds_by_which_mechanism(fleet: Command) -> None:
    result = fleet("check", "--json")
    assert result.exit_code == 0, result.output
    assert "memory" in result.stderr
    assert "1024 MiB" in result.stderr
    assert "bubblewrap: ok, tier A" in result.stderr
    health = document(result)["sandbox"]
    assert re.fullmatch(r"bubblewrap \d+\.\d+\S*, /\S+/bwrap", health["program"])
    assert health["program"] in " ".join(result.stderr.split())
    assert (health["status"], health["unmet"]) == ("ok", [])
    assert {"memory", "pids", "wall_time", "output"} <= health["enforced"].keys()
    assert (health["tier"], health["limits"]["memory_bytes"]) == ("A", 1 << 30)


def test_exec_shows_both_streams_and_says_how_it_ended(fleet: Command) -> None:
    code = "import sys; print('out \\x1b[31mred'); sys.stderr.write('err\\n')"
    result = fleet("exec", "--", "python", "-c", code)
    assert result.exit_code == 0, result.output
    assert result.stdout == "out red\n"
    assert "err" in result.stderr.splitlines()
    assert "passed: ok, exit code 0" in result.stderr


@pytest.mark.rule("RC-14")
def test_exec_of_a_failing_command_is_exit_code_four_and_writes_nothing_back(fleet: Command, workspace: Path) -> None:
    code = "print('seen'); open('b.txt', 'w').close(); raise SystemExit(9)"
    result = fleet("exec", "--json", "--keep", "--workspace", str(workspace), "--", "python", "-c", code)
    assert result.exit_code == 4
    assert not (workspace / "b.txt").exists()
    assert "seen" in result.stderr
    found = document(result)
    assert (found["result"]["status"], found["result"]["exit_code"]) == ("failed", 9)
    assert found["rule_id"] == "programs"
    assert found["changes"] is None


@pytest.mark.check("S28")
@pytest.mark.rule("RT-55")
@pytest.mark.parametrize(
    ("args", "rule"),
    [
        (["--", "rm", "-rf", "."], "command_not_listed"),
        (["--", "/bin/ls"], "command_not_listed"),
        (["--role", "qa", "--", "python", "-V"], "op_not_granted"),
        (["--role", "nobody", "--", "ls"], "role_unknown"),
        (["--", "find", ".", "-exec", "ls"], "argument_denied"),
        (["--host", "example.com", "--", "ls"], "target_not_listed"),
        (["--timeout", "100000", "--", "ls"], "RC-6"),
    ],
)
def test_exec_of_what_the_policy_does_not_allow_is_exit_code_two(fleet: Command, args: list[str], rule: str) -> None:
    result = fleet("exec", "--json", *args)
    assert result.exit_code == 2, result.output
    error = document(result)["error"]
    assert error["code"] == "policy_denied"
    if rule != "argument_denied":
        assert error["details"]["rule_id"] == rule


@pytest.mark.parametrize(
    "args",
    [
        ["--memory", "much", "--", "ls"],
        ["--disk", "1Ti", "--", "ls"],
        ["--cpu", "many", "--", "ls"],
        ["--cpu", "NaN", "--", "ls"],
        ["--pids", "100000", "--", "ls"],
        ["--workspace", "/nothing/here", "--", "ls"],
        [],
    ],
)
def test_exec_with_bad_input_is_exit_code_two(fleet: Command, args: list[str]) -> None:
    assert fleet("exec", *args).exit_code == 2


@pytest.mark.rule("RC-17", "RC-30")
def test_exec_keeps_the_limits_that_it_was_given(fleet: Command) -> None:
    limits = ["--timeout", "1", "--memory", "64Mi", "--disk", "64Mi", "--pids", "20", "--cpu", "0.5"]
    slow = fleet("exec", "--json", *limits, "--", "python", "-c", "import time; time.sleep(60)")
    assert (slow.exit_code, document(slow)["result"]["reason"]) == (4, "timeout")


def test_exec_leaves_the_folder_alone_unless_it_is_told_to_keep(fleet: Command, workspace: Path) -> None:
    code = "open('a.txt', 'a').write('new\\n'); open('b.txt', 'w').write('b'); print(open('a.txt').read())"
    first = fleet("exec", "--workspace", str(workspace), "--", "python", "-c", code)
    assert first.exit_code == 0, first.output
    assert "old\nnew" in first.stdout
    assert (workspace / "a.txt").read_text() == "old\n"
    second = fleet("exec", "--json", "--keep", "--workspace", str(workspace), "--", "python", "-c", code)
    assert document(second)["changes"] == {"removed": [], "skipped": {}, "written": ["a.txt", "b.txt"]}
    assert "written b.txt" in second.stderr
    assert (workspace / "a.txt").read_text() == "old\nnew\n"


def test_exec_never_shows_nor_changes_the_repository_and_writes_no_links(fleet: Command, workspace: Path) -> None:
    code = (
        "import os; print(os.path.exists('.git')); os.makedirs('.git/hooks');"
        "open('.git/hooks/post-checkout', 'w').write('evil'); os.symlink('/etc/passwd', 'link'); os.remove('a.txt')"
    )
    result = fleet("exec", "--keep", "--workspace", str(workspace), "--", "python", "-c", code)
    assert result.exit_code == 0, result.output
    assert result.stdout == "False\n"
    assert sorted(p.name for p in workspace.iterdir()) == [".git"]
    assert list((workspace / ".git" / "hooks").iterdir()) == []
    assert "left alone link" in result.stderr
    assert "removed a.txt" in result.stderr


@pytest.mark.rule("RT-65")
def test_exec_serves_no_secrets(fleet: Command) -> None:
    result = fleet("exec", "--json", "--", "python", "secret://deploy-token")
    assert (result.exit_code, document(result)["error"]["code"]) == (2, "policy_denied")
