"""Stories that the first edition left in its log go on in a team of today: its stored formats are read, all of them."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from cluster.local.valkey import StoreKind, Valkey
from fleet.audit.files.ed25519 import Ed25519Verifier, read_public_key
from fleet.audit.files.witness import CheckpointFolder
from fleet.audit.redis import RedisCheckpointStore, RedisRawLog
from fleet.audit.service.auditor import Auditor
from fleet.config.files import ConfigFiles, packaged_directory
from fleet.kernel.ids import StoryId
from fleet.log.redis.connection import connect_redis
from fleet.story.commands.catalogue import parse_command
from fleet.story.lifecycle import FsmConfig
from fleet.story.snapshot import replay
from fleet.story.state import StoryState
from tests.support.first_edition import TOLD, unpack
from tests.support.team import ADA, Team, team
from tests.support.team_models import EveryEngine, scripted

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Old:
    """The old home with a team at work on its stories."""

    team: Team
    folder: Path
    client: Redis

    async def state(self, name: str) -> StoryState:
        return await self.team.desk.state(_id(name))

    async def grant_until(self, name: str, wanted: Callable[[StoryState], bool]) -> None:
        """Every gate of the story gets a yes until it is as wanted."""
        async with asyncio.timeout(500):
            while not wanted(state := await self.state(name)):
                assert state.disposition == "active", self.team.desk.waiting_for(state)
                for approval_id, approval in state.approvals.items():
                    if approval.status == "requested":
                        body, key = {"gate": approval_id, "notes": "as agreed"}, f"{approval_id}/approve"
                        await self.team.desk.require(_id(name), parse_command("approve", body), principal=ADA, key=key)
                await asyncio.sleep(0.1)


def _id(name: str) -> StoryId:
    return StoryId(TOLD[name]["story_id"])


@pytest.fixture
async def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Old]:
    """The home of the first edition, its log served and owned as it lies there."""
    home = unpack(tmp_path)
    # The stories name their repository from the folder that their fleet came up in.
    monkeypatch.chdir(tmp_path)
    store = Valkey(StoreKind.LOG, home / "log")
    await store.start()
    client = connect_redis(store.url)
    try:
        async with team(home, models=EveryEngine(scripted()), redis=client) as running:
            yield Old(running, tmp_path, client)
    finally:
        await client.aclose()
        await store.stop()


async def test_every_story_of_the_first_edition_replays_to_what_that_edition_said(old: Old) -> None:
    fsm = ConfigFiles(packaged_directory()).load("fsm.yaml", FsmConfig)
    for name, told in TOLD.items():
        events = await old.team.desk.events(_id(name), limit=told["version"])
        found = list(replay(events, fsm))[-1]
        assert (found.version, found.hash, found.state) == (told["version"], told["hash"], told["state"]), name
        assert (str(found.state_digest), str(found.plan_digest)) == (told["state_digest"], told["plan_digest"]), name


async def test_log_of_the_first_edition_is_what_its_notary_signed(old: Old) -> None:
    audit, client = old.folder / "home" / "audit", old.client
    export, key = CheckpointFolder(audit / "exported"), read_public_key(audit / "notary.pub")
    raw, store, blobs = RedisRawLog(client), RedisCheckpointStore(client), old.team.blobs
    found = await Auditor(raw, store, export, blobs=blobs, key=key, verifier=Ed25519Verifier()).verify()
    assert found.findings == ()
    assert (found.streams, found.exported) == (len(TOLD), 6)


async def test_story_finished_in_the_first_edition_has_its_report(old: Old) -> None:
    state = await old.state("finished")
    _, _, text = await old.team.reports.generate(state.story_id, format="md")
    assert (state.closed, state.state) == (True, "DONE")
    assert text.decode().startswith("# ")


async def test_story_parked_in_the_first_edition_goes_on_with_a_larger_budget(old: Old) -> None:
    assert (await old.state("parked")).disposition == "parked"
    body = {"scope": "story", "id": _id("parked"), "limits": {"tokens": 500_000}, "note": "enough"}
    await old.team.desk.require(_id("parked"), parse_command("set_budget", body), principal=ADA, key="larger-budget")
    await old.grant_until("parked", lambda state: state.state == "BUILD")


@pytest.mark.rule("PL-48")
async def test_story_running_in_the_first_edition_goes_on_to_its_end(old: Old) -> None:
    await old.grant_until("running", lambda state: state.closed)
    story_id, told = _id("running"), TOLD["running"]
    branch = ["git", "-C", str(old.folder / "repo"), "rev-parse", "--verify", f"refs/heads/fleet/{story_id}"]
    assert subprocess.run(branch, capture_output=True, check=False).returncode == 0
    events = await old.team.desk.events(story_id)
    finished = [json.loads(event.body)["step_id"] for event in events if event.type == "StepFinished"]
    assert set(told["open"]) <= set(finished)
    assert len(finished) == len(set(finished)), "a step has two results"
