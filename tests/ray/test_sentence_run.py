"""One sentence at a terminal, as a user types it: a fleet of its own, a model server, real everything else."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.config.files import ConfigFiles, packaged_directory
from tests.ray.test_fleet_run import environment, example_repository, git
from tests.support.openai_server import Scripted, served_in_thread
from tests.support.processes import processes_below
from tests.support.team_models import demo_story
from tests.support.team_server import engineers_answer, working_engine

pytestmark = pytest.mark.timeout(600)
SENTENCE = "Add a slugify function that makes slugs from titles"


def _answer(request: dict[str, Any]) -> Scripted:
    """As a team whose developers work in sessions; its planner writes the criteria of the example."""
    if not str(request["messages"][0]["content"]).startswith("Work: advise"):
        return engineers_answer(request)
    story = demo_story()
    proposed = {key: story[key] for key in ("title", "description", "acceptance_criteria")} | {"depends_on": []}
    asked = {"requirements": ["slugs of titles"], "questions": ["Which letters count?"], "stories": [proposed]}
    return Scripted(json.dumps(asked))


def _typed(command: list[str], env: dict[str, str], repo: Path, lines: list[str]) -> tuple[int, str]:
    """Exit code and everything that the terminal showed; each line is typed when a question waits for it."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, env=env, cwd=repo, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown, waiting = bytearray(), list(lines)
    ended = threading.Timer(300, process.send_signal, [signal.SIGINT])
    ended.start()
    try:
        # Reading fails once the program has closed the terminal.
        with contextlib.suppress(OSError):
            while chunk := os.read(ours, 4096):
                shown += chunk
                if waiting and bytes(shown).rstrip().endswith((b"leaves it open)", b"(y/N)", b"leaves it waiting)")):
                    os.write(ours, waiting.pop(0).encode() + b"\n")
    finally:
        os.close(ours)
        ended.cancel()
    return process.wait(), shown.decode(errors="replace").replace("\r\n", "\n")


@pytest.mark.wide
@pytest.mark.rule("PL-54", "PL-43")
def test_sentence_in_a_repository_becomes_a_tested_branch(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    home, repo = tmp_path_factory.mktemp("h"), example_repository(tmp_path)
    (repo / "scratch.py").write_text("S = 1\n")
    own = tmp_path / "config"
    own.mkdir()
    with served_in_thread() as server:
        server.answer = _answer
        document = dict(ConfigFiles(packaged_directory()).document("models.yaml"))
        document["engines"] = [working_engine(server.base_url) | {"external": True}]
        document["policies"] = {"default": [{"engine_id": "able", "max_tokens": 4096, "timeout_s": 300}]}
        (own / "models.yaml").write_text(yaml.safe_dump(document))
        env = {**environment(home), "FLEET_CONFIG": str(own), "COLUMNS": "400", "TERM": "dumb"}
        command = [sys.executable, "-m", "fleet.cli", "run", SENTENCE, "--yes", "qa", "--rigor", "L1"]
        code, told = _typed(command, env, repo, ["ASCII letters and digits", "y", ""])
        first = server.requests[0]
    # Everything that a person decides by is there before the first token.
    start = told[: told.index("Which letters count?")]
    for line in ("1 untracked file not part of the run: scratch.py", "the run starts from commit", "able (tiny-1b, at"):
        assert line in start, told[-6000:]
    assert "session: models.yaml says so" in start
    assert "Given" in start
    assert "Work: advise" in str(first["messages"][0]["content"])
    # The yes at the terminal opened the scope; the design is a gate of its own, which an empty line leaves waiting.
    assert "state DRAFT -> DESIGN" in told, told[-6000:]
    assert (code, "approve_design" in told) == (3, True), told[-6000:]
    assert git(repo, "status", "--porcelain") == "?? scratch.py"
    assert processes_below(home) == []
