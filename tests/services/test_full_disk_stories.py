"""Whole stories over a full disk: that of the blobs, of the runs, of the log. Each goes on once there is room."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.local.valkey import StoreKind, Valkey
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import StoreError
from fleet.kernel.ids import StoryId
from fleet.log.redis.connection import connect_redis
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.folders.workspace import FREE_FLOOR_BYTES, free_bytes
from fleet.sandbox.memory import MemoryRunLedger, MemoryRunLogs
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.story.commands.catalogue import parse_command
from fleet.story.state import StoryState
from fleet.trees.port import BlobStore
from tests.services.test_session_story import engine_at
from tests.support.chaos_servers import ended, small_disk
from tests.support.demo_run import git_says as git
from tests.support.openai_server import Scripted, served_in_thread
from tests.support.sandbox import filled, passable_disk
from tests.support.team import ADA, Team, team
from tests.support.team_models import EveryEngine, demo_repository, demo_story, scripted
from tests.support.team_server import engineers_answer

pytestmark = pytest.mark.timeout(600)

ENOSPC = "No space left on device"


async def started(t: Team, repo: Path, *, model: str = "mock") -> StoryId:
    story = demo_story()
    story["constraints"].pop("paths")
    story_id = await t.create(story)
    await t.start(story_id, repo, model=model)
    return story_id


async def resumed(t: Team, story_id: StoryId) -> StoryState:
    unpark = parse_command("unpark", {"note": "there is room again"})
    await t.desk.require(story_id, unpark, principal=ADA, key=f"{story_id}/unpark")
    return await t.settled(story_id, within_s=400)


async def parked(t: Team, story_id: StoryId, *, within_s: float) -> tuple[str | None, str]:
    """Code and text with which the story was parked."""
    state = await t.settled(story_id, within_s=within_s)
    assert state.park is not None
    body = json.loads([e for e in await t.desk.events(story_id) if e.type == "StoryParked"][-1].body)
    assert body["detail"] == state.park.detail
    return body["code"], state.park.detail


@pytest.mark.rule("LC-94", "EV-14")
async def test_story_whose_blobs_have_no_room_is_parked_with_what_to_do_and_goes_on_from_there(tmp_path: Path) -> None:
    root = tmp_path / "team"
    with small_disk(root / "blobs", size_mb=64) as disk:
        repo = demo_repository(tmp_path / "stage")
        async with team(root, models=EveryEngine(scripted())) as t:
            with filled(disk, leaving=0):
                story_id = await started(t, repo)
                code, detail = await parked(t, story_id, within_s=120)
                # The fault is real: the disk has nothing left, and the message is the system's.
                assert free_bytes(disk) == 0
                assert (code, ENOSPC in detail, "free disk space" in detail) == ("store_full", True, True), detail
            state = await resumed(t, story_id)
    assert state.closed, state.park
    assert f"fleet/{story_id}" in git(repo, "for-each-ref", "--format=%(refname:short)", "refs/heads")


@pytest.mark.rule("LC-94", "EV-14", "CN-22")
async def test_engineer_whose_blobs_run_out_of_room_at_work_loses_no_turn(tmp_path: Path) -> None:
    root = tmp_path / "team"
    with small_disk(root / "blobs", size_mb=64) as disk, served_in_thread() as server:
        repo, is_full, may_fill = demo_repository(tmp_path / "stage"), threading.Event(), threading.Event()
        may_fill.set()
        filler = filled(disk, leaving=0)

        def answer(request: dict[str, Any]) -> Scripted:
            messages = request["messages"]
            if str(messages[0]["content"]).startswith("Work: engineer"):
                turn = sum(message["role"] == "assistant" for message in messages)
                if turn == 4 and may_fill.is_set():
                    may_fill.clear()
                    filler.__enter__()
                    is_full.set()
            return engineers_answer(request)

        server.answer = answer
        async with team(root, configured=engine_at(server.base_url)) as t:
            story_id = await started(t, repo, model="able")
            code, detail = await parked(t, story_id, within_s=300)
            assert is_full.is_set()
            assert free_bytes(disk) == 0
            assert (code, ENOSPC in detail, "free disk space" in detail) == ("store_full", True, True), detail
            state = await t.desk.state(story_id)
            before = {name: step.finished for name, step in state.steps.items() if step.finished is not None}
            asked = len(server.requests)
            filler.__exit__(None, None, None)
            state = await resumed(t, story_id)
    assert state.closed, state.park
    # What was on record stayed as it was, and nobody was asked for it again.
    assert {name: state.steps[name].finished for name in before} == before
    assert len(server.requests) > asked
    assert "A\ttests/test_slugs.py" in git(repo, "diff", "--name-status", "main", f"fleet/{story_id}").splitlines()


def on_disk(disk: Path) -> Callable[[Path, BlobStore], Any]:
    """A sandbox whose runs have their folders there."""

    async def make(state_root: Path, blobs: BlobStore) -> ToolSupervisor:
        backend = BubblewrapBackend(disk / "state", blobs, shared_root=state_root)
        return ToolSupervisor(
            backend, MemoryRunLedger(), blobs, SystemClock(), "sandbox:local", logs=MemoryRunLogs(), folders=backend
        )

    return make


@pytest.mark.rule("LC-94", "RC-30")
async def test_story_whose_runs_have_no_room_is_parked_with_what_to_do_and_goes_on_from_there(tmp_path: Path) -> None:
    with passable_disk(512) as disk:
        repo = demo_repository(tmp_path / "stage")
        async with team(tmp_path, models=EveryEngine(scripted()), make_sandbox=on_disk(disk)) as t:
            with filled(disk, leaving=FREE_FLOOR_BYTES // 2):
                story_id = await started(t, repo)
                code, detail = await parked(t, story_id, within_s=200)
                assert free_bytes(disk) < FREE_FLOOR_BYTES
                assert code == "sandbox_unavailable"
                assert f"the disk of {disk}/state" in detail
                assert "MiB are left" in detail
                assert "make room on it" in detail
            state = await resumed(t, story_id)
    assert state.closed, state.park


@pytest.mark.rule("EV-14", "EV-18", "LC-94")
async def test_story_whose_log_has_no_room_waits_and_goes_on_by_itself_with_every_event_once(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_mb=24) as disk:
        server = Valkey(StoreKind.LOG, disk / "log")
        await server.start()
        client = connect_redis(server.url)
        repo = demo_repository(tmp_path / "stage")
        try:
            async with team(tmp_path / "team", models=EveryEngine(scripted()), redis=client) as t:
                story_id = await t.create(demo_story())
                with filled(disk, leaving=20_000):
                    # Either the command itself or what the story does then finds the disk full.
                    told = asyncio.create_task(t.start(story_id, repo, model="mock"))
                    await ended(server, within_s=60)
                    assert free_bytes(disk) < 20_000
                    with pytest.raises(StoreError) as error:
                        await t.desk.state(story_id)
                    assert error.value.code in ("store_unavailable", "store_full")
                    assert "disk has room" in error.value.message
                await asyncio.gather(told, return_exceptions=True)
                await server.stop()
                await server.start()
                # The same command again is answered from its record, or carried out now.
                await t.start(story_id, repo, model="mock")
                state = await t.settled(story_id, within_s=300)
                events = await t.desk.events(story_id)
        finally:
            await client.aclose()
            await server.stop()
    assert state.closed, state.park
    assert [event.version for event in events] == list(range(1, len(events) + 1))
    done = [name for name, step in state.steps.items() if step.finished is not None]
    assert len(done) == len(set(done)) > 10
