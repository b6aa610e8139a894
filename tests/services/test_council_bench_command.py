"""`fleet council bench` end to end: a scripted model server, the real sandbox, and a second start that continues."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from fleet.bench.files.folder import BenchFolder, read_folder
from fleet.bench.row import ARMS
from fleet.cli.app import app
from fleet.kernel.errors import InvalidInput
from tests.support.openai_server import Scripted, served_in_thread
from tests.support.sandbox import state_folder

TASKS = Path(__file__).resolve().parents[2] / "benchmarks" / "solve" / "tasks.yaml"


@pytest.fixture(scope="module")
def home() -> Generator[Path]:
    with state_folder() as folder:
        folder.mkdir(mode=0o711)
        yield folder


def bench(home: Path, *args: str, url: str = "http://127.0.0.1:9/v1") -> Result:
    environ = {
        "FLEET_HOME": str(home),
        "FLEET_CONFIG": None,
        "FLEET_OPENAI_BASE_URL": url,
        "OPENAI_API_KEY": "k",
        "NO_COLOR": "1",
        "TERM": "dumb",
    }
    return CliRunner().invoke(app, ["council", "bench", *args], env=environ)


def document(result: Result) -> dict[str, Any]:
    return json.loads(result.stdout.splitlines()[-1])


def answer() -> Scripted:
    """One block that serves as a draft and as tests."""
    solution = yaml.safe_load(TASKS.read_text())["tasks"][0]["solution"]
    return Scripted(f"```python\n{solution}\ndef test_empty():\n    assert run_lengths('') == []\n```\n")


@pytest.mark.door("fleet council bench", stand_in="a model server with one answer")
def test_all_arms_run_in_the_sandbox_and_a_second_start_asks_for_nothing(home: Path, tmp_path: Path):
    args = (str(TASKS), "--model", "openai", "--arms", "all", "--limit", "1", "--tokens", "4000", "--json")
    with served_in_thread(answer()) as server:
        first = bench(home, *args, "--out", str(tmp_path / "out"), url=server.base_url)
        assert first.exit_code == 0, first.output
        asked = len(server.requests)
        second = bench(home, *args, "--out", str(tmp_path / "out"), url=server.base_url)
        assert len(server.requests) == asked
        assert "abba" not in json.dumps(server.requests)
    arms = document(first)["arms"]
    assert [(a["arm"], a["passed"], a["over"]) for a in arms] == [(name, 1, 0) for name in ARMS]
    assert document(second)["arms"] == arms
    assert "6/6" in first.stderr
    replay = bench(
        home,
        *args,
        "--model",
        document(first)["recorded"],
        "--out",
        str(tmp_path / "again"),
        url="http://127.0.0.1:9/v1",
    )
    assert [a["tokens"] for a in document(replay)["arms"]] == [a["tokens"] for a in arms]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("missing.yaml", "--model", "openai"), "cannot be read"),
        ((str(TASKS), "--model", "nobody"), "nobody"),
        ((str(TASKS), "--model", "recorded:nowhere"), "no folder of recorded replies"),
        ((str(TASKS), "--model", "openai", "--arms", "best"), "is no arm"),
        ((str(TASKS), "--model", "openai", "--seeds", "1;2"), "whole numbers"),
        ((str(TASKS), "--model", "openai", "--tokens", "10"), "holds no call"),
        ((str(TASKS), "--model", "openai", "--seats", "4"), "odd number"),
        ((str(TASKS), "--model", "openai", "--at-once", "0"), "not in 1..64"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(home: Path, args: tuple[str, ...], says: str):
    result = bench(home, *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr


def test_folder_belongs_to_one_benchmark_and_forgets_a_torn_row(tmp_path: Path):
    folder = tmp_path / "b"
    BenchFolder(folder, {"tokens": 1})
    (folder / "rows.jsonl").write_bytes(b'{"task_id": "x"')
    assert BenchFolder(folder, {"tokens": 1}).rows == []
    with pytest.raises(InvalidInput, match="different: tokens"):
        BenchFolder(folder, {"tokens": 2})
    (folder / "rows.jsonl").write_bytes(b'{"task_id": "x"}\n')
    with pytest.raises(InvalidInput, match="line 1 is no row"):
        BenchFolder(folder, {"tokens": 1})
    (folder / "bench.json").write_text("{")
    with pytest.raises(InvalidInput, match="damaged"):
        BenchFolder(folder, {"tokens": 1})
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot be used"):
        BenchFolder(tmp_path / "file" / "x", {})


def test_repository_is_read_without_git_and_links(tmp_path: Path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("")
    (tmp_path / "a.py").write_text("x")
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert read_folder(tmp_path) == {"a.py": b"x"}
    with pytest.raises(InvalidInput, match="is no folder"):
        read_folder(tmp_path / "nothing")
