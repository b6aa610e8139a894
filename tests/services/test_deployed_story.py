"""A whole story of `sdlc`: its work runs in a real sandbox, breaches, is rolled back, mended, and healthy (LC-49)."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import httpx2
import pytest

from fleet.events.codec import decode
from fleet.events.story import StoryTransitioned
from fleet.events.workspace import DeploymentRecorded, HealthObserved, IncidentClosed, IncidentOpened
from fleet.kernel.ids import StoryId
from fleet.story.approvals import pending_approvals
from fleet.story.commands.catalogue import parse_command
from fleet.story.state import StoryState
from tests.support.deployed import free_port, target_of
from tests.support.team import ADA, Team, team
from tests.support.team_models import GOOD, EveryEngine, demo_repository, demo_story, scripted

pytestmark = pytest.mark.timeout(600)

SERVER = '''"""Answers with what the words module can do."""
import http.server
import os

from textkit import words


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        is_well = getattr(words, "IS_TOLD", False) or self.path != "/healthz"
        self.send_response(200 if is_well else 503)
        self.end_headers()
        self.wfile.write(b"words" if is_well else b"nobody told the words module")

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
'''
# Its tests pass with both: only where it runs it shows that the first is not enough.
TOLD = GOOD.replace("import re\n", "import re\n\nIS_TOLD = True\n")


def repository(folder: Path) -> Path:
    """The example repository with a server in it."""
    repo = demo_repository(folder)
    (repo / "server.py").write_text(SERVER)
    plain = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["add", "server.py"], [*who, "commit", "-q", "-m", "A server"]):
        subprocess.run(["git", "-C", str(repo), *command], check=True, env=plain)
    return repo


async def approved_until_it_rests(t: Team, story_id: StoryId, *, within_s: float) -> StoryState:
    """Ada says yes to whatever waits for her."""
    async with asyncio.timeout(within_s):
        while True:
            state = await t.desk.state(story_id)
            if state.closed or state.disposition != "active":
                return state
            for approval in pending_approvals(state):
                request = approval.request
                body = {"gate": request.approval_id, "notes": "I have looked at it."}
                await t.desk.require(
                    story_id, parse_command("approve", body), principal=ADA, key=f"yes-{request.approval_id}"
                )
            await asyncio.sleep(0.2)


@pytest.mark.rule("LC-30", "LC-36", "LC-37", "LC-45", "LC-46", "LC-49", "LC-61", "LC-62", "LC-63", "PL-53")
async def test_planted_failure_is_rolled_back_comes_back_as_a_task_and_ends_healthy(tmp_path: Path) -> None:
    repo, port = repository(tmp_path / "stage"), free_port()
    target = target_of("preview", argv=("python", "server.py"), expose=port)
    models = EveryEngine(scripted(draft=[GOOD, GOOD, GOOD, TOLD, TOLD, TOLD]))
    async with team(tmp_path, models=models, deploys_to=[target]) as t:
        story_id = await t.create(demo_story() | {"lifecycle": "sdlc"})
        assert (await t.desk.state(story_id)).environment == "preview"
        await t.start(story_id, repo, model="mock", delegate=())

        state = await approved_until_it_rests(t, story_id, within_s=400)

        assert state.closed, state.park
        payloads = [decode(event) for event in await t.desk.events(story_id)]
        deployments = [p for p in payloads if isinstance(p, DeploymentRecorded)]
        assert [d.status for d in deployments] == ["succeeded", "rolled_back", "succeeded"]
        assert deployments[0].tree_digest != deployments[2].tree_digest
        assert [p.ok for p in payloads if isinstance(p, HealthObserved)][0] is False
        (opened,) = [p for p in payloads if isinstance(p, IncidentOpened)]
        assert "nobody told the words module" in opened.summary
        assert "nobody told the words module" in state.tasks[str(opened.task_id)].task.description
        assert state.tasks[str(opened.task_id)].state == "done"
        assert len([p for p in payloads if isinstance(p, IncidentClosed)]) == 1
        path = [p.to for p in payloads if isinstance(p, StoryTransitioned)]
        again = ["DEPLOY", "MONITOR", "BUILD", "TEST", "REVIEW", "DEPLOY", "MONITOR", "DONE"]
        assert path[-len(again) :] == again
        # It is what runs now, and people reach it.
        async with httpx2.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"http://127.0.0.1:{port}/healthz")).text == "words"
        show = ["git", "-C", str(repo), "show", f"fleet/{story_id}:docs/stories/{story_id}/runbook.md"]
        runbook = subprocess.run(show, check=True, capture_output=True, text=True).stdout
        assert "| alive | http | `/healthz` |" in runbook
        assert "(closed)" in runbook
        assert ADA in {a.grant.principal for a in state.approvals.values() if a.grant}
