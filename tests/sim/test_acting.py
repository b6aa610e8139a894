"""A member of a council that looks around with tools before its draft: on record, bounded, and safe against crashes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from fleet.events.budget import BudgetScope
from fleet.events.codec import decode
from fleet.events.payload import Payload
from fleet.events.step import StuckDetected, ToolDenied
from fleet.kernel.errors import (
    BudgetExceeded,
    InvalidInput,
    OwnershipLost,
    PolicyDenied,
    SandboxUnavailable,
    ToolFailed,
    ToolTimeout,
)
from fleet.kernel.ids import StepId
from fleet.models.chat import ChatRequest
from fleet.models.engines.factory import TextToolsChatModel
from fleet.models.memory import ScriptedChatModel
from fleet.models.port import AgentAnswer, AgentRequest, ChatModel
from fleet.models.profiles import Budgets
from fleet.models.replies.tool_calls import TextToolForm
from fleet.models.routing.budget import BudgetLimits
from fleet.owner.budgets import Budgeting
from fleet.owner.duties.members import ask_member
from fleet.owner.journal.steps import Seat, Work
from fleet.owner.tools.acting_calls import ActingCalls
from fleet.policy.rules.calls import ToolCall
from fleet.policy.rules.table import Rule
from fleet.sandbox.memory import ProgramEnd, ProgramStart
from tests.support.acting import (
    COUNCIL,
    FILES,
    Acted,
    CountingTools,
    Crash,
    MortalLog,
    acting_policy,
    calling,
    convened,
    role_agent,
    toolbox,
    written,
)
from tests.support.bench import World
from tests.support.story_events import STORY, TASK

DRAFT = {"edits": [{"path": "text/slug.py", "mode": "file", "content": "x = 1\n"}]}
GO = {"go.mod": b"module text\n", "slug.go": b"package text\n"}
GO_TOOLS = ("git.log", "tests.go_test")
NOTES = "fold.py has TABLE, which maps a letter to its folding."


def turn_of(request: ChatRequest) -> int:
    """Which reply of the loop a request asks for, from 1; repairs are of the same turn."""
    return 1 + sum(message.role == "assistant" for message in request.messages)


def model_of(*outcomes: Any) -> ScriptedChatModel:
    """A model that says the n-th of these in the n-th turn, whoever asks how often."""
    rules = [(lambda request, n=n: turn_of(request) == n, outcome) for n, outcome in enumerate(outcomes, start=1)]
    return ScriptedChatModel.when(*rules)


READ, LIST = calling("files__read", path="text/fold.py"), calling("files__list", path=".")


def failing_tests(start: ProgramStart) -> ProgramEnd:
    """What the sandbox runs here: tests, one of which fails."""
    return ProgramEnd(exit_code=1, stdout=b"1 failed, 3 passed in 0.12s\n")


class Bench(World):
    """One seat of a council that may look around, and its tools."""

    tools: CountingTools

    def __init__(self, model: ChatModel, log: MortalLog | None = None, *, is_acting: bool = True, **acts: Any) -> None:
        self.model = model
        agents = Acted(lambda request: DRAFT, agent=role_agent(model))
        policy = acting_policy(*(["developer"] if is_acting else []), **acts)
        super().__init__(log=log or MortalLog(), agents=agents, policy=policy, program=failing_tests)
        self.tools = toolbox(self.blobs, self.sandbox, self.clock)  # type: ignore[arg-type]

    async def begin(self, texts: Mapping[str, bytes] = FILES) -> Bench:
        """The council is convened on a small repository."""
        await convened(await written(self.blobs, texts)).write_to(self.log)
        assert isinstance(self.log, MortalLog)
        self.log.is_armed = True
        return self

    async def draft(self, number: int = 0) -> AgentAnswer:
        """The draft of one member, by an owner that was just started."""
        bench = await self.bench()
        record = bench.state.councils[COUNCIL]
        member = record.opened.roster[number]
        return await ask_member(bench, record, member, "draft", step=f"draft/{member.member_id}", shared="the task")

    @property
    def drafted(self) -> AgentRequest:
        """The last request for a draft."""
        assert isinstance(self.agents, Acted)
        return self.agents.requests[-1]

    async def of(self, kind: type[Payload]) -> list[Any]:
        """Everything on record of this type."""
        return [p for p in map(decode, await self.events()) if isinstance(p, kind)]


@pytest.mark.rule("MB-14")
@pytest.mark.parametrize("form", [None, "json", "blocks"])
async def test_member_reads_with_tools_and_its_draft_is_asked_for_with_what_it_found(form: TextToolForm | None):
    texts = {
        "json": 'I look.\n{"tool": "files", "op": "read", "args": {"path": "text/fold.py"}}',
        "blocks": "=== CALL files read\n=== ARG path\ntext/fold.py\n=== END",
    }
    inner = model_of(READ if form is None else texts[form], NOTES)
    world = await Bench(inner if form is None else TextToolsChatModel(inner, form)).begin()
    answer = await world.draft()
    assert answer.value == DRAFT
    assert NOTES in world.drafted.own
    assert 'TABLE = {"ä": "ae"}' in world.drafted.own
    assert "TABLE" not in world.drafted.shared
    state = (await world.journal()).state
    seat = f"{COUNCIL}/draft/developer-001"
    assert [name for name in state.steps if name.startswith(seat)] == [
        f"{seat}/act/1",
        f"{seat}/act/1/tool/1",
        f"{seat}/act/2",
        seat,
    ]
    started = state.steps[f"{seat}/act/1/tool/1"].started
    assert (started.kind, started.effect, started.tool, started.op) == ("tool", "PURE", "files", "read")
    assert (started.council_id, started.task_id, started.policy.rule_id) == (COUNCIL, TASK, "read")


async def test_role_that_is_not_configured_to_drafts_from_its_prompt_alone():
    world = await Bench(model_of(), is_acting=False).begin()
    await world.draft()
    assert world.drafted.own == ""
    assert len(world.agents.asked) == 1


@pytest.mark.rule("RT-35")
async def test_model_is_offered_only_what_its_role_may_do_and_leaves_nothing_behind():
    model = model_of(READ, NOTES)
    world = await Bench(model, tools=("files.read", "files.write", "exec.run", "tests.pytest", "kubectl.get")).begin()
    await world.draft()
    assert [offer.name for offer in model.calls[0].tools] == ["files__read", "tests__pytest"]
    prompt = model.calls[0].messages[-1].content
    assert "write the code that the task asks for" in prompt
    assert "the task" in prompt


@pytest.mark.rule("MB-6")
async def test_malformed_call_is_repaired_once_within_its_step():
    world = await Bench(model_of(calling("files__reed", path="text/fold.py"), READ, NOTES)).begin()
    await world.draft()
    model = world.model
    assert isinstance(model, ScriptedChatModel)
    repaired = model.calls[1].messages[-1]
    assert (repaired.role, repaired.tool_use_id) == ("tool", "call-1")
    assert "there is no tool 'files__reed'; the tools are: files__list" in repaired.content
    steps = (await world.journal()).state.steps
    first = steps[f"{COUNCIL}/draft/developer-001/act/1"].finished
    assert first is not None
    assert first.cost.calls == 2
    assert NOTES in world.drafted.own


@pytest.mark.rule("MB-6", "MB-40")
async def test_reply_that_stays_malformed_is_told_and_after_three_the_draft_goes_on_without():
    world = await Bench(ScriptedChatModel.of(calling("shell", cmd="ls"))).begin()
    await world.draft()
    assert isinstance(world.agents, Acted)
    assert [len(request.turns) for request in world.agents.acted] == [0, 1, 1]
    assert "could not be used" in world.agents.acted[-1].turns[0].content
    (stuck,) = await world.of(StuckDetected)
    assert (stuck.pattern, stuck.level, stuck.task_id) == ("no_usable_reply", 1, TASK)
    assert world.drafted.own == ""
    assert (await world.draft()).value == DRAFT


@pytest.mark.rule("MB-40", "MB-41")
async def test_loop_is_ended_its_call_made_once_and_the_pattern_put_on_record_once():
    world = await Bench(ScriptedChatModel.of(READ)).begin()
    for number in range(2):
        await world.draft(number)
    assert isinstance(world.agents, Acted)
    assert len(world.agents.acted) == 8
    assert len(world.tools.asked) == 2
    (stuck,) = await world.of(StuckDetected)
    assert stuck.pattern == "repeated_result"
    assert stuck.steps[0] == f"{COUNCIL}/draft/developer-001/act/1"
    assert "the same call was made again and again" in world.drafted.own


@pytest.mark.rule("RT-31", "RT-35", "MB-40")
async def test_denied_call_is_an_observation_and_a_denial_on_record():
    outside = calling("files__read", path="../secret")
    world = await Bench(model_of(outside, NOTES)).begin()
    await world.draft()
    assert world.tools.asked == []
    (denied,) = await world.of(ToolDenied)
    assert (denied.rule_id, denied.tool, denied.as_role) == ("path_outside", "files", "developer")
    model = world.model
    assert isinstance(model, ScriptedChatModel)
    assert model.calls[1].messages[-2].content.startswith("Not allowed: argument path")
    step = (await world.journal()).state.steps[f"{COUNCIL}/draft/developer-001/act/1/tool/1"]
    assert step.finished is not None
    assert (step.finished.outcome, step.finished.error_code) == ("denied", "policy_denied")


async def test_tool_that_refuses_or_breaks_is_told_without_what_it_said():
    world = await Bench(model_of(READ, LIST, NOTES)).begin()
    world.tools.failing = {
        "files.read": PolicyDenied("a link leads outside", rule_id="path_outside"),
        "files.list": ToolFailed("connection to 10.0.0.3 lost"),
    }
    await world.draft()
    model = world.model
    assert isinstance(model, ScriptedChatModel)
    told = [message.content for message in model.calls[-1].messages if message.role == "tool"]
    assert told[0] == "Not allowed: a link leads outside."
    assert "Not carried out: the tool is out of order." in told[1]
    assert "10.0.0.3" not in str(model.calls)
    assert [d.rule_id for d in await world.of(ToolDenied)] == ["path_outside"]


@pytest.mark.rule("RT-23")
async def test_outage_of_the_sandbox_is_no_observation_and_the_same_step_goes_on_later():
    world = await Bench(model_of(READ, NOTES)).begin()
    world.tools.failing = {"files.read": SandboxUnavailable("no room")}
    with pytest.raises(SandboxUnavailable):
        await world.draft()
    world.tools.failing = {}
    await world.draft()
    assert isinstance(world.agents, Acted)
    assert len(world.agents.asked) == len(set(world.agents.asked)) == 3


async def test_tests_run_on_a_copy_and_failing_ones_are_a_result():
    world = await Bench(model_of(calling("tests__pytest"), NOTES)).begin()
    before = (await world.journal()).state.tree
    await world.draft()
    assert "1 failed, 3 passed" in world.drafted.own
    assert "0.12s" not in world.drafted.own
    state = (await world.journal()).state
    finished = state.steps[f"{COUNCIL}/draft/developer-001/act/1/tool/1"].finished
    assert finished is not None
    assert (finished.exit_code, finished.provenance.tree_out_digest, state.tree) == (1, None, before)


@pytest.mark.rule("GL-19", "RC-50", "PL-48")
@pytest.mark.parametrize("stored", [True, False], ids=["after", "before"])
async def test_owner_killed_at_any_append_comes_to_the_same_draft_and_pays_for_nothing_twice(stored: bool):
    outside = calling("files__read", path="/etc/passwd")
    script = (outside, READ, READ, NOTES)
    plain = await Bench(model_of(*script)).begin()
    await plain.draft()
    assert isinstance(plain.log, MortalLog)
    expected, appends = plain.drafted, plain.log.count
    assert appends >= 12
    for at in range(1, appends + 1):
        world = await Bench(model_of(*script), MortalLog(at=at, stored=stored)).begin()
        with pytest.raises(Crash):
            await world.draft()
        done = {name for name, step in (await world.journal()).state.steps.items() if step.finished}
        asked = len(world.agents.asked)
        assert (await world.draft()).value == DRAFT, at
        # A draft that was on record when the owner died is not asked for again; any other is the same request.
        assert world.drafted == expected, at
        again = {name.removeprefix("st-slug7/") for name in world.agents.asked[asked:]}
        assert not again & done, at
        calls = {call for _, call in world.tools.asked}
        assert len({key for key, _ in world.tools.asked}) == len(calls) == 1, at
        assert len(await world.of(ToolDenied)) == 1, at


async def test_draft_that_was_asked_for_before_the_role_looked_around_is_answered_from_its_record():
    world = await Bench(model_of(), is_acting=False).begin()
    first = await world.draft()
    world.policy = acting_policy("developer")
    assert await world.draft() == first
    assert len(world.agents.asked) == 1


async def test_history_is_that_of_the_repository_and_the_call_runs_for_the_language_of_the_project():
    world = await Bench(model_of(calling("git__log"), calling("tests__go_test"), NOTES), tools=GO_TOOLS).begin(GO)
    world.forge.add_repository("/srv/text", branches={"main": "0a" * 20})
    await world.draft()
    log, tests = world.tools.contexts
    assert (log.repository is None, tests.repository) == (False, None)
    assert (log.language, tests.language, tests.tree == tests.base_tree) == ("go", "go", True)


async def test_wrong_argument_that_only_the_tool_sees_is_told_as_it_says_it():
    world = await Bench(model_of(READ, NOTES)).begin()
    world.tools.failing = {"files.read": InvalidInput("line 9 is after the end")}
    await world.draft()
    assert isinstance(world.agents, Acted)
    assert "Not carried out: line 9 is after the end." in str(world.agents.acted[-1].turns)


async def test_tool_that_answers_in_no_time_is_asked_again_later():
    world = await Bench(model_of(READ, NOTES)).begin()
    world.tools.failing = {"files.read": TimeoutError()}
    with pytest.raises(ToolTimeout, match=r"files\.read gave no answer"):
        await world.draft()
    world.tools.failing = {"files.read": OwnershipLost("somebody else has it")}
    with pytest.raises(OwnershipLost):
        await world.draft()


async def test_call_that_was_started_and_is_refused_later_ends_as_refused():
    world = await Bench(model_of(READ, NOTES)).begin()
    world.tools.failing = {"files.read": SandboxUnavailable("no room")}
    with pytest.raises(SandboxUnavailable):
        await world.draft()
    found = world.policy.policy
    closed = {"id": "closed", "effect": "deny", "roles": ["*"], "calls": ["files.read"]}
    rules = (*found.rules, Rule.model_validate({**closed, "when": {"path": {"matches": ["text/*"]}}}))
    world.policy = dataclasses.replace(world.policy, policy=dataclasses.replace(found, rules=rules))
    await world.draft()
    assert [d.rule_id for d in await world.of(ToolDenied)] == ["closed"]


async def test_large_repository_is_listed_in_part():
    many = {f"text/f{number:03d}.py": b"x = 1\n" for number in range(120)}
    world = await Bench(model_of(NOTES)).begin(many)
    await world.draft()
    assert isinstance(world.agents, Acted)
    listed = world.agents.acted[0].own
    assert "text/f099.py\n... and 20 more" in listed
    assert "text/f100.py" not in listed


@pytest.mark.rule("RC-58")
async def test_another_call_than_the_recorded_one_gets_what_is_on_record():
    world = await Bench(model_of(READ, NOTES)).begin()
    await world.draft()
    bench = await world.bench()
    record = bench.state.councils[COUNCIL].opened
    seat = Seat(record.roster[0].principal, "developer")
    assert record.subject_digest is not None
    calls = ActingCalls(bench, Work(seat, "model", "act", task_id=TASK, council_id=COUNCIL), record.subject_digest)
    made = len(world.tools.asked)
    step = StepId(f"{COUNCIL}/draft/developer-001/act/1/tool/1")
    seen = await calls.call(step, ToolCall(tool="files", op="list"))
    assert "TABLE" in seen.text
    assert len(world.tools.asked) == made


@pytest.mark.rule("RC-58")
async def test_call_that_ended_nowhere_is_made_as_it_is_wanted_today():
    world = await Bench(model_of(READ, NOTES)).begin()
    world.tools.failing = {"files.read": SandboxUnavailable("no room")}
    with pytest.raises(SandboxUnavailable):
        await world.draft()
    bench = await world.bench()
    record = bench.state.councils[COUNCIL].opened
    assert record.subject_digest is not None
    seat = Seat(record.roster[0].principal, "developer")
    calls = ActingCalls(bench, Work(seat, "model", "act", task_id=TASK, council_id=COUNCIL), record.subject_digest)
    step = StepId(f"{COUNCIL}/draft/developer-001/act/1/tool/1")
    await calls.call(step, ToolCall(tool="files", op="list", args={"path": "."}))
    known = bench.state.steps[step]
    assert (known.attempt, known.started.op, known.finished is None) == (2, "list", False)


@pytest.mark.rule("RT-30", "MB-25")
async def test_used_up_budget_starts_no_call_of_an_agent_and_leaves_no_refusal_behind():
    world = await Bench(model_of(READ, NOTES)).begin()
    story = BudgetScope(kind="story", id=STORY)
    before = (await world.journal()).state.budgets.usage(story).totals(now_ms=0).used.calls
    world.budgeting = Budgeting(limits=Budgets(story=BudgetLimits(calls=before + 1, tokens=10**9)))
    with pytest.raises(BudgetExceeded, match="fleet budget set .* --calls N"):
        await world.draft()
    assert world.tools.asked == []
    assert (await world.types()).count("BudgetExhausted") == 1
    world.budgeting = Budgeting(limits=Budgets(story=BudgetLimits(tokens=10**9)))
    answer = await world.draft()
    assert (answer.value, await world.of(ToolDenied)) == (DRAFT, [])
    assert len(world.tools.asked) == 1
