"""The fleet as a whole: a pause is recorded once, holds for every owner, and ends without a restart (PL-50, AP-95)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fleet.events.codec import decode
from fleet.events.payload import Payload
from fleet.events.platform import AccessDenied, FleetPaused, FleetResumed
from fleet.kernel.errors import ApprovalRequired, FleetError, InvalidInput, InvalidTransition, LeaseHeld, PolicyDenied
from fleet.kernel.ids import CommandId, Principal, StreamId
from fleet.log.memory import MemoryEventLog
from fleet.log.port import AppendRequest, Command
from fleet.owner.platform_view import PlatformView
from fleet.planning.platform_state import PLATFORM, fold_platform
from fleet.projects.platform_commands import parse_platform_command
from tests.support.bench import World
from tests.support.town import ANA, ONE, Town, crash, running

ROOT = Principal("user:root")
WHY = {"reason": "something looks wrong"}


def command(name: str, body: dict[str, Any], *, key: str = "key-1", who: Principal = ROOT) -> Command:
    return Command(CommandId(f"{who}/{key}"), PLATFORM, name, who, body)


async def recorded(world: World) -> list[Payload]:
    return [decode(event) for event in await world.log.read(PLATFORM)]


@pytest.mark.rule("PL-50", "AP-2")
async def test_pause_and_resume_are_recorded_once_each_with_who_and_why():
    world = World()
    owner = world.platform_owner()
    first = await owner.handle(command("pause_fleet", WHY))
    assert await owner.handle(command("pause_fleet", WHY)) == first == {"version": 1, "is_paused": True}
    assert await world.platform_owner("council:1/b1").handle(command("pause_fleet", WHY)) == first
    again = await owner.handle(command("resume_fleet", {"note": ""}, key="key-2"))
    assert again == {"version": 2, "is_paused": False}
    paused, resumed = await recorded(world)
    assert paused == FleetPaused(scope="fleet", by=ROOT, reason=WHY["reason"])
    assert resumed == FleetResumed(scope="fleet", by=ROOT, reason="")


@pytest.mark.rule("PL-50", "LC-4")
@pytest.mark.parametrize(
    ("name", "body", "who", "error"),
    [
        ("pause_fleet", WHY, ANA, PolicyDenied),
        ("resume_fleet", {}, ANA, PolicyDenied),
        ("pause_fleet", {"reason": "short"}, ROOT, InvalidInput),
        ("pause_fleet", {}, ROOT, InvalidInput),
        ("pause_fleet", WHY | {"project_id": "st-one1"}, ROOT, InvalidInput),
        ("pause_fleet", WHY | {"project_id": 7}, ROOT, InvalidInput),
        ("resume_fleet", {}, ROOT, InvalidTransition),
        ("resume_fleet", {"project_id": "pr-shop"}, ROOT, InvalidTransition),
        ("explode", {}, ROOT, InvalidInput),
    ],
)
async def test_refused_command_on_the_fleet_records_nothing(
    name: str, body: dict[str, Any], who: Principal, error: type[FleetError]
):
    world = World()
    with pytest.raises(error):
        await world.platform_owner().handle(command(name, body, who=who))
    assert await recorded(world) == []
    # Its lease is free again, for whoever comes next.
    await world.leases.claim(PLATFORM, "council:9/z1", ttl_s=15)


async def test_fleet_is_not_paused_twice_and_a_long_note_is_refused():
    world = World()
    owner = world.platform_owner()
    await owner.handle(command("pause_fleet", WHY))
    with pytest.raises(InvalidTransition, match="the fleet is paused already"):
        await owner.handle(command("pause_fleet", WHY, key="key-2"))
    with pytest.raises(InvalidInput, match="note"):
        await owner.handle(command("resume_fleet", {"note": "too short"}, key="key-3"))
    assert len(await recorded(world)) == 1


async def test_command_waits_while_another_owner_is_at_the_platform():
    world = World()
    await world.leases.claim(PLATFORM, "council:9/z1", ttl_s=3600)
    with pytest.raises(LeaseHeld):
        await world.platform_owner().handle(command("pause_fleet", WHY))


class _Dead(BaseException):
    """The process ended here."""


class _DyingLog(MemoryEventLog):
    """Dies right behind its first append."""

    is_dead = False

    async def append(self, request: AppendRequest) -> Any:
        found = await super().append(request)
        if not self.is_dead:
            self.is_dead = True
            raise _Dead
        return found


@pytest.mark.rule("EV-17", "EV-23")
async def test_owner_killed_behind_its_append_has_recorded_one_pause():
    world = Town(log=_DyingLog())
    with pytest.raises(_Dead):
        await world.platform_owner().handle(command("pause_fleet", WHY))
    again = await world.platform_owner("council:1/b1").handle(command("pause_fleet", WHY))
    assert again == {"version": 1, "is_paused": True}
    assert len(await recorded(world)) == 1


@pytest.mark.rule("PL-50")
async def test_paused_project_holds_its_own_stories_and_stays_paused_when_the_fleet_goes_on():
    world = World()
    owner, view = world.platform_owner(), PlatformView(world.log, world.feed)
    await owner.handle(command("pause_fleet", WHY | {"project_id": "pr-shop"}))
    (await view.state()).require_running("pr-default")
    with pytest.raises(ApprovalRequired, match="project pr-shop is paused by user:root"):
        (await view.state()).require_running("pr-shop")
    await owner.handle(command("pause_fleet", WHY, key="key-2"))
    with pytest.raises(ApprovalRequired, match="the fleet is paused by user:root"):
        (await view.state()).require_running("pr-default")
    await owner.handle(command("resume_fleet", {}, key="key-3"))
    (await view.state()).require_running("pr-default")
    assert await view.pause_of("pr-shop") is not None
    await owner.handle(command("resume_fleet", {"project_id": "pr-shop"}, key="key-4"))
    assert await view.pause_of("pr-shop") is None


@pytest.mark.rule("EV-19")
async def test_view_of_a_log_that_went_back_says_what_the_log_says():
    world, other = World(), World()
    view = PlatformView(world.log, world.feed)
    await world.platform_owner().handle(command("pause_fleet", WHY))
    assert (await view.state()).pause is not None
    await other.platform_owner().handle(command("pause_fleet", WHY | {"project_id": "pr-shop"}))
    vars(world.log).update(vars(other.log))
    assert await view.state() == fold_platform(await other.log.read(PLATFORM))
    vars(world.log).update(vars(MemoryEventLog()))
    assert (await view.state()).version == 0


@pytest.mark.rule("PL-50", "EV-20")
async def test_who_waits_for_the_end_of_a_pause_is_told_by_its_hint():
    town = Town()
    owner, view = town.platform_owner(), PlatformView(town.log, town.feed)
    await view.until_running("pr-default")
    await owner.handle(command("pause_fleet", WHY))
    waiting = asyncio.create_task(view.until_running("pr-default"))
    await town.pass_time(100)
    assert not waiting.done()
    await owner.handle(command("resume_fleet", {}, key="key-2"))
    for _ in range(20):
        await asyncio.sleep(0)
    # Not a moment of the clock later.
    assert waiting.done()


async def _told(town: Town, name: str, body: dict[str, Any], key: str) -> None:
    asked = asyncio.create_task(town.fleet.require(parse_platform_command(name, body), principal=ROOT, key=key))
    await town.until(asked.done)
    asked.result()


@pytest.mark.rule("PL-50")
async def test_story_stands_still_while_the_fleet_is_paused_and_a_new_shard_sees_that_from_the_log():
    town = Town()
    task = asyncio.create_task(town.shard().run())
    await _told(town, "pause_fleet", WHY, "pause")
    await town.create(ONE)
    await town.do(ONE, "start_story", {"repo": "/srv/text"}, key="start")
    before = await town.types(ONE)
    assert before[-1] == "StoryStarted"
    await town.pass_time(60)
    assert await town.types(ONE) == before
    await crash(task)
    second = town.shard("council:1", "b1")
    async with running(second):
        await town.until(lambda: second.status().stories == (ONE,), within_s=60)
        await town.pass_time(60)
        assert await town.types(ONE) == [*before, "OwnershipTaken"]
        await _told(town, "resume_fleet", {"note": "it was a false alarm"}, "resume")
        await town.pass_time(5)
        # There is no such repository, which nobody looked at before.
        assert (await town.types(ONE))[len(before) + 1 :] == ["StoryParked"]


@pytest.mark.rule("PL-50", "LC-93")
async def test_story_of_a_paused_fleet_is_cancelled_all_the_same():
    town = Town()
    async with running(town.shard()):
        await town.create(ONE)
        await town.do(ONE, "start_story", {"repo": "/srv/text"}, key="start")
        await _told(town, "pause_fleet", WHY, "pause")
        result = await town.do(ONE, "cancel", {"reason": "nobody needs it any more"}, key="stop")
        assert result["disposition"] == "cancelled"


@pytest.mark.rule("PL-50", "PL-54")
async def test_no_model_is_asked_for_a_project_while_the_fleet_is_paused():
    town = Town()
    projects = town.project_owner(with_model=True)
    stream = StreamId("project:pr-default")
    goal = {"goal": "A shop with a cart and a search"}
    await projects.handle(Command(CommandId(f"{ANA}/goal"), stream, "discover", ANA, goal))
    await town.platform_owner().handle(command("pause_fleet", WHY))
    await projects.work()
    assert town.agents.asked == []
    await town.platform_owner().handle(command("resume_fleet", {}, key="key-2"))
    with pytest.raises(FleetError, match="nobody was to be asked"):
        await projects.work()
    assert len(town.agents.asked) == 1


@pytest.mark.rule("EV-30", "AP-2")
async def test_bodies_that_a_version_of_before_or_after_has_queued_are_read():
    world = World()
    owner = world.platform_owner()
    await owner.handle(command("pause_fleet", WHY | {"project_id": None, "until": "tomorrow"}))
    await owner.handle(command("resume_fleet", {"note": "  ", "project_id": None}, key="key-2"))
    seat = {"role": "architect", "model_policy": "default", "persona": None, "colour": "red"}
    assert (await owner.handle(command("register_agent", seat, key="key-3")))["agent_id"] == "agent-architect-101"
    asked = {"action": "read", "object": "x" * 300, "rule_id": "CX-16"}
    await owner.handle(command("record_denial", asked, key="key-4", who=ANA))
    *_, denied = await recorded(world)
    assert denied == AccessDenied(principal=ANA, action="read", object="x" * 200, rule_id="CX-16")
    for name in ("pause_fleet", "grant_delegation", "accept_loss"):
        with pytest.raises(InvalidInput) as caught:
            parse_platform_command(name, {})
        assert parse_error_fields(caught.value) >= {"/reason"}


def parse_error_fields(error: InvalidInput) -> set[str]:
    return {problem["pointer"] for problem in error.details["problems"]}
