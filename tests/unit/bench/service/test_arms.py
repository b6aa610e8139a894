"""Arms of the solve benchmark with a scripted model: what they spend, when they stop, what they choose."""

from __future__ import annotations

import asyncio
import gc
import json
from dataclasses import replace
from typing import Any

import pytest

from fleet.bench.row import ARMS, ArmName, parse_arms
from fleet.bench.service.execution import ARM_RUNS, JUDGE_RUNS
from fleet.bench.service.solve_bench import BenchPlan, SolveBench
from fleet.bench.task import BenchTask, HiddenTests, SolveTask
from fleet.council.rounds import FRESH_TEMPERATURE
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import FleetError, ModelTimeout, ModelUnavailable, ReplyRefused
from fleet.models.chat import ChatReply, ChatRequest
from fleet.trees.tree import decode_tree
from tests.support.solve_bench import (
    CANARY,
    CASES,
    RIGHT,
    WRONG,
    ScriptedModel,
    Trial,
    code,
    double_task,
    rules,
    voices,
)


def always(draft: str) -> Any:
    def answer(kind: str, request: ChatRequest) -> str:
        return code(CASES) if kind == "tests" else code(draft)

    return answer


def drafts(*texts: str) -> Any:
    """Drafts in turn, the last for ever; repairs give the right code; ballots approve in the order shown."""
    left = list(texts)

    def answer(kind: str, request: ChatRequest) -> str:
        if kind == "tests":
            return code(CASES)
        if kind == "repair":
            return code(RIGHT)
        if kind == "draft":
            return code(left.pop(0) if len(left) > 1 else left[0])
        return json.dumps(filled(request))

    return answer


def filled(request: ChatRequest) -> dict[str, Any]:
    assert request.json_schema is not None
    properties = request.json_schema["properties"]
    if "votes" not in properties:
        return {"severity": "major", "problem": "It adds instead of doubling."}
    labels = properties["votes"]["items"]["properties"]["label"]["enum"]
    return {"votes": [{"label": n, "vote": "approve", "reason": "Evidence."} for n in labels], "ranking": labels}


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize("tokens", [700, 1500, 4000, 9000])
async def test_arm_accounts_for_every_token_and_keeps_its_budget(arm: ArmName, blind: bool, tokens: int):
    trial = Trial(drafts(WRONG, "no code at all", WRONG, RIGHT), tokens=tokens, blind=blind)
    await trial.solve(arm)
    assert trial.solver.meter.spent == trial.model.tokens == sum(trial.solver.meter.by_stage.values())
    assert trial.solver.meter.spent <= tokens


@pytest.mark.parametrize("arm", ARMS)
async def test_right_model_is_right_in_every_arm(arm: ArmName):
    trial = Trial(always(RIGHT))
    found = await trial.solve(arm)
    assert await trial.passes(found)


async def test_greedy_asks_once_at_temperature_zero():
    trial = Trial(always(WRONG))
    found = await trial.solve("greedy")
    (asked,) = trial.model.requests
    assert asked.sampling.temperature == "0"
    assert not await trial.passes(found)


async def test_resample_stops_at_the_first_draft_that_passes():
    trial = Trial(drafts(WRONG, WRONG, RIGHT, WRONG))
    found = await trial.solve("resample")
    assert (len(trial.model.requests), found.ended) == (3, "tests pass")
    assert await trial.passes(found)


async def test_best_of_n_spends_its_budget_and_takes_the_draft_with_most_tests():
    trial = Trial(drafts(WRONG, RIGHT, WRONG), tokens=2000)
    found = await trial.solve("best-of-n")
    assert found.ended == "budget"
    assert len(trial.model.requests) > 3
    assert await trial.passes(found)


async def test_plurality_takes_the_largest_cluster_of_behaviour():
    same = "def double(n):\n    # other text, other way\n    return n * 2\n"
    trial = Trial(drafts(WRONG, RIGHT, same, WRONG[:-1] + "  # x\n", RIGHT, same), blind=True, tokens=3500)
    found = await trial.solve("plurality")
    assert trial.model.requests[0].messages[0].content.startswith("Work: tests")
    assert await trial.passes(found)


async def test_self_repair_shows_the_failure_and_stops_when_tests_pass():
    trial = Trial(drafts(WRONG))
    found = await trial.solve("self-repair")
    assert found.ended == "tests pass"
    assert "assert double(5) == 10: failed" in trial.model.requests[1].messages[1].content
    assert await trial.passes(found)


async def test_council_that_agrees_ends_without_ballots():
    trial = Trial(always(RIGHT))
    found = await trial.solve("council")
    assert found.ended == "P3"
    assert set(trial.solver.meter.by_stage) == {"draft", "tests"}
    assert len(trial.model.requests) == 4


async def test_council_repairs_what_fails_and_says_what_each_stage_added():
    trial = Trial(drafts(WRONG))
    found = await trial.solve("council")
    assert await trial.passes(found)
    assert set(trial.solver.meter.by_stage) >= {"draft", "tests", "repair"}
    first = found.picks["first_draft"]
    assert first is not None
    assert first.text == WRONG


async def test_critique_comes_from_another_member_and_goes_with_the_failure():
    trial = Trial(drafts(WRONG, RIGHT, RIGHT), task=double_task(("assert double(5) == 10",)))
    found = await trial.solve("council", seats=3)
    assert found.ended == "P3"
    trial = Trial(drafts(WRONG, "def double(n):\n    return n\n", RIGHT), task=double_task(("assert double(5) == 10",)))
    found = await trial.solve("council", seats=3, critiques=True)
    assert trial.solver.meter.by_stage["critique"] > 0
    repairs = [r for r in trial.model.requests if r.messages[0].content.startswith("Work: repair")]
    assert any("It adds instead of doubling." in r.messages[1].content for r in repairs)
    assert await trial.passes(found)


async def test_council_of_which_nothing_passes_mends_the_best_draft_and_draws_the_others_anew():
    almost = "def double(n):\n    return 10 if n == 5 else 3\n"
    trial = Trial(
        drafts(WRONG, almost, "def double(n):\n    return n\n", RIGHT),
        task=double_task(("assert double(5) == 10", "assert double(6) == 12")),
    )
    found = await trial.solve("council", seats=3)
    repairs = [r for r in trial.model.requests if r.messages[0].content.startswith("Work: repair")]
    assert len(repairs) == 1
    assert almost in repairs[0].messages[1].content
    anew = [r for r in trial.model.requests if r.messages[0].content.startswith("Work: draft")][3:]
    assert len(anew) == 2
    assert {r.sampling.temperature for r in anew} == {FRESH_TEMPERATURE}
    seeds = [r.sampling.seed for r in trial.model.requests if r.messages[0].content.startswith("Work: draft")]
    assert len(set(seeds)) == 5
    assert await trial.passes(found)


async def test_test_author_that_does_not_stop_costs_one_call_and_its_whole_tests_count():
    code = "from solution import double\n\ndef test_it():\n    assert double(2) == 4\n    assert double(3) == "

    def answer(kind: str, request: ChatRequest) -> str:
        return f"```python\n{code}" if kind == "tests" else drafts(RIGHT, WRONG)(kind, request)

    trial = Trial(answer)
    trial.model.cut = ("tests",)
    await trial.solve("council", seats=3)
    asked = [r for r in trial.model.requests if r.messages[0].content.startswith("Work: tests")]
    assert len(asked) == 1
    assert [c.code.rstrip().rsplit("\n", 1)[-1] for c in (await trial.solver.author_tests()).cases] == ["test_it()"]


async def test_council_without_trusted_tests_asks_for_blind_ballots():
    other = "def double(n):\n    return 2 * n if n < 100 else 0\n"
    answers = drafts(RIGHT, other, "def double(n):\n    return n << 1\n")
    trial = Trial(lambda k, r: "no tests" if k == "tests" else answers(k, r))
    found = await trial.solve("council")
    assert found.ended == "P6"
    assert trial.solver.meter.by_stage["ballots"] > 0
    votes = [r for r in trial.model.requests if r.messages[0].content.startswith("Work: vote")]
    assert not any("developer-00" in m.content for r in votes for m in r.messages)


async def test_council_whose_ballots_are_broken_is_undecided_and_evidence_stands():
    answers = drafts(RIGHT, "def double(n):\n    return n * 2 if n else 0\n", "def double(n):\n    return n << 1\n")

    def answer(kind: str, request: ChatRequest) -> str:
        return "?" if kind in ("vote", "tests") else answers(kind, request)

    found = await Trial(answer).solve("council")
    assert found.ended == "undecided: no_quorum"
    assert found.pick is not None


async def test_refused_calls_are_charged():
    trial = Trial(lambda kind, request: ReplyRefused("no"), tokens=3000)
    found = await trial.solve("best-of-n")
    assert found.pick is None
    assert trial.solver.failed_calls > 0
    assert 0 < trial.solver.meter.spent <= 3000


@pytest.mark.parametrize("error", [ModelUnavailable("gone"), ModelTimeout("late")])
@pytest.mark.parametrize("arm", ARMS)
async def test_engine_that_does_not_answer_ends_the_benchmark(arm: ArmName, error: FleetError):
    with pytest.raises(type(error)):
        await Trial(lambda kind, request: error).solve(arm)


def repository_task() -> BenchTask:
    public = SolveTask(
        task_id="t/repo",
        prompt="Mend double.",
        blind_prompt="Mend double.",
        files={"calc.py": WRONG.encode(), "test_calc.py": b"from calc import double\n"},
        targets=("calc.py",),
        command=("python", "-m", "pytest"),
    )
    hidden = HiddenTests(
        files={"test_hidden.py": CANARY.encode()}, command=("python", "-m", "pytest", "test_hidden.py")
    )
    return BenchTask(public=public, hidden=hidden)


@pytest.mark.parametrize("task", [None, repository_task()], ids=["function", "repository"])
async def test_hidden_tests_reach_no_prompt_and_no_run_of_an_arm(task: BenchTask | None):
    trial = Trial(drafts(WRONG, "bad", RIGHT), task=task)
    reads = iter([False, True] * 200)
    trial.sandbox.passes = lambda spec: next(reads)
    plan = BenchPlan(arms=parse_arms("all,all-blind"), seeds=(1, 2), tokens=5000, rules=rules())
    bench = SolveBench(trial.model, trial.execution, voices(), SystemClock(), plan)
    rows = [row async for row in bench.rows([trial.task])]
    assert len(rows) == 24
    assert not any(CANARY in m.content for r in trial.model.requests for m in r.messages)
    seen = {ARM_RUNS: 0, JUDGE_RUNS: 0}
    for story, spec in trial.sandbox.specs:
        texts = [await trial.blobs.get(m.blob) for m in spec.mounts]  # type: ignore[union-attr]
        if spec.tree is not None:
            texts += [await trial.blobs.get(e.blob) for e in decode_tree(await trial.blobs.get(spec.tree)).values()]
        seen[story] += any(CANARY.encode() in text for text in texts)
    assert seen[ARM_RUNS] == 0
    assert seen[JUDGE_RUNS] > 0


@pytest.mark.parametrize(("last", "solved"), [(RIGHT, True), (WRONG, False)])
async def test_row_says_whether_any_draft_was_right_whatever_was_chosen(last: str, solved: bool):
    # Six drafts fit; blind, and with tests that ask for the wrong thing, the right one among them is passed over.
    wrong_tests = code("def test_double():\n    assert double(3) == 5\n")
    others = drafts(WRONG, WRONG, last, WRONG)

    def answer(kind: str, request: ChatRequest) -> Any:
        return wrong_tests if kind == "tests" else others(kind, request)

    plan = BenchPlan(arms=parse_arms("best-of-n-blind"), seeds=(1,), tokens=3000, rules=rules())
    trial = Trial(answer, blind=True)
    bench = SolveBench(trial.model, trial.execution, voices(), SystemClock(), plan)
    (row,) = [row async for row in bench.rows([trial.task])]
    assert not row.passed
    assert row.picks["oracle"].passed is solved


async def test_rows_that_are_done_are_not_made_again_and_a_replay_is_equal():
    plan = BenchPlan(arms=parse_arms("greedy,council"), seeds=(1,), tokens=5000, rules=rules())
    made: list[Any] = []
    for _ in range(2):
        trial = Trial(always(RIGHT))
        bench = SolveBench(trial.model, trial.execution, voices(), SystemClock(), plan)
        made.append([row async for row in bench.rows([trial.task])])
    first, second = ([r.model_copy(update={"wall_ms": 0}) for r in rows] for rows in made)
    assert first == second
    done = {row.key for row in first[:1]}
    left = [row.key async for row in bench.rows([trial.task], done=done)]
    assert left == [first[1].key]


class Slow(ScriptedModel):
    """Counts calls that are under way together; each waits until others had their chance to begin."""

    under_way, most = 0, 0

    async def complete(self, request: ChatRequest, **given: Any) -> ChatReply:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            for _ in range(20):
                await asyncio.sleep(0)
            return await ScriptedModel.complete(self, request, **given)
        finally:
            self.under_way -= 1


def several(number: int) -> list[BenchTask]:
    task = double_task()
    return [replace(task, public=replace(task.public, task_id=f"t/{n}")) for n in range(number)]


@pytest.mark.parametrize(("at_once", "most"), [(1, 1), (3, 3), (9, 5)])
async def test_so_many_tasks_are_under_way_and_every_row_is_made_once(at_once: int, most: int):
    plan = BenchPlan(arms=parse_arms("greedy,resample"), seeds=(1,), tokens=5000, rules=rules(), at_once=at_once)
    trial, model = Trial(always(RIGHT)), Slow(always(RIGHT))
    bench = SolveBench(model, trial.execution, voices(), SystemClock(), plan)
    rows = [row.key async for row in bench.rows(several(5), done={("t/4", "greedy", 1)})]
    assert model.most == most
    wanted = {(f"t/{n}", arm, 1) for n in range(5) for arm in ("greedy", "resample")}
    assert sorted(rows) == sorted(wanted - {("t/4", "greedy", 1)})


async def test_failure_of_one_task_ends_the_others_and_finished_rows_stand():
    asked: list[str] = []

    def answer(kind: str, request: ChatRequest) -> Any:
        asked.append(kind)
        return ModelUnavailable("it is gone") if len(asked) == 3 else code(RIGHT)

    plan = BenchPlan(arms=parse_arms("greedy"), seeds=(1,), tokens=5000, rules=rules(), at_once=2)
    trial, model = Trial(always(RIGHT)), Slow(answer)
    bench, rows = SolveBench(model, trial.execution, voices(), SystemClock(), plan), list[str]()

    async def measure() -> None:
        async for row in bench.rows(several(8)):
            rows.append(row.task_id)

    with pytest.raises(ModelUnavailable):
        await measure()
    assert 1 <= len(rows) <= 3
    assert model.under_way == 0
    assert len(asked) < 8


async def test_benchmark_that_is_interrupted_ends_its_calls_and_leaves_no_error_behind():
    loose: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loose.append(context))
    plan = BenchPlan(arms=parse_arms("greedy"), seeds=(1,), tokens=5000, rules=rules(), at_once=2)
    trial, model = Trial(always(RIGHT)), Slow(always(RIGHT))
    bench = SolveBench(model, trial.execution, voices(), SystemClock(), plan)

    async def measure() -> None:
        async for _ in bench.rows(several(4)):
            pass

    under_way = asyncio.create_task(measure())
    while not model.under_way:
        await asyncio.sleep(0)
    under_way.cancel()
    with pytest.raises(asyncio.CancelledError):
        await under_way
    assert model.under_way == 0
    gc.collect()
    await asyncio.sleep(0)
    assert not loose
