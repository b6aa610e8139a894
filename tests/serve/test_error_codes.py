"""The closed list of error codes: one row for each, and each truly comes out of the front (AP-20..AP-46)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fleet.config.files import ConfigFiles
from fleet.config.settings import ServeSettings
from fleet.desk.planning import PlanningDesk
from fleet.events.approval import ApprovalRequested, Subject
from fleet.events.codec import decode
from fleet.events.council import CouncilUndecided
from fleet.events.decision import DecisionAccepted
from fleet.events.envelope import NewEvent
from fleet.events.step import PolicyRef, Reserve, StepOutcomeUnknown, StepResolved, StepStarted
from fleet.events.story import (
    AcceptanceCriterion,
    StoryCancelled,
    StoryParked,
    StoryPaused,
    StoryResumed,
    StoryUnparked,
)
from fleet.events.task import TaskTransitioned
from fleet.kernel import errors
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ConfigError, FleetError, NondeterministicPlan, StoreFull, all_error_classes
from fleet.kernel.ids import CommandId, EntityId, Principal, RunKey, StepId, StreamId
from fleet.log.memory import MemoryInbox
from fleet.log.port import Answer, AppendRequest, Command
from fleet.owner.shard import CouncilShard
from serve_apps.problems import problem_response
from serve_apps.routes.gateway import build_gateway
from tests.support.bench import World
from tests.support.front import front_parts
from tests.support.rules import files, fsm
from tests.support.story_events import (
    DESIGN_COUNCIL,
    STORY,
    SYSTEM,
    T0,
    TASK,
    StoryLog,
    created_payload,
    decision_payload,
    digest,
    open_council,
    story,
)
from tests.support.tool_front import ARCHIE, DEV, QUINN, REGISTRY, ROOT, keyed, tool_front

URL = f"/api/planner/stories/{STORY}"
STREAM = StreamId.of_story(STORY)
ANA = {"Authorization": "Bearer ana-token"}
STEP = StepId("deploy/1")

# Rule, class, code, HTTP status, retry: api.md section 2.
ROWS = [
    ("AP-20", "MalformedRequest", "malformed_request", 400, "never"),
    ("AP-21", "IdempotencyKeyRequired", "idempotency_key_required", 400, "never"),
    ("AP-22", "Unauthenticated", "unauthenticated", 401, "never"),
    ("AP-23", "PolicyDenied", "policy_denied", 403, "never"),
    ("AP-24", "ApprovalRequired", "approval_required", 403, "later"),
    ("AP-25", "NotFound", "not_found", 404, "never"),
    ("AP-25", "StoryNotFound", "not_found", 404, "never"),
    ("AP-25", "ArtifactNotFound", "not_found", 404, "never"),
    ("AP-26", "InvalidTransition", "invalid_transition", 409, "reload"),
    ("AP-27", "GateClosed", "gate_closed", 409, "reload"),
    ("AP-28", "AlreadyClaimed", "already_claimed", 409, "later"),
    ("AP-29", "VersionConflict", "version_conflict", 409, "reload"),
    ("AP-30", "QuorumNotReached", "quorum_not_reached", 409, "never"),
    ("AP-31", "BudgetExceeded", "budget_exceeded", 409, "never"),
    ("AP-32", "OutcomeUnknown", "outcome_unknown", 409, "never"),
    ("AP-33", "PreconditionFailed", "precondition_failed", 412, "reload"),
    ("AP-34", "PayloadTooLarge", "payload_too_large", 413, "never"),
    ("AP-35", "UnsupportedMediaType", "unsupported_media_type", 415, "never"),
    ("AP-36", "InvalidInput", "invalid_input", 422, "never"),
    ("AP-37", "IdempotencyMismatch", "idempotency_mismatch", 422, "never"),
    ("AP-38", "ContextTooLarge", "context_too_large", 422, "never"),
    ("AP-39", "PreconditionRequired", "precondition_required", 428, "reload"),
    ("AP-40", "RateLimited", "rate_limited", 429, "later"),
    ("AP-41", "LogCorrupted", "log_corrupted", 500, "never"),
    ("AP-41", "LogRegressed", "log_regressed", 500, "never"),
    ("AP-41", "UnsupportedSchema", "unsupported_schema", 500, "never"),
    ("AP-41", "NondeterministicPlan", "nondeterministic_plan", 500, "never"),
    ("AP-42", "ReplyMalformed", "reply_malformed", 502, "never"),
    ("AP-42", "ReplyRefused", "reply_refused", 502, "never"),
    ("AP-42", "ToolFailed", "tool_failed", 502, "never"),
    ("AP-43", "StoreUnavailable", "store_unavailable", 503, "later"),
    ("AP-43", "CommitUnknown", "commit_unknown", 503, "later"),
    ("AP-43", "LeaseHeld", "lease_held", 503, "later"),
    ("AP-43", "OwnershipLost", "ownership_lost", 503, "later"),
    ("AP-43", "SandboxUnavailable", "sandbox_unavailable", 503, "later"),
    ("AP-43", "ModelUnavailable", "model_unavailable", 503, "later"),
    ("AP-44", "ToolTimeout", "tool_timeout", 504, "later"),
    ("AP-44", "ModelTimeout", "model_timeout", 504, "later"),
    ("AP-45", "StoreFull", "store_full", 507, "later"),
]


@pytest.mark.parametrize(
    ("name", "code", "status", "retry"), [pytest.param(*row[1:], marks=pytest.mark.rule(row[0])) for row in ROWS]
)
def test_error_has_the_row_of_the_catalogue(name: str, code: str, status: int, retry: str):
    error: FleetError = getattr(errors, name)("it is so")
    response = problem_response(error, instance="/api/x")
    assert (error.code, error.retry.value, response.status_code) == (code, retry, status)
    # Only what may come again says when; after that of a 401 a client knows how to ask.
    assert ("retry-after" in response.headers) is (retry == "later")
    assert ("www-authenticate" in response.headers) is (status == 401)


@pytest.mark.rule("AP-47")
def test_catalogue_is_closed():
    branches = {"FleetError", "DomainError", "OwnershipError", "ConflictError", "StoreError", "StepError", "ModelError"}
    known = {row[1] for row in ROWS} | branches | {"EdgeError", "ConfigError"}
    assert {cls.__name__ for cls in all_error_classes() if cls.__module__ == errors.__name__} == known


@pytest.mark.rule("AP-46", "GL-22")
def test_wrong_configuration_stops_the_start_of_the_front_and_is_no_answer_of_it(tmp_path: Path):
    given = files().document("serve.yaml") | {"colour": "red"}
    (tmp_path / "serve.yaml").write_text("\n".join(f"{name}: {value!r}" for name, value in given.items()))
    with pytest.raises(ConfigError, match=r"serve\.yaml.*colour"):
        ConfigFiles(tmp_path).load("serve.yaml", ServeSettings)


@dataclass
class Front:
    """A client of the front, over the world's stores."""

    world: World
    client: httpx2.AsyncClient

    async def post(self, path: str, body: Any, *, number: int = 1, who: dict[str, str] = ROOT) -> httpx2.Response:
        """A request that changes something."""
        return await self.client.post(path, json=body, headers=keyed(number, who))

    async def answers(self, error: FleetError) -> None:
        """The owner answers the next command with this error."""
        (delivery,) = await self.world.inbox.take("council:0/a1", timeout_s=60)
        await self.world.inbox.acknowledge(delivery, Answer(ok=False, problem=error.to_wire()))


@asynccontextmanager
async def _front(
    log: StoryLog | None = None, *, with_owner: bool = True, inbox: MemoryInbox | None = None
) -> AsyncGenerator[Front]:
    """The front over this story; with an owner, one shard answers its commands."""
    world = World(clock=SystemClock())
    if log is not None:
        await log.write_to(world.log)
    if inbox is not None:
        world.desk = PlanningDesk(log=world.log, inbox=inbox, feed=world.feed, clock=world.clock, fsm=fsm())
    settings = files().load("serve.yaml", ServeSettings)
    app = build_gateway(world.desk, REGISTRY, settings, parts=front_parts(world))
    shard = CouncilShard(
        name="council:0",
        incarnation="a1",
        log=world.log,
        leases=world.leases,
        inbox=world.inbox,
        clock=world.clock,
        make_bench=world.bench,
        commands=world.commands,
    )
    task = asyncio.create_task(shard.run()) if with_owner else None
    try:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client:
            yield Front(world, client)
    finally:
        if task is not None:
            await shard.drain()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _refused(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    return response.json()


@pytest.mark.rule("AP-28", "LC-130")
async def test_task_that_somebody_reviews_is_claimed_already():
    async with tool_front() as at:
        step: dict[str, Any] = {"task_id": TASK, "actor_type": "agent", "principal": "agent:developer-001"}
        await at.record(
            StoryPaused(scope="story", by=Principal("user:ana"), reason="I look first"),
            TaskTransitioned(
                **step, from_="implementing", action="COMMIT_CODE", to="dev_completed", as_role="developer"
            ),
            TaskTransitioned(
                **step,
                from_="dev_completed",
                action="AUTO_ROUTE_TO_ARCHITECT",
                to="pending_arch_review",
                as_role="system",
            ),
        )
        # The owner learns of what somebody else recorded when it writes.
        await at.client.post(f"{URL}/questions", json={"text": "Which alphabet?"}, headers=keyed(1, ROOT))
        path, body = f"{URL}/tasks/{TASK}/actions", {"action": "CLAIM_REVIEW"}
        assert (await at.client.post(path, json=body, headers=keyed(2, ROOT))).status_code == 200
        taken = await at.client.post(path, json={"action": "APPROVE_DESIGN"}, headers=keyed(3, ARCHIE))
        found = _refused(taken, 409, "already_claimed")
        assert (found["holder"], found["retry"]) == ("user:root", "later")
        assert "retry-after" in taken.headers


def _undecided() -> StoryLog:
    """A story whose council on the design found no quorum, and which therefore waits for a person."""
    log = story(until="base").add(open_council(DESIGN_COUNCIL, design=True))
    log.add(
        CouncilUndecided(
            council_id=DESIGN_COUNCIL,
            reason="no_quorum",
            tally={},
            decision_hash=digest("decision"),
            minority_report_digest=digest("minority"),
            approval_id=EntityId("ap-escalate1"),
        )
    )
    return log.add(StoryParked(cause="council_undecided", detail="2 of 3 voters are silent", ref=DESIGN_COUNCIL))


COUNCIL = {
    "story_id": STORY,
    "task_description": "Which tasks does the story take?",
    "role": "architect",
    "output_kind": "plan",
    "constraints": {"rubric": [{"name": "small", "text": "Tasks are small"}]},
    "budget": {"tokens": 50_000, "wall_s": 600},
}


@pytest.mark.rule("AP-30", "CN-56", "PL-24")
async def test_tasks_of_a_design_that_no_council_decided_are_not_to_be_had():
    async with _front(_undecided()) as at:
        before = (await at.world.desk.state(STORY)).version
        for number, who in enumerate((ANA, ARCHIE)):
            found = _refused(
                await at.post(f"{URL}/derive-tasks", None, number=number, who=who), 409, "quorum_not_reached"
            )
            assert (found["council_id"], found["reason"], found["retry"]) == (DESIGN_COUNCIL, "no_quorum", "never")
        _refused(await at.post(f"{URL}/derive-tasks", None, number=5, who=QUINN), 404, "not_found")
        # What a claim of the story and nothing else recorded.
        assert {e.type for e in (await at.world.events())[before:]} <= {"OwnershipTaken"}


@pytest.mark.rule("AP-30", "CN-56", "AP-77")
async def test_plan_of_a_design_that_no_council_decided_is_not_to_be_had_until_a_person_decides():
    log = _undecided().add(StoryUnparked(by=Principal("user:ana"), note="I see to it", cause="council_undecided"))
    log.add(StoryPaused(scope="story", by=Principal("user:ana"), reason="I look first"))
    log.add(StoryResumed(scope="story", by=Principal("user:ana")))
    world = World()
    await log.write_to(world.log)
    bench = await world.bench()
    sent = Command(CommandId("user:root/key-1"), STREAM, "request_council", Principal("user:root"), COUNCIL)
    with pytest.raises(errors.QuorumNotReached, match="ARCHITECTURE"):
        await world.commands.handle(bench, sent)
    decided = decision_payload(council_id=None, origin_="human", author=Principal("user:archie"))
    accepted = DecisionAccepted(decision_id=decided.decision_id, by=Principal("user:root"), as_role="architect")
    await bench.journal.record("decided", decided, accepted)
    # Nobody demands a decision any more: what is wrong now is the seats of this fleet, or nothing.
    again = Command(CommandId("user:root/key-2"), STREAM, "derive_tasks", Principal("user:root"), {})
    with pytest.raises(errors.AlreadyClaimed):
        await world.commands.handle(bench, again)


def _unknown_step() -> StoryLog:
    """A story that is parked because nobody knows whether its deployment happened."""
    log = story(until="scored").add(
        StepStarted(
            step_id=STEP,
            kind="tool",
            tool="deploy",
            op="apply",
            effect="UNSAFE",
            as_role="devops",
            principal=Principal("agent:devops-001"),
            request_digest=digest("request"),
            key=RunKey(digest("key").hex),
            deadline_ms=T0 + 600_000,
            policy=PolicyRef(rule_id="deploys", digest=digest("policy")),
            reserve=Reserve(tokens=0, wall_ms=600_000),
        )
    )
    log.add(StepOutcomeUnknown(step_id=STEP, sent_digest=digest("sent"), sent_at=T0))
    return log.add(StoryParked(cause="outcome_unknown", detail="a deployment", ref=STEP))


@pytest.mark.rule("AP-32", "AP-86", "RC-52", "LC-95")
async def test_story_with_an_unknown_outcome_goes_on_once_somebody_says_what_happened():
    word = {"outcome": "happened", "note": "I looked at the host"}
    path = f"{URL}/steps/{STEP}/resolve"
    async with _front(_unknown_step()) as at:
        found = _refused(await at.post(f"{URL}/unpark", {"note": "just go on with it"}), 409, "outcome_unknown")
        assert (found["step_id"], found["retry"]) == (STEP, "never")
        _refused(await at.post(path, word | {"outcome": "perhaps"}, number=2), 422, "invalid_input")
        _refused(await at.post(path, word | {"note": "short"}, number=3), 422, "invalid_input")
        _refused(await at.post(path, word, number=4, who=ARCHIE), 403, "policy_denied")
        _refused(await at.post(f"{URL}/steps/deploy/9/resolve", word, number=5), 404, "not_found")
        _refused(await at.client.post(path, json=word, headers=ROOT), 400, "idempotency_key_required")
        said = await at.post(path, word, number=6)
        assert said.status_code == 200, said.text
        assert (await at.post(path, word, number=6)).json() == said.json()
        _refused(await at.post(path, word, number=7), 409, "invalid_transition")
        resolved = [p for p in map(decode, await at.world.events()) if isinstance(p, StepResolved)]
        assert [(p.step_id, p.outcome, p.by, p.note) for p in resolved] == [
            (STEP, "happened", "user:root", "I looked at the host")
        ]
        went_on = await at.post(f"{URL}/unpark", {"note": "it has happened"}, number=8)
        assert (went_on.status_code, went_on.json()["disposition"]) == (200, "active"), went_on.text


@pytest.mark.rule("AP-38", "CX-23")
async def test_pack_whose_first_levels_do_not_fit_says_what_is_how_big():
    text = "Given a title of two words, when slugify is called, then a hyphen stands between them. " * 5
    criteria = tuple(AcceptanceCriterion(ac_id=EntityId(f"ac-n{n}"), text=text) for n in range(20))
    log = StoryLog().add(created_payload(acceptance_criteria=criteria), actor=Principal("user:ana"))
    async with _front(log, with_owner=False) as at:
        path = f"/api/context/{STORY}/architect/DESIGN"
        found = _refused(
            await at.client.get(path, params={"token_budget": 512}, headers=ROOT), 422, "context_too_large"
        )
        assert found["retry"] == "never"
        assert found["budget"] == 512
        assert (await at.client.get(path, params={"token_budget": 100_000}, headers=ROOT)).status_code == 200
        assert len(await at.world.events()) == 1, "a pack that is not made is not recorded"


@pytest.mark.rule("AP-41", "EV-30")
async def test_story_with_an_event_from_the_future_is_not_shown():
    async with _front(story(until="created"), with_owner=False) as at:
        head = await at.world.log.head(STREAM)
        await at.world.log.append(
            AppendRequest(
                stream=STREAM,
                events=[NewEvent(type="StoryMoved", schema=1, body=b"{}")],
                expected=head,
                command_id=CommandId(f"{STORY}/moved"),
                actor=SYSTEM,
                ts_ms=T0,
            )
        )
        found = _refused(await at.client.get(URL, headers=ROOT), 500, "unsupported_schema")
        assert (found["retry"], "upgrade fleet" in found["detail"]) == ("never", True)


@pytest.mark.rule("AP-41")
async def test_story_whose_stream_begins_in_the_middle_is_not_shown():
    log = StoryLog().add(StoryCancelled(reason="nobody needs it any more"))
    async with _front(log, with_owner=False) as at:
        found = _refused(await at.client.get(URL, headers=ROOT), 500, "log_corrupted")
        assert found["retry"] == "never"


@pytest.mark.rule("AP-41", "EV-19")
async def test_command_on_a_stream_that_went_back_is_refused():
    async with _front(story(until="scored")) as at:
        await at.world.log.refuse(STREAM, reason="version 9 was attested by a checkpoint and the log ends before it")
        cancelled = await at.post(f"{URL}/cancel", {"reason": "nobody needs it any more"})
        found = _refused(cancelled, 500, "log_regressed")
        assert (found["retry"], "accept-loss" in found["detail"]) == ("never", True)
        assert (await at.client.get(URL, headers=ROOT)).status_code == 200, "it can still be read"


OF_THE_OWNER = [
    ("AP-41", NondeterministicPlan("step design/1 has another request on record", step_id="design/1"), 500),
    ("AP-42", errors.ReplyMalformed("the reply is no JSON: it ends in the middle", problems=["cut"]), 502),
    ("AP-42", errors.ReplyRefused("the model withheld the reply"), 502),
    ("AP-42", errors.ToolFailed("no commit could be made", reason="exit_nonzero"), 502),
]


@pytest.mark.parametrize(
    ("error", "status"), [pytest.param(*row[1:], marks=pytest.mark.rule(row[0])) for row in OF_THE_OWNER]
)
async def test_what_the_owner_refuses_with_arrives_as_itself(error: FleetError, status: int):
    async with _front(story(until="scored"), with_owner=False) as at:
        posted = asyncio.create_task(at.post(f"{URL}/pause", {"reason": "not today, please"}))
        await at.answers(error)
        found = _refused(await posted, status, error.code)
        assert (found["detail"], found["retry"]) == (error.message, "never")
        later = (await at.client.get("/api/commands/user:root/key-number-1", headers=ROOT)).json()
        assert (later["status"], later["problem"]["code"]) == ("refused", error.code)


@pytest.mark.rule("AP-47", "AP-7")
async def test_code_that_the_owner_alone_knows_is_a_fault_of_ours_and_its_text_is_not_told():
    class Stranger(FleetError):
        code = "made_up"

    async with _front(story(until="scored"), with_owner=False) as at:
        posted = asyncio.create_task(at.post(f"{URL}/pause", {"reason": "not today, please"}))
        await at.answers(Stranger("the disk at 10.0.0.7 is gone"))
        response = await posted
        _refused(response, 500, "internal_error")
        assert "10.0.0.7" not in response.text


class FullInbox(MemoryInbox):
    """A store without room."""

    async def submit(self, command: Command) -> None:
        """See `Inbox.submit`."""
        raise StoreFull("Redis has no room to queue a command: free memory and disk space, then repeat")


@pytest.mark.rule("AP-45")
async def test_command_that_finds_no_room_may_come_again():
    async with _front(story(until="scored"), with_owner=False, inbox=FullInbox(SystemClock())) as at:
        response = await at.post(f"{URL}/pause", {"reason": "not today, please"})
        found = _refused(response, 507, "store_full")
        assert (found["retry"], response.headers["retry-after"]) == ("later", "2")
        assert len(await at.world.events()) == 2


def _asks_for_scope(log: StoryLog) -> StoryLog:
    return log.add(
        ApprovalRequested(
            approval_id=EntityId("ap-scope1"),
            gate="approve_scope",
            role="po",
            actor="human",
            subject=Subject(kind="content", id=STORY, digest=log.state.content.digest),
            risk="low",
            expires_at=9**15,
            attempt=1,
            card_digest=digest("card"),
            requested_by=SYSTEM,
        )
    )


@pytest.mark.rule("AP-56", "AP-1", "LC-78")
async def test_transition_moves_the_story_in_a_role_of_the_caller_and_in_no_other():
    log = _asks_for_scope(story(until="scored").move("BACKLOG", "create_story", "DRAFT"))
    async with _front(log) as at:
        path, event = f"{URL}/transition", {"event": "approve_scope"}
        before = (await at.world.desk.state(STORY)).version
        other = _refused(await at.post(path, event | {"actor": "architect"}, number=1), 403, "policy_denied")
        assert other["rule_id"] == "LC-11"
        held = _refused(await at.post(path, event | {"actor": "po"}, number=2, who=ARCHIE), 403, "policy_denied")
        assert (held["rule_id"], held["role"]) == ("role_not_held", "po")
        for number, (role, more) in enumerate((("architect", {"actor": "po"}), ("qa", {})), 3):
            headers = keyed(number, ROOT) | {"X-Fleet-Role": role}
            _refused(await at.client.post(path, json=event | more, headers=headers), 403, "policy_denied")
        _refused(await at.post(path, event | {"actor": ""}, number=5), 422, "invalid_input")
        _refused(await at.post(path, event | {"force": True}, number=6), 422, "invalid_input")
        _refused(await at.post(path, event, number=7, who=DEV), 404, "not_found")
        illegal = _refused(await at.post(path, {"event": "docs_ready"}, number=8), 409, "invalid_transition")
        assert illegal["allowed"] == ["approve_scope"]
        assert {e.type for e in (await at.world.events())[before:]} <= {"OwnershipTaken"}
        moved = await at.post(path, event | {"actor": "po"}, number=9)
        assert (moved.status_code, moved.json()["state"]) == (200, "DESIGN"), moved.text
        assert [e.type for e in (await at.world.events())[-2:]] == ["ApprovalGranted", "StoryTransitioned"]
        assert (await at.post(path, event | {"actor": "po"}, number=9)).json() == moved.json()


@pytest.mark.rule("AP-91", "AP-5", "EV-12", "AP-25")
async def test_history_of_a_story_is_read_page_by_page_behind_a_version():
    async with _front(story(until="scope"), with_owner=False) as at:
        recorded = await at.world.events()
        seen, after = list[Any](), 0
        while True:
            params = {"stream": STREAM, "after": after, "limit": 3}
            page = (await at.client.get("/api/events", params=params, headers=ANA)).json()
            seen += page["items"]
            if page["next_after"] is None:
                break
            after = page["next_after"]
        assert [(e["event_id"], e["type"], e["hash"]) for e in seen] == [(e.event_id, e.type, e.hash) for e in recorded]
        rest = await at.client.get(f"/api/events?stream={STORY}&after={len(recorded) - 1}", headers=ANA)
        assert [e["version"] for e in rest.json()["items"]] == [len(recorded)]
        _refused(await at.client.get("/api/events", headers=ANA), 422, "invalid_input")
        _refused(await at.client.get(f"/api/events?stream={STORY}&after=-1", headers=ANA), 422, "invalid_input")
        _refused(await at.client.get(f"/api/events?stream={STORY}&limit=201", headers=ANA), 422, "invalid_input")
        _refused(await at.client.get("/api/events?stream=story:st-none1", headers=ANA), 404, "not_found")
        _refused(await at.client.get(f"/api/events?stream={STORY}"), 401, "unauthenticated")
        _refused(await at.client.get("/api/events/stream", headers=ANA), 422, "invalid_input")
