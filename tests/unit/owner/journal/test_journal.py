"""The journal: every effect is a step on record, and a recorded answer is never paid for twice (PL-48, RC-51)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from fleet.events.codec import decode
from fleet.events.step import ModelFallbackUsed, StepFinished, StepStarted
from fleet.events.story import StoryParked
from fleet.kernel.clock import SystemClock
from fleet.kernel.digest import canonical_value, digest_of_json
from fleet.kernel.errors import (
    CommitUnknown,
    ContextTooLarge,
    FleetError,
    ModelUnavailable,
    NondeterministicPlan,
    OwnershipLost,
    ReplyMalformed,
)
from fleet.kernel.ids import SYSTEM, CommandId, EntityId, StepId, StreamId
from fleet.log.memory import MemoryEventLog
from fleet.log.port import Appended, AppendRequest, Duplicate
from fleet.models.chat import Sampling
from fleet.models.port import AgentAnswer, AgentRequest, PassedOver
from fleet.models.profiles import Budgets
from fleet.models.prompts.pack_readers import PROMPT_FRAME_TOKENS
from fleet.models.routing.budget import BudgetLimits
from fleet.owner.budgets import Budgeting
from fleet.owner.journal.journal import Journal
from fleet.owner.journal.steps import StepTerms, Work
from fleet.owner.workbench import seat
from fleet.policy.runs.spec import RunSpec
from fleet.sandbox.memory import ProgramEnd, ProgramStart
from fleet.sandbox.port import RunProgress
from fleet.trees.tree import FileEntry, encode_tree
from tests.support.bench import ScriptedAgents, World
from tests.support.story_events import STORY, digest, story

STREAM = StreamId.of_story(STORY)
DEV = seat("developer")
WORK = Work(seat=DEV, tool="model", op="draft", council_id=EntityId("co-one1"))


def request(own: str = "write it", **changes: Any) -> AgentRequest:
    return AgentRequest(
        kind="draft",
        role="developer",
        principal=DEV.principal,
        shared="shared",
        own=own,
        sampling=Sampling(temperature="0.2", max_tokens=100, seed=7),
        **changes,
    )


async def started(**parts: Any) -> tuple[World, Journal]:
    """A journal over a story that was started and whose base is measured."""
    world = World(**parts)
    await story(until="base").write_to(world.log)
    return world, await world.journal()


def finish_of(journal: Journal, step: str) -> StepFinished:
    finished = journal.state.steps[step].finished
    assert finished is not None
    return finished


async def test_loaded_journal_has_the_state_of_the_log():
    _, journal = await started()
    assert (journal.exists, journal.state.state) == (True, "DESIGN")
    assert journal.knows(CommandId(f"{STORY}/step-1"))
    fresh = await World().journal()
    assert not fresh.exists


async def test_recorded_payloads_are_state_at_once_and_the_second_time_nothing_happens():
    world, journal = await started()
    parked = StoryParked(cause="stuck", detail="nothing moved")
    assert await journal.record("park/1", parked)
    assert journal.state.disposition == "parked"
    before = await world.types()
    assert not await journal.record("park/1", parked)
    assert await world.types() == before


@pytest.mark.rule("EV-15", "PL-48")
async def test_append_that_another_call_made_first_is_read_back():
    world, journal = await started()
    other = await world.journal()
    await other.record("note/1", StoryParked(cause="stuck", detail="the first of the two"))
    assert not await journal.record("note/1", StoryParked(cause="operator", detail="the second"))
    assert journal.state.park is not None
    assert journal.state.park.detail == "the first of the two"
    assert await journal.record("note/2", StoryParked(cause="stuck", detail="the next one"))


@pytest.mark.rule("GL-19", "EV-14")
async def test_owner_of_an_older_epoch_writes_nothing_more():
    world, journal = await started()
    world.log.raise_epoch(STREAM)
    before = await world.types()
    with pytest.raises(OwnershipLost):
        await journal.record("park/1", StoryParked(cause="stuck", detail="nothing moved"))
    assert await world.types() == before


class LossyLog(MemoryEventLog):
    """Loses the reply of appends: `stored` of them after writing, the others before."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: list[bool] = []

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        stored = self.lost.pop(0) if self.lost else None
        if stored is None:
            return await super().append(request)
        if stored:
            await super().append(request)
        raise CommitUnknown("the reply was lost: repeat with the same command id")


@pytest.mark.rule("EV-18")
@pytest.mark.parametrize("lost", [[True], [False], [False, True, False]])
async def test_lost_reply_is_asked_again_until_the_answer_is_definite(lost: list[bool]):
    log = LossyLog()
    world, journal = await started(log=log)
    log.lost = list(lost)
    await journal.record("park/1", StoryParked(cause="stuck", detail="nothing moved"))
    assert not log.lost
    assert journal.state.disposition == "parked"
    assert (await world.types()).count("StoryParked") == 1


@pytest.mark.rule("EV-18")
async def test_reply_that_stays_lost_is_commit_unknown():
    log = LossyLog()
    _, journal = await started(log=log)
    log.lost = [False] * 5
    with pytest.raises(CommitUnknown):
        await journal.record("park/1", StoryParked(cause="stuck", detail="nothing moved"))


@pytest.mark.rule("PL-48", "MB-30")
async def test_finished_step_answers_from_its_record_without_asking_again():
    world, journal = await started(agents=ScriptedAgents(lambda r: {"code": r.own}))
    answer = await journal.ask("co-one1/draft/1", request(), WORK)
    again = await (await world.journal()).ask("co-one1/draft/1", request(), WORK)
    assert (answer, answer.value) == (again, {"code": "write it"})
    assert world.agents.asked == [f"{STORY}/co-one1/draft/1"]
    finished = finish_of(journal, "co-one1/draft/1")
    assert (finished.outcome, finished.cost.tokens_in, finished.cost.tokens_out) == ("succeeded", 10, 5)
    assert finished.provenance.seed == 7


class FallenBack(ScriptedAgents):
    """Another engine than the first one of the chain answers."""

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        answer = await super().ask(request, request_id=request_id, timeout_s=timeout_s)
        passed = (PassedOver("big", "model_timeout"), PassedOver("big", "model_unavailable"))
        return replace(answer, passed_over=(*passed, PassedOver("scripted", "reply_malformed")))


@pytest.mark.rule("MB-3")
async def test_fallback_is_on_record_with_the_answer_and_never_twice():
    world, journal = await started(agents=FallenBack(lambda r: {"code": "x"}))
    answer = await journal.ask("co-one1/draft/1", request(), WORK)
    assert len(answer.passed_over) == 3
    await (await world.journal()).ask("co-one1/draft/1", request(), WORK)
    assert (await world.types())[-2:] == ["StepFinished", "ModelFallbackUsed"]
    event = (await world.log.read(STREAM, after=0))[-1]
    payload = decode(event)
    assert isinstance(payload, ModelFallbackUsed)
    assert (payload.from_, payload.to, payload.reason) == ("big", "scripted", "model_unavailable")


async def test_request_goes_out_with_the_tag_of_its_story_which_is_no_part_of_what_is_recorded():
    world, journal = await started(agents=ScriptedAgents(lambda r: {"code": "x"}))
    await journal.ask("co-one1/draft/1", request(), WORK)
    tag = world.agents.requests[0].tag
    assert (tag.tenant, tag.priority, tag.affinity, tag.story) == (
        journal.state.project_id,
        "story",
        f"{STORY}/co-one1",
        STORY,
    )
    started_digest = journal.state.steps["co-one1/draft/1"].started.request_digest
    assert started_digest == digest_of_json(canonical_value(request().pinned()))
    assert "tag" not in request().pinned()


@pytest.mark.rule("PL-48")
async def test_step_that_was_started_but_not_finished_is_asked_again_under_its_first_start():
    agents = ScriptedAgents(lambda r: ModelUnavailable("the engine is down"))
    world, journal = await started(agents=agents)
    with pytest.raises(ModelUnavailable):
        await journal.ask("think/1", request(), WORK)
    agents.answer = lambda r: {"code": "x"}
    assert (await (await world.journal()).ask("think/1", request(), WORK)).value == {"code": "x"}
    kinds = [t for t in await world.types() if t.startswith("Step")]
    assert kinds[-2:] == ["StepStarted", "StepFinished"]
    assert kinds.count("StepStarted") == kinds.count("StepFinished")


@pytest.mark.rule("RC-58")
async def test_unfinished_step_with_another_request_is_a_further_attempt_and_both_requests_are_on_record():
    agents = ScriptedAgents(lambda r: ModelUnavailable("the engine is down"))
    world, journal = await started(agents=agents)
    with pytest.raises(ModelUnavailable):
        await journal.ask("think/1", request(), WORK)
    held = journal.state.budgets.holds["think/1"]
    agents.answer = lambda r: {"code": r.own}
    again = await world.journal()
    assert (await again.ask("think/1", request("another prompt"), WORK)).value == {"code": "another prompt"}
    first, second = [p for p in map(decode, await world.events()) if isinstance(p, StepStarted) and p.kind == "model"]
    assert (first.step_id, first.request_digest != second.request_digest) == (second.step_id, True)
    assert first.key != second.key
    assert (again.state.steps["think/1"].attempt, again.state.steps["think/1"].finished is None) == (2, False)
    # The second attempt takes the place of the first: nothing of either is held, and one of them is paid.
    assert (held.is_open, again.state.budgets.holds) == (True, {})
    assert again.state.tokens - journal.state.tokens == 15


@pytest.mark.rule("RC-58")
async def test_finished_step_keeps_its_answer_whatever_it_would_ask_for_today():
    world, journal = await started(agents=ScriptedAgents(lambda r: {"code": r.own}))
    await journal.ask("think/1", request(), WORK)
    assert (await (await world.journal()).ask("think/1", request("another prompt"), WORK)).value == {"code": "write it"}
    assert len(world.agents.asked) == 1


@pytest.mark.rule("RC-58", "MB-22")
async def test_further_attempt_fits_where_both_together_would_not():
    budgeting = Budgeting(Budgets(story=BudgetLimits(tokens=PROMPT_FRAME_TOKENS + 700)))
    agents = ScriptedAgents(lambda r: ModelUnavailable("the engine is down"))
    world, journal = await started(agents=agents, budgeting=budgeting)
    most = replace(request(), sampling=Sampling(max_tokens=600, seed=7))
    with pytest.raises(ModelUnavailable):
        await journal.ask("think/1", most, WORK)
    agents.answer = lambda r: {"tokens": r.sampling.max_tokens}
    answer = await (await world.journal()).ask("think/1", replace(most, own="another prompt"), WORK)
    assert answer.value == {"tokens": 600}


@pytest.mark.parametrize(
    "error",
    [
        ReplyMalformed("the reply has no code", problems=["no block"], usage={"tokens_in": 40, "tokens_out": 2}),
        ContextTooLarge("the prompt is too long", sizes={"task": 9000}),
    ],
)
async def test_useless_reply_is_a_failed_step_that_is_raised_again_from_the_record(error: FleetError):
    world, journal = await started(agents=ScriptedAgents(lambda r: error))
    for _ in range(2):
        with pytest.raises(type(error), match=error.message):
            await journal.ask("think/1", request(), WORK)
    finished = finish_of(journal, "think/1")
    assert (finished.outcome, finished.error_code, len(world.agents.asked)) == ("failed", error.code, 1)
    spent = error.details.get("usage", {"tokens_in": 0})
    assert finished.cost.tokens_in == spent["tokens_in"]


def counting(end: ProgramEnd) -> tuple[Callable[[object], ProgramEnd], list[int]]:
    calls: list[int] = []

    def program(_: object) -> ProgramEnd:
        calls.append(1)
        return end

    return program, calls


RUN = Work(seat=seat("qa"), tool="tests", op="pytest")


@pytest.mark.rule("RC-51")
@pytest.mark.parametrize(("code", "outcome", "status"), [(0, "succeeded", "passed"), (1, "failed", "failed")])
async def test_run_is_recorded_once_with_its_outcome_and_excerpt(code: int, outcome: str, status: str):
    program, calls = counting(ProgramEnd(exit_code=code, stdout=b"2 passed\n", stderr=b"a warning\n"))
    world, journal = await started(program=program)
    spec = RunSpec(argv=("pytest", "-q"))
    first = await journal.run("tests/1", spec, RUN)
    again = await (await world.journal()).run("tests/1", spec, RUN)
    finished = finish_of(journal, "tests/1")
    assert (first, len(calls)) == (again, 1)
    assert (first.status, finished.outcome, finished.exit_code) == (status, outcome, code)
    assert finished.excerpt == "2 passed\na warning"


async def test_long_output_is_shortened_in_the_record_only():
    program, _ = counting(ProgramEnd(stdout=b"x" * 20_000))
    _, journal = await started(program=program)
    await journal.run("tests/1", RunSpec(argv=("pytest",)), RUN)
    excerpt = finish_of(journal, "tests/1").excerpt
    assert excerpt is not None
    assert len(excerpt) < 9600
    assert "[...]" in excerpt


@pytest.mark.rule("RC-51", "PL-48")
async def test_run_whose_finish_was_not_recorded_is_joined_by_its_key():
    program, calls = counting(ProgramEnd(stdout=b"2 passed\n"))
    log = FailingFinish()
    world, journal = await started(program=program, log=log)
    spec = RunSpec(argv=("pytest", "-q"))
    log.armed = True
    with pytest.raises(Crash):
        await journal.run("tests/1", spec, RUN)
    log.armed = False
    result = await (await world.journal()).run("tests/1", spec, RUN)
    assert (result.status, len(calls)) == ("passed", 1)


OTHER = RunSpec(argv=("pytest", "-q", "--no-header"))
"""What a newer version of the program would run in place of `pytest -q`."""


async def run_that_lost_its_owner(end: ProgramEnd) -> tuple[World, list[int], FailingFinish]:
    """A run that came to this end at its receiver; its owner died before it had that on record."""
    program, calls = counting(end)
    log = FailingFinish()
    world, journal = await started(program=program, log=log)
    log.armed = True
    with pytest.raises(Crash):
        await journal.run("tests/1", RunSpec(argv=("pytest", "-q")), RUN)
    log.armed = False
    return world, calls, log


@pytest.mark.rule("RC-58")
async def test_run_with_another_request_takes_what_the_receiver_knows_by_the_old_key():
    world, calls, _ = await run_that_lost_its_owner(ProgramEnd(stdout=b"2 passed\n"))
    journal = await world.journal()
    result = await journal.run("tests/1", OTHER, RUN)
    assert (result.stdout.text, len(calls)) == ("2 passed\n", 1)
    assert (journal.state.steps["tests/1"].attempt, finish_of(journal, "tests/1").outcome) == (1, "succeeded")


@pytest.mark.rule("RC-58")
async def test_run_with_another_request_starts_anew_where_the_receiver_knows_nothing():
    program, calls = counting(ProgramEnd(stdout=b"2 passed\n"))
    world, journal = await started(program=program)
    await journal._start(StepId("tests/1"), digest("old"), RUN, StepTerms("run", "KEYED", 60))
    again = await world.journal()
    assert (await again.run("tests/1", OTHER, RUN)).status == "passed"
    assert ([spec.argv for spec in world.backend.runs], len(calls)) == ([OTHER.argv], 1)
    step = again.state.steps["tests/1"]
    assert (step.attempt, step.started.request_digest) == (2, OTHER.digest)


@pytest.mark.rule("RC-58")
async def test_run_that_nobody_wants_any_more_is_ended_before_the_next_attempt():
    entered, calls = asyncio.Event(), list[tuple[str, ...]]()

    async def program(start: ProgramStart) -> ProgramEnd:
        calls.append(start.argv)
        if len(calls) == 1:
            entered.set()
            await asyncio.Event().wait()
        return ProgramEnd(stdout=b"2 passed\n")

    world, journal = await started(program=program, clock=SystemClock())
    first = asyncio.create_task(journal.run("tests/1", RunSpec(argv=("pytest", "-q")), RUN))
    await entered.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    result = await (await world.journal()).run("tests/1", OTHER, RUN)
    assert (result.status, calls) == ("passed", [("pytest", "-q"), OTHER.argv])
    assert await world.sandbox.progress(journal.state.steps["tests/1"].started.key) != RunProgress("running")


@pytest.mark.rule("RC-58", "PL-49")
async def test_recorded_result_about_another_tree_is_a_nondeterministic_plan():
    world, journal = await started()
    one, other = [
        await world.blobs.put(encode_tree({"a": FileEntry(blob=await world.blobs.put(text), mode="100644")}))
        for text in (b"1", b"2")
    ]
    spec = RunSpec(argv=("pytest",), tree=one)
    await journal.run("tests/1", spec, RUN)
    with pytest.raises(NondeterministicPlan) as refused:
        await (await world.journal()).run("tests/1", spec.model_copy(update={"tree": other}), RUN)
    assert (refused.value.details["recorded"], refused.value.details["wanted"]) == (one, other)


class Crash(BaseException):
    """The process ended here."""


class FailingFinish(MemoryEventLog):
    """The process ends when the end of a step is about to be recorded."""

    armed = False

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        if self.armed and request.command_id.endswith("/finish"):
            raise Crash
        return await super().append(request)


@pytest.mark.rule("RC-51")
async def test_effect_is_done_once_and_its_result_kept():
    world, journal = await started()
    done: list[int] = []

    def effect(number: int) -> Callable[[], Awaitable[dict[str, Any]]]:
        async def send() -> dict[str, Any]:
            done.append(number)
            return {"branch": "fleet/x", "number": number}

        return send

    work = Work(seat=seat("devops"), tool="git", op="push_branch", args={"branch": f"fleet/{STORY}"})
    first = await journal.act("publish", {"branch": "fleet/x"}, work, effect(1))
    again = await (await world.journal()).act("publish", {"branch": "fleet/x"}, work, effect(2))
    assert (first, again, done) == ({"branch": "fleet/x", "number": 1},) * 2 + ([1],)


@pytest.mark.rule("EV-16")
async def test_command_ids_of_a_step_are_derived_from_story_and_step():
    world, journal = await started(agents=ScriptedAgents(lambda r: {"code": "x"}))
    await journal.ask("think/1", request(), WORK)
    start, finish = (await world.events())[-2:]
    assert (start.command_id, finish.command_id) == (f"{STORY}/think/1/start", f"{STORY}/think/1/finish")
    assert (start.actor, SYSTEM) == (DEV.principal, "system:council")
