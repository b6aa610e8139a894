"""Tool calls and runs within a story: decided by its owner, carried out beside its work, counted once (RC-56)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest

from fleet.desk.tools.desk import ToolDesk
from fleet.events.codec import decode
from fleet.events.report import OwnershipTaken
from fleet.events.step import StepFinished, StuckDetected, ToolDenied
from fleet.events.story import StoryCancelled, StoryParked, StoryTransitioned
from fleet.events.task import TaskClaimed, TaskClaimReleased
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import (
    AlreadyClaimed,
    ApprovalRequired,
    FleetError,
    IdempotencyMismatch,
    InvalidInput,
    InvalidTransition,
    NotFound,
    PolicyDenied,
    SandboxUnavailable,
    ToolTimeout,
    VersionConflict,
)
from fleet.kernel.ids import EntityId, Principal, StepId, StreamId
from fleet.log.memory import MemoryEventLog
from fleet.log.port import Command
from fleet.models.profiles import Budgets
from fleet.models.routing.budget import BudgetLimits
from fleet.owner.budgets import Budgeting
from fleet.owner.tools.tool_calls import ToolCalls, end_calls
from fleet.owner.workbench import Workbench
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.runs.spec import RunSpec
from fleet.sandbox.memory import ProgramEnd
from fleet.story.evolve.story import fold
from fleet.story.plan import plan
from fleet.story.snapshot import replay
from fleet.tools.memory import MemoryToolHost, MemoryToolSessions
from fleet.tools.port import ToolContext
from fleet.trees.tree import FileEntry, encode_tree
from tests.support.bench import PEOPLE, World
from tests.support.rules import fsm, step_policy
from tests.support.stores import eventually
from tests.support.story_events import STORY, T0, TASK, digest, story

STREAM = StreamId.of_story(STORY)
DEV, OPS = Principal("agent:developer-001"), Principal("agent:devops-001")
SESSION = EntityId("se-one1")
AFTER = digest("tree after the call")
_KEYS = count(1)


class Shop:
    """A story in BUILD whose first task the developer has claimed, and tools that do as they are told."""

    def __init__(self, log: MemoryEventLog | None = None) -> None:
        self.seen: list[ToolContext] = []
        self.hold: asyncio.Event | None = None
        self.fails: FleetError | None = None
        self.after = AFTER
        self.host = MemoryToolHost(
            dict.fromkeys(("files", "kubectl", "tests", "git"), self._tool), previews={"kubectl": self._preview}
        )
        self.tried: list[ToolContext] = []
        self.world = World(
            clock=MemoryClock(T0 + 600_000), tools=self.host, program=lambda _: ProgramEnd(stdout=b"ran")
        )

    async def _tool(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        self.seen.append(context)
        if self.hold is not None:
            await self.hold.wait()
        if self.fails is not None:
            raise self.fails
        tree = self.after if call.op == "write" else None
        return ToolOutcome(outcome="succeeded", text=f"{call.tool}.{call.op}", content=call.args, tree_out=tree)

    async def _preview(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        self.tried.append(context)
        if self.fails is not None:
            raise self.fails
        return ToolOutcome(outcome="succeeded", text=f"would {call.op}")

    async def open(self, *, holder: Principal = DEV) -> Workbench:
        log = story(until="planned")
        log.add(StoryTransitioned(from_="DESIGN", event="approve_design", to="BUILD"))
        log.task(TASK, "todo", "ASSIGN_TO_DEVELOPER", "implementing")
        log.add(TaskClaimed(task_id=TASK, state="implementing", principal=holder, expires_at=T0 + 7_200_000))
        await log.write_to(self.world.log)
        return await self.owner()

    async def owner(self) -> Workbench:
        """The workbench of the next owner."""
        lease = await self.world.leases.claim(STREAM, "council:0/a1", ttl_s=15)
        return await self.world.bench(epoch=lease.epoch)

    async def do(self, bench: Workbench, name: str, body: dict[str, Any], *, who: Principal = DEV) -> Any:
        command = Command(f"{who}/key-{next(_KEYS)}", STREAM, name, who, body)  # pyright: ignore[reportArgumentType]
        return await self.world.commands.handle(bench, command)

    async def call(self, bench: Workbench, tool: str, op: str, *, who: Principal = DEV, **more: Any) -> StepId:
        """The step of a call that was taken."""
        number = f"call{next(_KEYS):06d}"
        body = {
            "session_id": SESSION,
            "invocation": number,
            "as_role": "developer",
            "task_id": TASK,
            "epoch": bench.journal.epoch,
            "call": {"tool": tool, "op": op, "args": more.pop("args", {})},
            **more,
        }
        await self.do(bench, "invoke_tool", body, who=who)
        return StepId(f"tool/{body['session_id']}/{body['invocation']}")

    def outcome(self, bench: Workbench, step: str) -> StepFinished:
        finished = bench.state.steps[step].finished
        assert finished is not None
        return finished

    async def kinds(self) -> list[str]:
        return await self.world.types()


@asynccontextmanager
async def carried_out(bench: Workbench) -> AsyncIterator[ToolCalls]:
    """What is due is being carried out until the end of the block."""
    calls = ToolCalls(bench)
    calls.look()
    try:
        yield calls
    finally:
        await calls.close()


async def finished(bench: Workbench, step: str) -> StepFinished:
    assert await eventually(lambda: bench.state.steps[step].finished is not None, within_s=60)
    found = bench.state.steps[step].finished
    assert found is not None
    return found


WRITE = {"path": "a.py", "content": "x = 1\n"}


@pytest.mark.rule("RC-55", "RT-31", "RT-33")
async def test_call_is_on_record_before_it_starts_and_its_outcome_after_it_ended():
    shop = Shop()
    bench = await shop.open()
    step = await shop.call(bench, "files", "write", args=WRITE)
    started = bench.state.steps[step].started
    assert (shop.seen, started.effect, started.policy.digest) == ([], "KEYED", step_policy().policy.digest)
    assert json.loads(await bench.blobs.get(started.request_digest))["args"] == WRITE
    async with carried_out(bench):
        result = await finished(bench, step)
    assert (result.outcome, result.provenance.tree_out_digest) == ("succeeded", AFTER)
    assert result.excerpt == "files.write"
    (context,) = shop.seen
    assert (context.key, context.tree, context.task_id) == (started.key, bench.state.tree, TASK)
    assert ToolOutcome.model_validate_json(await bench.blobs.get(result.result_digest)).tree_out == AFTER


@pytest.mark.rule("RT-68")
async def test_next_call_of_a_session_begins_with_the_tree_that_the_last_one_left():
    shop = Shop()
    bench = await shop.open()
    async with carried_out(bench) as calls:
        first = await shop.call(bench, "files", "write", args=WRITE)
        calls.look()
        await finished(bench, first)
        second = await shop.call(bench, "files", "read", args={"path": "a.py"})
        calls.look()
        await finished(bench, second)
    assert [c.tree for c in shop.seen] == [bench.state.tree, AFTER]
    assert shop.seen[1].base_tree == bench.state.tree


@pytest.mark.rule("RC-41")
@pytest.mark.parametrize(("file", "language"), [("go.mod", "go"), ("Cargo.toml", "rust"), ("setup.py", "python")])
async def test_call_knows_the_language_of_its_workspace(file: str, language: str):
    shop = Shop()
    bench = await shop.open()
    shop.after = await bench.blobs.put(encode_tree({file: FileEntry("100644", digest("content"))}))
    async with carried_out(bench) as calls:
        for tool, op, args in (("files", "write", WRITE), ("tests", "make_test", {})):
            step = await shop.call(bench, tool, op, args=args)
            calls.look()
            await finished(bench, step)
    assert [c.language for c in shop.seen] == ["python", language]


@pytest.mark.rule("RT-62")
@pytest.mark.parametrize(("clusters", "environment"), [((), None), (("live",), "live"), (("live", "staging"), None)])
async def test_call_is_about_the_one_environment_that_the_policy_knows(
    clusters: tuple[str, ...], environment: str | None
):
    shop = Shop()
    shop.world.policy = step_policy(clusters=clusters)
    bench = await shop.open()
    step = await shop.call(bench, "files", "read", args={"path": "a.py"})
    async with carried_out(bench):
        await finished(bench, step)
    assert [c.environment for c in shop.seen] == [environment]


@pytest.mark.rule("RT-31")
@pytest.mark.parametrize(
    ("tool", "op", "more", "rule"),
    [
        ("files", "delete", {"args": {"path": "../x"}}, "path_outside"),
        ("files", "write", {"args": WRITE, "task_id": None}, "not_claimed"),
        ("files", "write", {"args": WRITE, "is_read_only": True}, "read_only"),
        ("files", "write", {"args": WRITE, "as_role": "devops"}, "role_not_held"),
        ("kubectl", "get", {"args": {"namespace": "a", "kind": "pod"}}, "op_not_granted"),
        ("files", "read", {"args": {"path": "a.py"}, "epoch": 0}, "epoch_stale"),
    ],
)
async def test_refused_call_is_on_record_and_never_starts(tool: str, op: str, more: dict[str, Any], rule: str):
    shop = Shop()
    bench = await shop.open()
    with pytest.raises(PolicyDenied) as refused:
        await shop.call(bench, tool, op, **more)
    assert refused.value.details["rule_id"] == rule
    denied = decode((await shop.world.events())[-1])
    assert isinstance(denied, ToolDenied)
    assert (denied.rule_id, denied.principal, denied.tool, denied.op) == (rule, DEV, tool, op)
    assert not [s for s in bench.state.steps if s.startswith("tool/")]


@pytest.mark.rule("RT-30", "MB-25")
async def test_used_up_budget_refuses_calls_and_runs_until_it_is_raised():
    shop = Shop()
    bench = await shop.open()
    spent = sum(step.finished.cost.tokens_in for step in bench.state.steps.values() if step.finished)
    shop.world.budgeting = Budgeting(limits=Budgets(story=BudgetLimits(tokens=max(1, spent) // 2)))
    bench = await shop.owner()
    assert spent, "the story has called a model"
    spec = {"argv": ["ls"], "tree": bench.state.tree}
    run = {"run_id": "ru-one1", "as_role": "developer", "task_id": TASK, "spec": spec}
    for ask in (
        shop.call(bench, "files", "read", args={"path": "a.py"}),
        shop.call(bench, "files", "write", args=WRITE),
        shop.do(bench, "start_run", run),
    ):
        with pytest.raises(PolicyDenied, match="story budget .* is used up .* raise the budget") as refused:
            await ask
        assert refused.value.details["rule_id"] == "budget_exceeded"
    assert not [s for s in bench.state.steps if s.startswith(("tool/", "run/"))]
    shop.world.budgeting = Budgeting(limits=Budgets(story=BudgetLimits(tokens=10**9)))
    bench = await shop.owner()
    step = await shop.call(bench, "files", "write", args=WRITE)
    async with carried_out(bench):
        await finished(bench, step)


@pytest.mark.rule("RT-67", "MB-40")
async def test_call_that_is_refused_three_times_makes_its_task_stuck_and_says_so():
    shop = Shop()
    bench = await shop.open()
    said: list[str] = []
    for _ in range(4):
        with pytest.raises(PolicyDenied) as refused:
            await shop.call(bench, "files", "delete", args={"path": "../x"})
        said.append(refused.value.message)
    assert ["do something else" in text for text in said] == [False, False, True, False]
    found = [decode(e) for e in await shop.world.events() if e.type == "StuckDetected"]
    assert [(p.task_id, p.pattern) for p in found if isinstance(p, StuckDetected)] == [(TASK, "repeated_denial")]


async def test_parked_and_closed_stories_take_no_calls():
    shop = Shop()
    bench = await shop.open()
    await bench.journal.record("park/1", StoryParked(cause="stuck", detail="nothing moves"))
    with pytest.raises(PolicyDenied, match="parked"):
        await shop.call(bench, "files", "read", args={"path": "a.py"})
    await bench.journal.record("cancel/1", StoryCancelled(reason="nobody wants it"))
    before = await shop.kinds()
    with pytest.raises(PolicyDenied, match="cancelled"):
        await shop.call(bench, "files", "read", args={"path": "a.py"})
    assert await shop.kinds() == before


async def test_call_of_another_principals_session_and_a_used_invocation_are_refused():
    shop = Shop()
    bench = await shop.open()
    await shop.call(bench, "files", "read", args={"path": "a.py"}, invocation="call00000a")
    with pytest.raises(IdempotencyMismatch):
        await shop.call(bench, "files", "read", args={"path": "b.py"}, invocation="call00000a")
    with pytest.raises(PolicyDenied) as refused:
        await shop.call(bench, "files", "read", who=OPS, as_role="devops", args={"path": "a.py"})
    assert refused.value.details["rule_id"] == "session_not_own"
    await shop.call(bench, "files", "write", args=WRITE)
    with pytest.raises(AlreadyClaimed):
        await shop.call(bench, "files", "write", args=WRITE)
    with pytest.raises(InvalidInput):
        await shop.call(bench, "files", "write", args=WRITE, approved=True)


@pytest.mark.rule("RC-50", "RC-51", "RC-56")
@pytest.mark.parametrize(("tool", "op", "args"), [("files", "read", {"path": "a.py"}), ("files", "write", WRITE)])
async def test_pure_and_keyed_calls_of_a_dead_owner_are_made_again_under_their_key(
    tool: str, op: str, args: dict[str, Any]
):
    shop = Shop()
    bench = await shop.open()
    step = await shop.call(bench, tool, op, args=args)
    shop.hold = asyncio.Event()
    async with carried_out(bench):
        assert await eventually(lambda: len(shop.seen) == 1, within_s=60)
    assert bench.state.steps[step].finished is None
    shop.hold.set()
    heir = await shop.owner()
    async with carried_out(heir):
        assert (await finished(heir, step)).outcome == "succeeded"
    assert {c.key for c in shop.seen} == {heir.state.steps[step].started.key}
    assert (await shop.kinds()).count("StepFinished") == (await shop.kinds()).count("StepStarted")


async def approved_call(shop: Shop, bench: Workbench) -> StepId:
    """An UNSAFE call that a person said yes to."""
    args = {"namespace": "web", "kind": "deployment", "name": "front", "replicas": 2}
    more = {"who": OPS, "as_role": "devops", "args": args, "session_id": "se-ops1"}
    with pytest.raises(ApprovalRequired) as asked:
        await shop.call(bench, "kubectl", "scale", **more)
    body = {"gate": asked.value.details["approval_id"]}
    await shop.do(bench, "approve", body, who=Principal("user:root"))
    return await shop.call(bench, "kubectl", "scale", **more)


@pytest.mark.rule("RC-52", "RC-56")
async def test_unsafe_call_of_a_dead_owner_is_never_repeated_and_waits_for_a_person(unsafe_shop: Shop):
    shop = unsafe_shop
    bench = await shop.open(holder=OPS)
    step = await approved_call(shop, bench)
    shop.hold = asyncio.Event()
    async with carried_out(bench):
        assert await eventually(lambda: len(shop.seen) == 1, within_s=60)
    heir = await shop.owner()
    async with carried_out(heir) as calls:
        assert await eventually(lambda: heir.state.disposition == "parked", within_s=60)
        assert heir.state.park is not None
        assert heir.state.park.cause == "outcome_unknown"
        assert heir.state.unresolved_steps == (step,)
        body = {"step_id": step, "outcome": "not_happened", "note": "looked at the cluster"}
        await shop.do(heir, "resolve_step", body, who=Principal("user:root"))
        calls.look()
        assert (await finished(heir, step)).outcome == "failed"
    assert len(shop.seen) == 1


@pytest.mark.rule("RC-52")
async def test_unsafe_call_that_ends_in_an_error_is_unknown_and_one_that_was_refused_is_not(unsafe_shop: Shop):
    shop = unsafe_shop
    bench = await shop.open(holder=OPS)
    shop.fails = ToolTimeout("no answer")
    step = await approved_call(shop, bench)
    async with carried_out(bench):
        assert await eventually(lambda: bench.state.steps[step].is_unresolved, within_s=60)
    assert bench.state.disposition == "parked"
    body = {"step_id": step, "outcome": "happened", "note": "it has two replicas"}
    await shop.do(bench, "resolve_step", body, who=Principal("user:root"))
    await shop.do(bench, "unpark", {"note": "go on with the rest"}, who=Principal("user:root"))
    shop.fails = PolicyDenied("a link leads outside", rule_id="path_outside")
    again = await approved_call(shop, bench)
    async with carried_out(bench):
        assert (await finished(bench, again)).outcome == "denied"
    assert (await shop.kinds())[-1] == "ToolDenied"
    assert bench.state.disposition == "active"


@pytest.mark.rule("LC-71", "RT-32", "RT-33", "RT-34")
async def test_approval_is_asked_for_once_per_request_and_used_up_by_one_call(unsafe_shop: Shop):
    shop = unsafe_shop
    bench = await shop.open(holder=OPS)
    args = {"namespace": "web", "kind": "deployment", "name": "front", "replicas": 2}
    more = {"who": OPS, "as_role": "devops", "session_id": "se-ops1"}
    ids: list[str] = []
    for _ in range(2):
        with pytest.raises(ApprovalRequired) as asked:
            await shop.call(bench, "kubectl", "scale", args=args, **more)
        ids.append(asked.value.details["approval_id"])
    assert ids[0] == ids[1]
    request = bench.state.approvals[ids[0]].request
    assert (request.gate, request.role, request.requested_by) == ("tool:kubectl.scale", "devops", OPS)
    card = json.loads(await bench.blobs.get(request.card_digest))
    assert (card["call"]["args"], card["risk"]) == (args, "high")
    assert (card["call"]["preview"]["outcome"], card["call"]["preview"]["text"]) == ("succeeded", "would scale")
    assert [(c.role, c.obligations.effect, c.obligations.consumes) for c in shop.tried] == [("devops", "PURE", None)]
    assert shop.seen == []
    with pytest.raises(PolicyDenied):
        await shop.do(bench, "approve", {"gate": "tool:kubectl.scale"}, who=Principal("user:ana"))
    await shop.do(bench, "approve", {"gate": "tool:kubectl.scale"}, who=Principal("user:root"))
    with pytest.raises(ApprovalRequired):
        await shop.call(bench, "kubectl", "scale", args={**args, "replicas": 3}, **more)
    step = await shop.call(bench, "kubectl", "scale", args=args, **more)
    assert bench.state.steps[step].started.approval_id == ids[0]
    with pytest.raises(VersionConflict):
        await shop.do(bench, "revoke", {"gate": ids[0], "reason": "changed my mind"}, who=Principal("user:root"))


@pytest.mark.rule("RT-62")
async def test_call_that_cannot_be_tried_is_asked_for_all_the_same_and_its_card_says_why(unsafe_shop: Shop):
    shop = unsafe_shop
    bench = await shop.open(holder=OPS)
    shop.fails = SandboxUnavailable("the cluster does not answer")
    args = {"namespace": "web", "kind": "deployment", "name": "front", "replicas": 2}
    with pytest.raises(ApprovalRequired) as asked:
        await shop.call(bench, "kubectl", "scale", args=args, who=OPS, as_role="devops", session_id="se-ops1")
    request = bench.state.approvals[asked.value.details["approval_id"]].request
    shown = json.loads(await bench.blobs.get(request.card_digest))["call"]["preview"]
    assert (shown["outcome"], shown["code"]) == ("unknown", "sandbox_unavailable")
    assert "does not answer" in shown["text"]


@pytest.mark.rule("LC-71", "LC-73", "LC-74")
async def test_rejected_expired_and_revoked_approvals_open_nothing(unsafe_shop: Shop):
    shop = unsafe_shop
    bench = await shop.open(holder=OPS)
    root = Principal("user:root")

    async def ask(replicas: int) -> str:
        args = {"namespace": "web", "kind": "deployment", "name": "front", "replicas": replicas}
        with pytest.raises(ApprovalRequired) as asked:
            await shop.call(bench, "kubectl", "scale", who=OPS, as_role="devops", session_id="se-o1", args=args)
        return asked.value.details["approval_id"]

    rejected, revoked, expired = await ask(1), await ask(2), await ask(3)
    with pytest.raises(InvalidInput, match="name the one you mean"):
        await shop.do(bench, "approve", {"gate": "tool:kubectl.scale"}, who=root)
    await shop.do(bench, "reject", {"gate": rejected, "reason": "not before Monday"}, who=root)
    args = {"namespace": "web", "kind": "deployment", "name": "front", "replicas": 1}
    with pytest.raises(PolicyDenied) as refused:
        await shop.call(bench, "kubectl", "scale", who=OPS, as_role="devops", session_id="se-o1", args=args)
    assert refused.value.details["rule_id"] == "approval_rejected"
    await shop.do(bench, "approve", {"gate": revoked}, who=root)
    await shop.do(bench, "revoke", {"gate": revoked, "reason": "changed my mind"}, who=root)
    assert await ask(2) != revoked
    with pytest.raises(NotFound):
        await shop.do(bench, "revoke", {"gate": "ap-none", "reason": "changed my mind"}, who=root)
    assert isinstance(shop.world.clock, MemoryClock)
    shop.world.clock.advance(3601)
    with pytest.raises(VersionConflict, match="expired"):
        await shop.do(bench, "approve", {"gate": expired}, who=root)
    again = await ask(3)
    assert bench.state.approvals[expired].status == "expired"
    assert bench.state.approvals[again].request.attempt == 2


async def test_person_who_asked_for_a_call_does_not_approve_it(unsafe_shop: Shop):
    shop, root = unsafe_shop, Principal("user:root")
    bench = await shop.open(holder=root)
    args = {"namespace": "web", "kind": "deployment", "name": "front", "replicas": 2}
    with pytest.raises(ApprovalRequired) as asked:
        await shop.call(bench, "kubectl", "scale", who=root, as_role="devops", session_id="se-r1", args=args)
    with pytest.raises(PolicyDenied) as refused:
        await shop.do(bench, "approve", {"gate": asked.value.details["approval_id"]}, who=root)
    assert refused.value.details["rule_id"] == "requester_is_approver"
    assert plan(bench.state, fsm(), now_ms=bench.now_ms)  # it holds up nothing but itself


def run_body(**changes: Any) -> dict[str, Any]:
    spec = RunSpec(argv=("pytest", "-q"), tree=changes.pop("tree", None), **changes)
    return {"run_id": "rn-one1", "as_role": "developer", "task_id": TASK, "spec": spec.model_dump(mode="json")}


@pytest.mark.rule("RC-20", "RC-51")
async def test_run_leaves_an_intent_before_it_starts_and_a_result_after_it():
    shop = Shop()
    bench = await shop.open()
    await shop.do(bench, "start_run", run_body())
    step = bench.state.steps["run/rn-one1"]
    assert (step.started.kind, step.started.effect, step.finished) == ("run", "KEYED", None)
    spec = RunSpec.model_validate_json(await bench.blobs.get(step.started.request_digest))
    assert (spec.digest, spec.grantee and spec.grantee.role) == (step.started.request_digest, "developer")
    heir = await shop.owner()
    async with carried_out(heir):
        assert (await finished(heir, "run/rn-one1")).excerpt == "ran"


@pytest.mark.rule("RC-24")
async def test_cancelled_run_has_that_result_at_once_and_its_processes_end():
    shop = Shop()
    began, never = asyncio.Event(), asyncio.Event()

    async def program(_: object) -> ProgramEnd:
        began.set()
        await never.wait()
        return ProgramEnd()

    shop.world = World(clock=MemoryClock(T0 + 600_000), tools=shop.host, program=program)
    bench = await shop.open()
    await shop.do(bench, "start_run", run_body())
    async with carried_out(bench) as calls:
        await asyncio.wait_for(began.wait(), 60)
        await shop.do(bench, "cancel_run", {"run_id": "rn-one1"})
        assert shop.outcome(bench, "run/rn-one1").outcome == "cancelled"
        calls.look()
        key = bench.state.steps["run/rn-one1"].started.key
        assert await eventually(lambda: _is_over(shop, key), within_s=60)
    with pytest.raises(InvalidTransition):
        await shop.do(bench, "cancel_run", {"run_id": "rn-one1"})
    with pytest.raises(NotFound):
        await shop.do(bench, "cancel_run", {"run_id": "rn-two2"})


async def _is_over(shop: Shop, key: Any) -> bool:
    return (await shop.world.sandbox.progress(key)).status == "cancelled"


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"limits": {"overall_s": 14_400}}, "argument_invalid"),
        ({"tree": digest("of another story")}, "tree_unknown"),
        ({"hosts": ("example.org",)}, "target_not_listed"),
        ({"mounts": ({"kind": "repo", "repo": "0" * 64},)}, "mount_not_granted"),
    ],
)
async def test_run_that_asks_for_more_than_its_command_may_have_is_refused(changes: dict[str, Any], rule: str):
    shop = Shop()
    bench = await shop.open()
    with pytest.raises(PolicyDenied) as refused:
        await shop.do(bench, "start_run", run_body(**changes))
    assert refused.value.details["rule_id"] == rule
    with pytest.raises(InvalidInput, match="grantee"):
        await shop.do(bench, "start_run", run_body(grantee={"role": "po", "tool": "exec", "op": "run"}))


async def test_story_that_is_cancelled_leaves_no_call_open(unsafe_shop: Shop):
    shop = unsafe_shop
    bench = await shop.open(holder=OPS)
    unsafe = await approved_call(shop, bench)
    read = await shop.call(bench, "files", "read", who=OPS, as_role="devops", session_id="se-x", args={"path": "a"})
    body = run_body()
    await shop.do(bench, "start_run", {**body, "as_role": "devops", "spec": {"argv": ["make", "x"]}}, who=OPS)
    await shop.do(bench, "cancel", {"reason": "nobody wants it"}, who=Principal("user:ana"))
    assert shop.outcome(bench, read).outcome == "cancelled"
    assert shop.outcome(bench, "run/rn-one1").outcome == "cancelled"
    assert bench.state.steps[unsafe].unknown is not None
    before = await shop.kinds()
    await end_calls(bench)
    assert await shop.kinds() == before


async def test_claim_is_that_of_one_principal_with_the_role_of_the_task():
    shop = Shop()
    bench = await shop.open()
    body = {"task_id": TASK, "as_role": "developer"}
    with pytest.raises(AlreadyClaimed):
        await shop.do(bench, "claim_task", body, who=Principal("user:dev"))
    with pytest.raises(PolicyDenied):
        await shop.do(bench, "claim_task", body, who=Principal("user:ana"))
    with pytest.raises(NotFound):
        await shop.do(bench, "claim_task", {**body, "task_id": "tk-none"}, who=Principal("user:dev"))
    await bench.journal.record("free/1", TaskClaimReleased(task_id=TASK, principal=DEV, reason="released"))
    await shop.do(bench, "claim_task", body, who=Principal("user:dev"))
    claim = bench.state.tasks[TASK].claim
    assert claim is not None
    assert claim.principal == "user:dev"
    await bench.journal.record("done/1", StoryParked(cause="stuck", detail="x"))
    other = next(t for t in bench.state.tasks if t != TASK)
    with pytest.raises(PolicyDenied):
        await shop.do(bench, "claim_task", {**body, "task_id": other}, who=Principal("user:dev"))


async def test_shard_without_tools_says_so():
    shop = Shop()
    bench = await shop.open()
    shop.world.tools = None
    with pytest.raises(SandboxUnavailable):
        await shop.call(await shop.owner(), "files", "read", args={"path": "a.py"})
    assert bench.tools is not None


@pytest.mark.rule("PL-48")
async def test_history_with_calls_replays_to_the_same_digests(unsafe_shop: Shop):
    shop = unsafe_shop
    bench = await shop.open(holder=OPS)
    step = await approved_call(shop, bench)
    async with carried_out(bench):
        await finished(bench, step)
    events = await shop.world.events()
    assert fold(events) == bench.state
    assert fold(events[40:], fold(events[:40])) == bench.state
    assert list(replay(events, fsm()))[-1].version == bench.state.version


@pytest.fixture
def unsafe_shop() -> Shop:
    """A shop whose policy lists a namespace, so that UNSAFE calls are possible."""
    shop = Shop()
    shop.world.policy = step_policy(namespaces=(f"{None}/web",))
    return shop


def desk_of(shop: Shop) -> ToolDesk:
    world = shop.world
    return ToolDesk(
        planning=world.desk,
        sessions=MemoryToolSessions(world.clock),
        blobs=world.blobs,
        sandbox=world.sandbox,
        clock=world.clock,
        policy=world.policy.policy,
        roles_of=lambda p: PEOPLE.get(p, frozenset()),
    )


@asynccontextmanager
async def served(shop: Shop, bench: Workbench) -> AsyncIterator[ToolCalls]:
    """Commands are answered, and calls carried out."""
    calls = ToolCalls(bench)

    async def serve() -> None:
        from fleet.log.port import Answer

        while True:
            for delivery in await shop.world.inbox.take("council:0/a1", timeout_s=60):
                try:
                    answer = Answer(ok=True, result=await shop.world.commands.handle(bench, delivery.command))
                except FleetError as error:
                    answer = Answer(ok=False, problem=error.to_wire())
                await shop.world.inbox.acknowledge(delivery, answer)
                calls.look()

    async def turn() -> None:
        assert isinstance(shop.world.clock, MemoryClock)
        while True:
            await asyncio.sleep(0.001)
            shop.world.clock.advance(0.05)

    tasks = [asyncio.create_task(serve()), asyncio.create_task(turn())]
    try:
        yield calls
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await calls.close()


@pytest.mark.rule("RT-68", "RT-35")
async def test_desk_takes_calls_of_a_session_and_reads_what_came_of_them():
    shop = Shop()
    bench = await shop.open()
    # The desk folds the epoch from the log, as the shard records it.
    await bench.journal.record(
        "own/1", OwnershipTaken(epoch=bench.journal.epoch, previous_epoch=0, owner="council:0/a1", cause="restart")
    )
    desk = desk_of(shop)
    session = await desk.open_session(STORY, principal=DEV, as_role="developer", task_id=TASK, key="k1")
    assert session == await desk.open_session(STORY, principal=DEV, as_role="developer", task_id=TASK, key="k1")
    names = [c.name for c in await desk.tools(session.session_id, principal=DEV)]
    assert "files.write" in names
    assert "kubectl.get" not in names
    with pytest.raises(PolicyDenied):
        await desk.open_session(STORY, principal=DEV, as_role="po", key="k2")
    with pytest.raises(NotFound):
        await desk.open_session(STORY, principal=DEV, as_role="developer", task_id=EntityId("tk-none"), key="k3")
    with pytest.raises(NotFound):
        await desk.tools(session.session_id, principal=OPS)
    async with served(shop, bench):
        call = ToolCall(tool="files", op="write", args=WRITE)
        found = await desk.invoke(session.session_id, call, principal=DEV, key="c1")
        assert found.status == "finished"
        assert found.outcome is not None
        assert found.outcome.tree_out == AFTER
        bad = ToolCall(tool="files", op="write", args={"path": "../x", "content": ""})
        with pytest.raises(PolicyDenied):
            await desk.invoke(session.session_id, bad, principal=DEV, key="c2")
        with pytest.raises(NotFound):
            await desk.read_invocation(STORY, found.step_id, principal=OPS)
        shop.fails = PolicyDenied("a link leads outside", rule_id="path_outside")
        failed = await desk.invoke(session.session_id, call, principal=DEV, key="c3")
        assert isinstance(failed.error, PolicyDenied)
        run = await desk.submit_run(
            STORY, RunSpec(argv=("pytest",)), principal=DEV, as_role="developer", task_id=TASK, key="r1"
        )
        run = await desk.read_run(STORY, run.run_id, principal=DEV, wait_s=20)
        assert run.result is not None
        assert run.result.status == "passed"
        assert (await desk.run_logs(STORY, run.run_id, principal=DEV)).is_over in (True, False)
        with pytest.raises(InvalidTransition):
            await desk.cancel_run(STORY, run.run_id, principal=DEV)
        await desk.close_session(session.session_id, principal=DEV)
        with pytest.raises(NotFound):
            await desk.session(session.session_id, principal=DEV)
