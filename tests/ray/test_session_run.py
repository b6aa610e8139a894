"""Developers in sessions as a user runs them: the command line, a fleet of its own, a model server, real everything."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.config.files import ConfigFiles, packaged_directory
from tests.ray.test_fleet_run import environment, example_repository, git
from tests.support.mcp import WORDS, pins_of
from tests.support.openai_server import Scripted, served_in_thread
from tests.support.processes import processes_below
from tests.support.team_models import demo_story
from tests.support.team_server import ENGINEER, call_of_engineer, engineers_answer, working_engine

pytestmark = pytest.mark.timeout(600)

TOLD = (
    "developer-001, turn 1 of 60: read textkit/words.py; read textkit/__init__.py; "
    "mcp__list_tools words; mcp__read word",
    "developer-001, turn 2 of 60: write textkit/slugs.py; run printf",
    ">> textki...: exit 3; write tests/test_slugs.py",
    "developer-001, turn 4 of 60: tests: exit 0",
)
"""Of each turn: who, which, its calls and what came of them."""


def listing(command: list[str]) -> dict[str, Any]:
    """The packaged policy, with an MCP server that is this program, one of whose tools only reads."""
    document = dict(ConfigFiles(packaged_directory()).document("policy.yaml"))
    declared = {"command": command, "tools": asyncio.run(pins_of(command)), "reads": ["word"]}
    document["targets"] = {**document["targets"], "mcp_servers": ["words"], "mcp": {"words": declared}}
    return document


def asking_outside(request: dict[str, Any]) -> Scripted:
    """As `engineers_answer`, of developers who also ask an MCP server before they begin."""
    messages = request["messages"]
    reply = engineers_answer(request)
    if not str(messages[0]["content"]).startswith("Work: engineer") or reply.text != ENGINEER[0]:
        return reply
    words = call_of_engineer("mcp__read", server="words", tool="word", args='{"key": "slug"}')
    return Scripted(reply.text + call_of_engineer("mcp__list_tools", server="words") + words)


@pytest.mark.wide
@pytest.mark.rule("CN-22", "MB-43", "PL-43", "RT-37")
def test_run_tells_turns_and_commands_and_ends_with_what_the_engineers_made(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    home, repo = tmp_path_factory.mktemp("h"), example_repository(tmp_path)
    own, story = tmp_path / "config", demo_story()
    own.mkdir()
    story["constraints"].pop("paths")
    (tmp_path / "story.yaml").write_text(yaml.safe_dump(story))
    with served_in_thread() as server:
        server.answer = asking_outside
        document = dict(ConfigFiles(packaged_directory()).document("models.yaml"))
        document["engines"] = [*document["engines"], working_engine(server.base_url)]
        (own / "models.yaml").write_text(yaml.safe_dump(document))
        (own / "words.py").write_text(WORDS)
        (own / "policy.yaml").write_text(yaml.safe_dump(listing([sys.executable, str(own / "words.py")])))
        asked = ["run", str(tmp_path / "story.yaml"), "--repo", str(repo), "--model", "able", "--yes", "po,qa"]
        done = subprocess.run(
            [sys.executable, "-m", "fleet.cli", *asked],
            env={**environment(home), "FLEET_CONFIG": str(own)},
            capture_output=True,
            text=True,
            check=False,
        )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told[-4000:]
    for line in TOLD:
        assert line in told, told[-6000:]
    asked = [str(message["content"]) for seen in server.requests for message in seen["messages"]]
    assert any("slug: a title as a part of an address" in text for text in asked), "what the MCP server said"
    branch = next(
        name for name in git(repo, "branch", "--format=%(refname:short)").split() if name.startswith("fleet/")
    )
    changed = git(repo, "diff", "--name-status", "main", branch, "--", "textkit", "tests").splitlines()
    assert {"M\ttextkit/__init__.py", "A\ttextkit/slugs.py", "A\ttests/test_slugs.py"} <= set(changed)
    assert processes_below(home) == []
