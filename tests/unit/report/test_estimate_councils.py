"""Councils on request that estimate: asked in rounds, journaled, recorded with their task (CN-70, PL-80..PL-84)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from fleet.desk.stories import StoryDesk
from fleet.events.codec import decode
from fleet.events.council import BallotRefused, CouncilDecided, CouncilUndecided, EstimateCast, RoundOpened
from fleet.events.task import TaskEstimated, TaskTransitioned
from fleet.kernel.errors import InvalidInput, ModelTimeout, ReplyMalformed
from fleet.kernel.ids import EntityId
from fleet.models.port import AgentAnswer, AgentRequest
from fleet.owner.workbench import Workbench
from fleet.report.build import build_report
from fleet.report.councils import council_summaries
from fleet.report.timeline import describe
from fleet.story.intents import AdvanceCouncil
from fleet.story.plan import plan
from fleet.story.state import CouncilRecord
from tests.support.bench import ScriptedAgents, World
from tests.support.mock_members import MockCall, MockFailure, MockFixture, mock_reply
from tests.support.rules import fsm
from tests.support.story_events import STORY, TASK
from tests.unit.owner.test_requested_councils import ROOT, ask, do, hold, member, payloads, world_of

ESTIMATE: dict[str, Any] = {
    "kind": "estimate",
    "role": "developer",
    "task_id": TASK,
    "task_description": "How much work is the slug of a title?",
}
Rows = Sequence[Sequence[Any]]


def said(rows: Rows) -> Callable[[AgentRequest], Any]:
    """Members that give the value of their variant in each round; a value that is no number is the whole answer."""

    def answer(request: AgentRequest) -> Any:
        number = 1 + ("Their median is" in request.own)
        value = rows[min(number, len(rows)) - 1][request.variant]
        if not isinstance(value, int):
            return value
        return {"value": value, "reason": f"a reason for {value}"}

    return answer


async def estimated(rows: Rows, **changes: Any) -> tuple[World, Workbench, CouncilRecord]:
    """A council of three that is over."""
    world, bench = await world_of(said(rows))
    record = await hold(bench, await ask(world, bench, **ESTIMATE | changes))
    return world, bench, record


@pytest.mark.rule("CN-1", "CN-20", "CN-70", "PL-80", "PL-81", "AP-77")
async def test_estimate_of_a_task_is_on_record_with_its_rounds_and_moves_nothing():
    world, bench = await world_of(said([(1, 5, 21), (5, 5, 8)]))
    before = plan(bench.state, fsm(), now_ms=bench.now_ms)
    council_id = await ask(world, bench, **ESTIMATE)
    assert plan(bench.state, fsm(), now_ms=bench.now_ms) == (AdvanceCouncil(council_id),)
    record = await hold(bench, council_id)
    assert (record.status, record.opened.quorum, record.opened.rounds) == ("DECIDED", 2, 3)
    assert plan(bench.state, fsm(), now_ms=bench.now_ms) == before
    (decided,) = await payloads(world, CouncilDecided)
    assert (decided.estimate, decided.winner, decided.verdict, decided.decision_id) == (5, None, None, None)
    assert decided.tally["rounds"] == [
        {"round": 1, "values": [1, 5, 21], "median": 5, "iqr": 20, "absent": 0},
        {"round": 2, "values": [5, 5, 8], "median": 5, "iqr": 3, "absent": 0},
    ]
    assert decided.tokens == {"estimates": 15 * len(world.agents.requests)}
    assert len(world.agents.requests) == 6
    (task,) = await payloads(world, TaskEstimated)
    assert (task.points, task.median, task.iqr, task.rounds, task.converged) == (5, 5, "3", 2, True)
    assert (task.values, task.method, task.council_id) == ((5, 5, 8), "delphi", council_id)
    phases = [(p.round, p.phase) for p in await payloads(world, RoundOpened)]
    assert phases == [(1, "balloting"), (2, "balloting")]


@pytest.mark.rule("CN-70", "CN-125", "PL-80")
async def test_members_see_the_median_and_reasons_alone_and_only_after_the_round():
    world, _, _ = await estimated([(1, 5, 21), (5, 5, 8)])
    first, second = world.agents.requests[:3], world.agents.requests[3:]
    assert all("median" not in r.own and "a reason" not in r.own for r in first)
    assert len({r.own for r in second}) == 1
    shown = second[0].own
    assert "Their median is 5 points" in shown
    assert shown.index("a reason for 1") < shown.index("a reason for 21") < shown.index("a reason for 5")
    for request in world.agents.requests:
        assert "developer-0" not in request.shared + request.own
        assert "agent:" not in request.shared + request.own
        assert ESTIMATE["task_description"] in request.shared


@pytest.mark.rule("PL-82")
async def test_values_that_never_meet_are_stored_unconverged_and_listed_for_the_po():
    world, bench, record = await estimated([(1, 8, 21)])
    assert record.status == "DECIDED"
    (task,) = await payloads(world, TaskEstimated)
    assert (task.points, task.converged, task.rounds) == (8, False, 3)
    events = [(event, decode(event)) for event in await world.events()]
    report = build_report(bench.state, events)
    assert f"Look at the estimate of task {TASK}: 8 points, of values 1 8 21" in report.next_steps
    (row,) = [t for t in report.tasks if t.task_id == TASK]
    assert (row.points, row.estimate is not None and row.estimate.converged) == (8, False)


@pytest.mark.rule("PL-81", "CN-13")
async def test_estimate_of_a_whole_story_is_the_councils_alone():
    world, _, record = await estimated([(3, 3, 5)], task_id=None)
    assert record.status == "DECIDED"
    assert [p.estimate for p in await payloads(world, CouncilDecided)] == [3]
    assert not await payloads(world, TaskEstimated)


@pytest.mark.rule("PL-83", "CN-49", "CN-113", "CN-56")
async def test_without_a_quorum_of_values_there_is_no_estimate_and_nothing_is_escalated():
    world, bench, record = await estimated([(3, ReplyMalformed("no"), ReplyMalformed("no"))])
    assert (record.status, record.reason) == ("UNDECIDED", "no_quorum")
    (undecided,) = await payloads(world, CouncilUndecided)
    assert undecided.approval_id is None
    assert "council_escalation" not in [a.request.gate for a in bench.state.approvals.values()]
    assert not await payloads(world, TaskEstimated)


@pytest.mark.rule("PL-83", "CN-47")
@pytest.mark.parametrize("wrong", [{"value": 4, "reason": "between"}, {"value": 3, "reason": " "}, {"value": "5"}, {}])
async def test_answer_that_cannot_be_used_gets_one_repair_request_and_then_counts_as_absent(wrong: dict[str, Any]):
    world, _, record = await estimated([(wrong, 3, 5)])
    assert record.status == "DECIDED"
    asked = [r.own for r in world.agents.requests if r.variant == 0]
    assert len(asked) == 2
    assert "cannot be used" in asked[1]
    (refused,) = await payloads(world, BallotRefused)
    assert (refused.code, refused.round, refused.attempt) == ("invalid", 1, 1)
    (task,) = await payloads(world, TaskEstimated)
    assert task.values == (3, 5)


@pytest.mark.rule("PL-83")
async def test_repaired_answer_counts():
    def mended(request: AgentRequest) -> Any:
        is_first = request.variant == 0 and "cannot be used" not in request.own
        return {"value": 4 if is_first else 3, "reason": "a small one"}

    world, bench = await world_of(mended)
    await hold(bench, await ask(world, bench, **ESTIMATE))
    (task,) = await payloads(world, TaskEstimated)
    assert task.values == (3, 3, 3)


class Silent(ScriptedAgents):
    """Agents of which these seats never answer, from the round on that `since` names."""

    seats: tuple[str, ...] = ("agent:developer-003",)
    since = 1

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See `Agents.ask`."""
        is_on = self.since == 1 or "Their median is" in request.own
        if is_on and str(request.principal) in self.seats:
            self.asked.append(request_id)
            await asyncio.Event().wait()
        return await ScriptedAgents.ask(self, request, request_id=request_id, timeout_s=timeout_s)


@pytest.mark.rule("CN-57", "CN-123", "PL-83")
@pytest.mark.parametrize(
    ("silent", "status", "values"), [(1, "DECIDED", (3, 5)), (2, "UNDECIDED", None)], ids=["one", "most"]
)
async def test_member_that_never_answers_is_left_out_at_the_deadline(silent: int, status: str, values: Any):
    agents = Silent(said([(3, 5, 3)]))
    agents.seats = ("agent:developer-003", "agent:developer-001")[:silent]
    world, bench = await world_of(agents=agents)
    budget = {"tokens": 20_000, "wall_s": 1}
    async with asyncio.timeout(10):
        record = await hold(bench, await ask(world, bench, **ESTIMATE, budget=budget))
    assert record.status == status
    assert [t.values for t in await payloads(world, TaskEstimated)] == ([values] if values else [])
    assert record.reason == (None if values else "deadline")


@pytest.mark.rule("CN-57")
async def test_deadline_in_a_later_round_keeps_what_the_round_before_said():
    agents = Silent(said([(1, 8, 21)]))
    agents.seats, agents.since = tuple(f"agent:developer-00{n}" for n in (1, 2, 3)), 2
    world, bench = await world_of(agents=agents)
    async with asyncio.timeout(10):
        record = await hold(bench, await ask(world, bench, **ESTIMATE, budget={"tokens": 20_000, "wall_s": 1}))
    assert record.status == "DECIDED"
    (task,) = await payloads(world, TaskEstimated)
    assert (task.points, task.rounds, task.converged) == (8, 1, False)


class Killed(BaseException):
    """The process died."""


class Dying(ScriptedAgents):
    """Agents whose owner dies at the nth call."""

    dies_at = 0

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See `Agents.ask`."""
        if len(self.asked) + 1 == self.dies_at:
            self.dies_at = 0
            raise Killed
        return await ScriptedAgents.ask(self, request, request_id=request_id, timeout_s=timeout_s)


@pytest.mark.rule("CN-122", "CN-108", "CN-121", "PL-48")
@pytest.mark.parametrize("dies_at", range(1, 7))
async def test_kill_in_any_round_gives_the_same_estimate_and_pays_for_no_answer_twice(dies_at: int):
    rows = [(1, 5, 21), (5, 5, 8)]
    _, _, whole = await estimated(rows)
    agents = Dying(said(rows))
    agents.dies_at = dies_at
    world, bench = await world_of(agents=agents)
    council_id = await ask(world, bench, **ESTIMATE)
    with pytest.raises(Killed):
        await hold(bench, council_id)
    finished = {name for name, step in bench.state.steps.items() if step.finished is not None}
    agents.asked.clear()
    record = await hold(await world.bench(), council_id)
    assert record.deliberation.estimates == whole.deliberation.estimates
    assert not finished & {name.removeprefix(f"{STORY}/") for name in agents.asked}
    (one,) = await payloads(world, TaskEstimated)
    assert (one.points, one.values, one.rounds) == (5, (5, 5, 8), 2)
    assert len(await payloads(world, EstimateCast)) == 6


@pytest.mark.rule("CN-80", "CN-81", "CN-82", "CN-83", "CN-84", "CN-85", "CN-86")
@pytest.mark.parametrize(
    ("modes", "points"),
    [
        (("excellent", "verbose", "concise"), 3),
        (("excellent", "concise", "stubborn"), 3),
        (("excellent", "verbose", "inconsistent"), 3),
        (("excellent", "error_prone", "concise"), 3),
        (("poor", "poor", "excellent"), 21),
    ],
)
async def test_mock_members_estimate(modes: tuple[Any, ...], points: int):
    calls: dict[str, int] = {}

    def mock(request: AgentRequest) -> Any:
        name = str(request.principal).removeprefix("agent:")
        calls[name] = calls.get(name, 0) + 1
        reply = mock_reply(
            MockCall(
                modes[request.variant], 7, "co-1", name, "estimate", calls[name], MockFixture(correct="x", wrong="y")
            )
        )
        if isinstance(reply, MockFailure):
            return ModelTimeout("the mock did not answer")
        return reply.content if isinstance(reply.content, dict) else ReplyMalformed(reply.content)

    world, bench = await world_of(mock)
    council_id = await ask(world, bench, **ESTIMATE)
    for _ in range(9):
        try:
            record = await hold(bench, council_id)
        except ModelTimeout:
            continue  # the owner asks again later
        break
    else:
        raise AssertionError("the council did not end")
    assert record.status == "DECIDED"
    assert [t.points for t in await payloads(world, TaskEstimated)] == [points]


@pytest.mark.rule("CN-12", "CN-5", "PL-80")
@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("/output_kind", {"output_kind": "plan"}),
        ("/task_id", {"task_id": "tk-nobody1"}),
        ("/subject", {"subject": "sha256:" + "a" * 64}),
        ("/rounds", {"rounds": 3}),
        ("/roster", {"num_agents": 4}),
    ],
)
async def test_bad_request_for_an_estimate_names_its_field_and_opens_nothing(field: str, changes: dict[str, Any]):
    world, bench = await world_of(said([(3, 3, 3)]))
    with pytest.raises(InvalidInput) as refused:
        await ask(world, bench, **ESTIMATE | changes)
    assert field in [p["pointer"] for p in refused.value.details["problems"]]
    assert not bench.state.councils


@pytest.mark.rule("CN-12", "PL-81")
async def test_task_that_is_over_is_not_estimated_any_more():
    world, bench = await world_of(said([(3, 3, 3)]))
    moved = {
        "task_id": TASK,
        "from": "todo",
        "action": "DISCARD_TASK",
        "to": "cancelled",
        "actor_type": "human",
        "principal": ROOT,
        "as_role": "po",
    }
    await bench.journal.record("discarded", TaskTransitioned.model_validate(moved))
    with pytest.raises(InvalidInput, match="is cancelled"):
        await ask(world, bench, **ESTIMATE)


@pytest.mark.rule("CN-5", "PL-80")
@pytest.mark.parametrize("more", [0, 1, 2])
async def test_rounds_of_the_request_are_those_after_the_first(more: int):
    world, _, record = await estimated([(1, 8, 21)], rounds=more)
    assert record.opened.rounds == 1 + more
    assert len(world.agents.requests) == 3 * (1 + more)


@pytest.mark.rule("CN-11", "CN-70")
async def test_members_of_several_roles_estimate_together():
    roster = [member("architect-001"), member("qa-001", prompt_variant=1), member("developer-001", prompt_variant=2)]
    world, _, record = await estimated([(3, 3, 3)], roster=roster)
    assert record.status == "DECIDED"
    assert {r.role for r in world.agents.requests} == {"architect", "qa", "developer"}


@pytest.mark.rule("CN-63", "AP-78")
async def test_estimate_that_is_sent_back_is_asked_anew():
    world, bench, record = await estimated([(3, 3, 5)])
    back = {"council_id": record.opened.council_id, "reason": "the tests were left out of it"}
    again = await do(world, bench, "reject_council", back, key="back")
    second = await hold(bench, again)
    assert (second.status, second.opened.retry_of, second.opened.rounds) == ("DECIDED", record.opened.council_id, 3)
    assert len(await payloads(world, TaskEstimated)) == 2


@pytest.mark.rule("CN-70", "CN-58", "RP-17")
async def test_what_people_read_of_an_estimate_says_nothing_of_who_gave_which_value():
    world, bench, record = await estimated([(1, 5, 21), (5, 5, 8)])
    events = [(event, decode(event)) for event in await world.events()]
    summary = council_summaries(events)[-1]
    assert summary.estimate == 5
    assert [(r.round, r.median, r.values, r.absent) for r in summary.estimate_rounds] == [
        (1, 5, (1, 5, 21), 0),
        (2, 5, (5, 5, 8), 0),
    ]
    told = [describe(p) for _, p in events]
    assert told.count("An estimate came in for round 1") == 3
    assert "Council decided in P6: 5 points" in told
    (decided,) = await payloads(world, CouncilDecided)
    whole = json.loads(await bench.blobs.get(decided.record_digest))
    text = json.dumps({k: v for k, v in whole.items() if k != "roster"})
    assert "developer-0" not in text
    assert whole["winner_or_reason"] == 5
    assert whole["reasons"][0]["reasons"] == ["a reason for 1", "a reason for 21", "a reason for 5"]
    assert sum(whole["tokens"].values()) == sum(decided.tokens.values())
    assert record.winner is None


@pytest.mark.rule("CN-70")
async def test_round_that_is_open_is_not_read_by_anybody():
    agents = Silent(said([(1, 8, 21)]))
    agents.since = 2
    world, bench = await world_of(agents=agents)
    council_id = await ask(world, bench, **ESTIMATE)
    held = asyncio.create_task(hold(bench, council_id))
    async with asyncio.timeout(5):
        while len(await payloads(world, EstimateCast)) < 5:
            await asyncio.sleep(0)
    desk = StoryDesk(
        planning=world.desk,
        blobs=world.blobs,
        packs=bench.packs,
        reports=bench.reports,
        rules=bench.rules,
        context=bench.rules.context,
        clock=world.clock,
    )
    page = await desk.council(STORY, EntityId(council_id))
    assert [r.round for r in page.summary.estimate_rounds] == [1]
    assert page.reasons == (("a reason for 1", "a reason for 21", "a reason for 8"),)
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)
