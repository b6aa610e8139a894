"""Budgets over crashes: a call whose owner died stays spent, and a story without budget stops clean (MB-22..MB-25)."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from fleet.desk.planning import PlanningDesk
from fleet.events.budget import BudgetScope
from fleet.kernel.errors import BudgetExceeded
from fleet.kernel.ids import EntityId, StreamId
from fleet.models.chat import Sampling, TokenUsage
from fleet.models.port import AgentAnswer, AgentRequest
from fleet.models.profiles import Budgets, StepCaps
from fleet.models.routing.budget import BudgetLimits
from fleet.owner.budgets import PLATFORM, Budgeting, day_of
from fleet.owner.duties.gates import take_ownership
from fleet.owner.journal.journal import Journal
from fleet.owner.journal.steps import Work
from fleet.owner.spending.memory import MemoryDaySpending
from fleet.owner.workbench import seat
from fleet.story.commands.catalogue import parse_command
from fleet.story.evolve.story import fold
from fleet.story.state import StoryState
from tests.support import bench
from tests.support.rules import fsm
from tests.support.sim_faults import OneFault
from tests.support.sim_stores import Stores
from tests.support.sim_story import PERSON
from tests.support.sim_world import Scenario, World
from tests.support.simulation import SimLoop, simulated
from tests.support.story_events import STORY, digest, story

DEV = seat("developer")
WORK = Work(seat=DEV, tool="model", op="draft", council_id=EntityId("co-one1"))
KILLS = 20


def request(own: str = "write it") -> AgentRequest:
    sampling = Sampling(temperature="0.2", max_tokens=100, seed=7)
    return AgentRequest(
        kind="draft", role="developer", principal=DEV.principal, shared="shared", own=own, sampling=sampling
    )


class HangingAgents:
    """Agents whose model is never done, until it is told to be. `asked` counts what really reached the model."""

    def __init__(self) -> None:
        self.asked, self.answers = 0, False
        self.reached = asyncio.Event()

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See `Agents.ask`."""
        self.asked += 1
        self.reached.set()
        if not self.answers:
            await asyncio.Event().wait()
        return AgentAnswer(
            value={},
            prompt=digest("prompt"),
            reply=digest("reply"),
            usage=TokenUsage(tokens_in=30, tokens_out=20),
            engine="e",
            model="m",
            revision="1",
            latency_ms=3,
        )


async def owned(world: bench.World, epoch: int) -> Journal:
    """The journal of a next owner, which has said so on record."""
    found = await world.bench(epoch=epoch)
    stream = StreamId.of_story(STORY)
    while (await world.log.head(stream)).epoch < epoch:
        world.log.raise_epoch(stream)
    await take_ownership(found, epoch=epoch, owner=f"council:0/{epoch}")
    return found.journal


async def killed_in_the_middle(journal: Journal, agents: HangingAgents) -> None:
    agents.reached.clear()
    call = asyncio.create_task(journal.ask("step-1", request(), WORK))
    await agents.reached.wait()
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call


def used(journal: Journal) -> int:
    scope = BudgetScope(kind="story", id=STORY)
    return journal.state.budgets.usage(scope).totals().used.tokens


@pytest.mark.rule("MB-23", "MB-24", "CN-120")
async def test_owner_killed_twenty_times_in_the_middle_of_a_call_never_makes_budget() -> None:
    agents, spending = HangingAgents(), MemoryDaySpending()
    world = bench.World(budgeting=Budgeting(spending=spending))
    world.agents = agents  # pyright: ignore[reportAttributeAccessIssue]
    await story(until="base").write_to(world.log)
    day, seen, seen_day = day_of(world.clock.now_ms()), [0], [0]
    before = used(await owned(world, 0))
    for epoch in range(1, KILLS + 1):
        journal = await owned(world, epoch)
        await killed_in_the_middle(journal, agents)
        seen.append(used(journal))
        seen_day.append((await spending.totals([PLATFORM], day))[0].used.tokens)
    bound = seen[1] - before
    assert bound > 100
    assert seen[1:] == [before + bound * n for n in range(1, KILLS + 1)]
    assert seen_day[1:] == [bound * n for n in range(1, KILLS + 1)]
    assert agents.asked == KILLS
    journal = await owned(world, KILLS + 1)
    agents.answers = True
    await journal.ask("step-1", request(), WORK)
    assert used(journal) == before + bound * KILLS + 50
    assert (await spending.totals([PLATFORM], day))[0].used.tokens == bound * KILLS + 50
    assert [e.type for e in await world.events()].count("StepStarted") == len(journal.state.steps)


@pytest.mark.rule("MB-23")
async def test_calls_that_dead_owners_may_have_made_use_up_the_budget_and_stop_the_story() -> None:
    agents = HangingAgents()
    world = bench.World(budgeting=Budgeting(limits=Budgets(story=BudgetLimits(tokens=4000))))
    world.agents = agents  # pyright: ignore[reportAttributeAccessIssue]
    await story(until="created").write_to(world.log)
    for epoch in (1, 2, 3):
        await killed_in_the_middle(await owned(world, epoch), agents)
    journal = await owned(world, 4)
    with pytest.raises(BudgetExceeded, match="fleet budget set st-slug7 --tokens N"):
        await journal.ask("step-1", request(), WORK)
    assert agents.asked == 3
    assert (await world.types())[-1] == "BudgetExhausted"


@pytest.mark.rule("MB-23")
async def test_hold_of_the_day_that_its_owner_could_not_settle_is_settled_by_the_next_one() -> None:
    agents, spending = HangingAgents(), MemoryDaySpending()
    agents.answers = True
    world = bench.World(budgeting=Budgeting())
    world.agents = agents  # pyright: ignore[reportAttributeAccessIssue]
    await story(until="base").write_to(world.log)
    journal = await owned(world, 1)
    journal.budgeting = Budgeting(spending=NeverSettling(spending))  # pyright: ignore[reportArgumentType]
    await journal.ask("step-1", request(), WORK)
    day = day_of(world.clock.now_ms())
    assert (await spending.totals([PLATFORM], day))[0].reserved.tokens > 0
    world.budgeting = Budgeting(spending=spending)
    await owned(world, 2)
    (totals,) = await spending.totals([PLATFORM], day)
    assert (totals.spent.tokens, totals.reserved.tokens) == (50, 0)


class NeverSettling:
    """A view of the day's totals whose owner dies before each settlement."""

    def __init__(self, real: MemoryDaySpending) -> None:
        self.reserve, self.totals, self.open_holds = real.reserve, real.totals, real.open_holds

    async def settle(self, hold: object, actual: object) -> bool:
        """Nothing."""
        return False


async def whole_story(loop: SimLoop, limits: Budgets, *, raised: dict[str, int]) -> StoryState:
    """What a story comes to whose budget is too small for it, and is raised once it is parked."""
    world = World(loop, Scenario("budget", ("branch",), 1, 0, 0.0), Stores(loop), OneFault(loop, -1, None))
    world.budgeting = Budgeting(limits=limits)
    world.start_shard("council:0")
    story_id = world.stories[0]
    person = asyncio.create_task(world.person(1, story_id))
    desk = PlanningDesk(
        log=world.stores.log, inbox=world.stores.inbox, feed=world.stores.feed, clock=world.stores.clock, fsm=fsm()
    )
    is_raised = False
    try:
        for _ in range(2000):
            await asyncio.sleep(0.5)
            state = fold(await world.stores.log.read(StreamId.of_story(story_id)))
            if state is None:
                continue
            if state.closed:
                return state
            if state.park is not None and not is_raised:
                assert state.park.cause == "budget_exhausted", state.park.detail
                body = {"limits": raised, "note": "it is worth it"}
                await desk.command(
                    story_id, parse_command("set_budget", body), principal=PERSON, key="raise-it-1", timeout_s=30
                )
                is_raised = True
        raise AssertionError("the story did not come to its end")
    finally:
        person.cancel()
        await asyncio.gather(person, return_exceptions=True)


@pytest.mark.rule("MB-22", "MB-24", "MB-25", "LC-94")
def test_story_without_budget_parks_with_nothing_lost_and_goes_on_once_it_is_raised() -> None:
    with simulated("budget") as loop:
        limits = Budgets(story=BudgetLimits(tokens=300))
        state = loop.run_until_complete(whole_story(loop, limits, raised={"tokens": 2_000_000}))
    scope = BudgetScope(kind="story", id=state.story_id)
    usage = state.budgets.usage(scope)
    assert usage.exhausted == {"tokens": 300}
    assert usage.reserved.tokens == 0
    assert usage.spent.tokens == state.tokens > 0
    granted = [a for a in state.approvals.values() if a.request.gate == "raise_budget"]
    assert [a.status for a in granted] == ["granted"]


@pytest.mark.rule("CN-57", "MB-25")
def test_council_without_budget_decides_on_what_it_has() -> None:
    with simulated("council budget") as loop:
        world = World(loop, Scenario("budget", ("branch",), 1, 0, 0.0), Stores(loop), OneFault(loop, -1, None))
        world.budgeting = Budgeting(limits=Budgets(council=BudgetLimits(calls=4)))
        state = loop.run_until_complete(until_undecided(world))
    council = next(iter(state.councils.values()))
    assert (council.status, council.reason) == ("UNDECIDED", "budget_exhausted")
    assert len(council.deliberation.versions()) == 3
    scope = BudgetScope(kind="council", id=council.opened.council_id)
    assert state.budgets.usage(scope).spent.calls == 4


async def until_undecided(world: World) -> StoryState:
    """The story once its first council ended without a decision."""
    world.start_shard("council:0")
    person = asyncio.create_task(world.person(1, world.stories[0]))
    try:
        for _ in range(400):
            await asyncio.sleep(0.5)
            state = fold(await world.stores.log.read(StreamId.of_story(world.stories[0])))
            if state is not None and any(c.status == "UNDECIDED" for c in state.councils.values()):
                return state
        raise AssertionError("every council decided")
    finally:
        person.cancel()
        await asyncio.gather(person, return_exceptions=True)


async def parked_story(loop: SimLoop, limits: Budgets) -> StoryState:
    """A story once it is parked."""
    world = World(loop, Scenario("budget", ("branch",), 1, 0, 0.0), Stores(loop), OneFault(loop, -1, None))
    world.budgeting = Budgeting(limits=limits)
    world.start_shard("council:0")
    person = asyncio.create_task(world.person(1, world.stories[0]))
    try:
        for _ in range(2000):
            await asyncio.sleep(0.5)
            state = fold(await world.stores.log.read(StreamId.of_story(world.stories[0])))
            if state is not None and (state.closed or state.park is not None):
                return state
        raise AssertionError("the story is neither over nor parked")
    finally:
        person.cancel()
        await asyncio.gather(person, return_exceptions=True)


@pytest.mark.rule("MB-42")
def test_story_that_has_taken_all_of_its_steps_is_parked_and_reports_no_success() -> None:
    with simulated("steps") as loop:
        state = loop.run_until_complete(parked_story(loop, Budgets(steps=StepCaps(story=12))))
    assert not state.closed
    assert state.park is not None
    assert (state.park.cause, "budgets.steps.story" in state.park.detail) == ("budget_exhausted", True)
    # Members of a council who ask at the same moment look at the same count.
    assert 12 <= len(state.steps) <= 12 + 9
