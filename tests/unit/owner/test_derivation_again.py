"""Tasks are derived once more because a person wants that (PL-23, PL-24, AP-61)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fleet.events.codec import decode
from fleet.events.plan import TaskDerivationFailed, TaskDerivationRequested
from fleet.events.story import StoryCancelled, StoryParked, StoryPaused, StoryResumed, StoryUnparked
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import AlreadyClaimed, FleetError, InvalidTransition, PolicyDenied
from fleet.kernel.ids import CommandId, EntityId, Principal, StreamId
from fleet.log.port import Command
from fleet.models.port import AgentRequest
from fleet.owner.duties.derivation import derive_again, derive_plan
from fleet.owner.workbench import Workbench
from fleet.story.commands.plan_versions import next_plan_id, plan_by_hand
from fleet.story.intents import DeriveAgain, DerivePlan
from fleet.story.plan import plan
from tests.support.bench import ScriptedAgents, World
from tests.support.rules import fsm
from tests.support.story_events import AC_1, AC_2, DECISION, PLAN, STAGES, STORY, SYSTEM, T0, StoryLog, story

NOW = T0 + 600_000
TASK: dict[str, Any] = {
    "title": "Write slugs",
    "description": "Fold umlauts, lower the case, join words with hyphens.",
    "role": "developer",
    "kind": "code",
    "estimated_hours": 3,
    "priority": 1,
    "keywords": ["slug", "text"],
    "depends_on": [],
    "acceptance_refs": [AC_1, AC_2],
    "paths": [],
}
GOOD, BAD = {"tasks": [TASK]}, {"tasks": [TASK | {"acceptance_refs": [AC_1]}]}


class Desk:
    """One story's owner, a planner that answers from a list, and commands of people."""

    def __init__(self, world: World, bench: Workbench) -> None:
        self.world, self.bench, self._keys = world, bench, 0

    async def ask(self, *, who: str = "user:root", key: str = "") -> EntityId:
        """The id of the plan that was asked for."""
        self._keys += 1
        key = key or f"key-{self._keys}"
        command = Command(CommandId(f"{who}/{key}"), StreamId.of_story(STORY), "derive_tasks", Principal(who), {})
        await self.world.commands.handle(self.bench, command)
        return plan_by_hand(STORY, Principal(who), key)

    async def refused(self, kind: type[FleetError], *, who: str = "user:root") -> FleetError:
        before = self.bench.state.version
        with pytest.raises(kind) as found:
            await self.ask(who=who)
        assert self.bench.state.version == before
        return found.value

    async def owed(self) -> DeriveAgain:
        """The one thing that the story owes."""
        (intent,) = plan(self.bench.state, fsm(), now_ms=NOW)
        assert isinstance(intent, DeriveAgain)
        return intent

    @property
    def plans(self) -> dict[str, str]:
        return {name: found.status for name, found in self.bench.state.plans.items()}


def until(stage: str) -> StoryLog:
    return story(only=STAGES[: STAGES.index(stage) + 1])  # pyright: ignore[reportArgumentType]


async def desk_of(log: StoryLog, *answers: dict[str, Any]) -> Desk:
    left = list(answers)

    def answer(request: AgentRequest) -> dict[str, Any]:
        assert request.kind == "derive"
        return left.pop(0)

    world = World(clock=MemoryClock(NOW), agents=ScriptedAgents(answer))
    await log.write_to(world.log)
    return Desk(world, await world.bench())


@pytest.mark.rule("PL-24", "PL-10")
async def test_story_that_follows_a_plan_for_its_text_gets_another_one_proposed():
    at = await desk_of(until("build"), GOOD)
    plan_id = await at.ask()
    asked = decode((await at.world.events())[-1])
    assert isinstance(asked, TaskDerivationRequested)
    assert (asked.plan_id, asked.content_digest) == (plan_id, at.bench.state.content.digest)
    await derive_again(at.bench, await at.owed())
    assert at.plans == {PLAN: "ADOPTED", plan_id: "PROPOSED"}
    assert at.bench.state.plans[plan_id].proposal.version == 2
    assert not any(isinstance(i, DeriveAgain) for i in plan(at.bench.state, fsm(), now_ms=NOW))


@pytest.mark.rule("PL-23", "PL-24")
async def test_story_whose_derivation_failed_is_given_another_try_that_is_adopted():
    at = await desk_of(until("design"), BAD, BAD, BAD, GOOD)
    await derive_plan(at.bench, DerivePlan(decision_id=DECISION))
    assert at.bench.state.park is not None
    assert at.bench.state.park.cause == "derivation_failed"
    plan_id = await at.ask()
    await at.bench.journal.record(
        "go-on", StoryUnparked(by=Principal("user:ana"), note="try again", cause="derivation_failed")
    )
    await derive_again(at.bench, await at.owed())
    assert at.plans == {plan_id: "ADOPTED"}
    assert len(at.bench.state.tasks) == 1


@pytest.mark.rule("PL-23")
@pytest.mark.parametrize(("stage", "parks"), [("build", False), ("design", True)])
async def test_further_derivation_that_fails_parks_only_a_story_that_lacks_a_plan(stage: str, parks: bool):
    log = until(stage)
    if parks:
        log.add(StoryPaused(scope="story", by=Principal("user:ana"), reason="I look first"))
    at = await desk_of(log, BAD, BAD, BAD)
    plan_id = await at.ask()
    if parks:
        await at.bench.journal.record("go-on", StoryResumed(scope="story", by=Principal("user:ana")))
    await derive_again(at.bench, await at.owed())
    failed = [p for p in map(decode, await at.world.events()) if isinstance(p, TaskDerivationFailed)]
    assert [(f.plan_id, {p.code for p in f.problems}) for f in failed] == [(plan_id, {"ac_uncovered"})]
    assert (at.bench.state.disposition == "parked") == parks
    assert at.bench.state.derivation is None


@pytest.mark.rule("PL-24")
async def test_second_request_is_told_of_the_first():
    at = await desk_of(until("build"))
    plan_id = await at.ask()
    assert (await at.refused(AlreadyClaimed, who="user:ana")).details["holder"] == plan_id
    by_itself = await desk_of(until("design"))
    assert (await by_itself.refused(AlreadyClaimed)).details["holder"] == next_plan_id(by_itself.bench.state)


@pytest.mark.rule("PL-24", "PL-5")
async def test_request_ends_with_the_text_that_it_was_for():
    at = await desk_of(until("build"))
    await at.ask()
    changes = {"title": "As an editor I want other slugs"}
    command = Command(
        CommandId("user:ana/edit-it-now"),
        StreamId.of_story(STORY),
        "edit_story",
        Principal("user:ana"),
        {"changes": changes},
    )
    await at.world.commands.handle(at.bench, command)
    assert at.bench.state.derivation is None


@pytest.mark.rule("PL-24")
async def test_what_the_owner_asks_of_itself_is_no_request():
    asked = TaskDerivationRequested(
        plan_id=EntityId("pv-own1"), content_digest=until("design").state.content.digest, attempt=1
    )
    assert until("design").add(asked, actor=SYSTEM).state.derivation is None


@pytest.mark.rule("AP-61", "LC-11", "LC-93")
async def test_derivation_is_refused_to_others_and_where_nothing_can_be_derived():
    for who in ("user:dev", "user:quinn", "user:nobody"):
        await (await desk_of(until("build"))).refused(PolicyDenied, who=who)
    assert "not decided" in (await (await desk_of(until("base"))).refused(InvalidTransition)).message
    assert "build is over" in (await (await desk_of(until("merged"))).refused(InvalidTransition)).message
    for over in (StoryCancelled(reason="nobody wants it"), StoryParked(cause="operator", detail="wait")):
        await (await desk_of(until("build").add(over))).refused(InvalidTransition)


@pytest.mark.rule("LC-8", "PL-24")
async def test_plan_that_a_person_adopts_before_the_planner_answers_stays_adopted():
    log = until("design").add(StoryPaused(scope="story", by=Principal("user:ana"), reason="I look first"))
    at = await desk_of(log, GOOD)
    plan_id = await at.ask()
    await at.bench.journal.record("go-on", StoryResumed(scope="story", by=Principal("user:ana")))
    intent = await at.owed()
    written = {"rationale": "one task is enough", "tasks": [TASK | {"title": "All of it"}]}
    for number, (name, body) in enumerate((("write_plan", written), ("adopt_plan", {"decision_id": DECISION}))):
        mine = plan_by_hand(STORY, Principal("user:root"), "mine-0")
        command = Command(
            CommandId(f"user:root/mine-{number}"),
            StreamId.of_story(STORY),
            name,
            Principal("user:root"),
            body if name == "write_plan" else body | {"plan_id": mine},
        )
        await at.world.commands.handle(at.bench, command)
    await asyncio.wait_for(derive_again(at.bench, intent), timeout=20)
    assert list(at.plans.values()) == ["ADOPTED", "PROPOSED"]
    assert at.bench.state.plan_id != plan_id


@pytest.mark.rule("AP-61")
async def test_derivation_for_a_story_that_was_never_started_is_refused_with_what_to_do():
    stages = STAGES[: STAGES.index("design") + 1]
    log = story(only=tuple(stage for stage in stages if stage != "started"))  # pyright: ignore[reportArgumentType]
    assert log.state.start is None
    told = (await (await desk_of(log)).refused(InvalidTransition)).message
    assert f"fleet story start {STORY} --repo" in told
