"""Commands on stories: decided once, by the owner, for a caller whose roles are not in the request."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest

from fleet.events.approval import ApprovalRequested, Subject
from fleet.events.codec import decode
from fleet.events.story import MilestoneReached, StoryCreated, StoryParked
from fleet.events.task import TreeMerged
from fleet.kernel.errors import (
    FleetError,
    GateClosed,
    InvalidInput,
    InvalidTransition,
    NotFound,
    PolicyDenied,
    StoryNotFound,
    VersionConflict,
)
from fleet.kernel.ids import CommandId, Digest, EntityId, Principal, StoryId, StreamId
from fleet.log.port import Command
from fleet.models.profiles import ModelsConfig, load_models
from fleet.owner.commands.handler import CommandHandler
from fleet.owner.workbench import Workbench
from fleet.planning.coach_config import CoachConfig
from fleet.projects.project_owner import project_state
from fleet.story.delegation import DELEGATION_S
from tests.support.bench import PEOPLE, STORY_TEXT, World
from tests.support.deployed import target_of
from tests.support.rules import files
from tests.support.story_events import STORY, story

NEW = StoryId("st-new1")


def command(name: str, body: dict[str, Any], *, who: str = "user:ana", key: str = "key-1") -> Command:
    return Command(
        command_id=CommandId(f"{who}/{key}"),
        stream=StreamId.of_story(NEW),
        name=name,
        principal=Principal(who),
        body=body,
    )


class Front:
    """One story's bench, and commands on it."""

    def __init__(self, world: World, bench: Workbench) -> None:
        self.world, self.bench, self._keys = world, bench, 0

    async def do(self, name: str, body: dict[str, Any] | None = None, *, who: str = "user:ana", key: str = "") -> Any:
        self._keys += 1
        sent = command(name, body or {}, who=who, key=key or f"key-{self._keys}")
        return await self.world.commands.handle(self.bench, sent)


async def front(*, created: bool = True, **changes: Any) -> Front:
    world = World()
    found = Front(world, await world.bench(NEW))
    if created:
        await found.do("create_story", {"story": STORY_TEXT | changes})
    return found


@pytest.mark.rule("LC-12", "SC-31")
async def test_created_story_is_scored_and_in_its_first_state_by_one_append():
    at = await front(created=False)
    result = await at.do("create_story", {"story": STORY_TEXT})
    events = await at.world.events(NEW)
    assert [e.type for e in events] == ["StoryCreated", "StoryScored", "StoryTransitioned"]
    assert len({e.command_id for e in events}) == 1
    assert (result["state"], result["version"], result["story_id"]) == ("DRAFT", 3, NEW)
    created = decode(events[0])
    assert isinstance(created, StoryCreated)
    assert created.requester == "user:ana"
    assert created.config


@pytest.mark.rule("LC-12")
async def test_story_on_hold_stays_in_the_backlog():
    assert (await front(hold=True)).bench.state.state == "BACKLOG"


@pytest.mark.rule("LC-46")
async def test_sdlc_without_deployments_gets_the_shorter_table():
    state = (await front(lifecycle="sdlc")).bench.state
    assert (state.lifecycle, state.state) == ("sdlc-no-deploy", "NEW")


@pytest.mark.rule("LC-46")
async def test_sdlc_with_a_target_for_its_project_takes_the_whole_way_and_knows_where_to():
    at = await front(created=False)
    rules = replace(at.bench.rules, targets=(target_of("own", projects=["pr-own"]), target_of("preview")))
    at.bench = replace(at.bench, rules=rules)
    await at.do("create_story", {"story": STORY_TEXT | {"lifecycle": "sdlc"}})
    state = at.bench.state
    assert (state.lifecycle, state.environment) == ("sdlc", "preview")


@pytest.mark.rule("LC-46")
async def test_story_of_another_lifecycle_is_deployed_nowhere():
    at = await front(created=False)
    at.bench = replace(at.bench, rules=replace(at.bench.rules, targets=(target_of("preview"),)))
    await at.do("create_story", {"story": STORY_TEXT})
    assert at.bench.state.environment is None


@pytest.mark.rule("LC-2")
async def test_unknown_lifecycle_is_refused():
    at = await front(created=False)
    with pytest.raises(InvalidInput, match="there is no lifecycle 'waterfall'"):
        await at.do("create_story", {"story": STORY_TEXT | {"lifecycle": "waterfall"}})
    assert await at.world.events(NEW) == []


@pytest.mark.rule("LC-11", "GL-16")
@pytest.mark.parametrize("name", ["create_story", "start_story", "cancel", "unpark"])
@pytest.mark.parametrize("who", ["user:dev", "user:nobody", "agent:reviewer-001"])
async def test_caller_without_the_role_is_refused_whatever_the_body_claims(name: str, who: str):
    at = await front(created=name != "create_story")
    body = {"story": STORY_TEXT, "repo": "/srv/x", "reason": "nobody needs it"}
    with pytest.raises(PolicyDenied) as refused:
        await at.do(name, {**body, "actor": "po", "roles": ["po"]}, who=who)
    assert refused.value.details["rule_id"] == "LC-11"


async def test_command_that_nobody_knows_and_story_that_is_not_there_are_refused():
    at = await front(created=False)
    with pytest.raises(InvalidInput, match="there is no command 'explode'"):
        await at.do("explode")
    with pytest.raises(StoryNotFound):
        await at.do("approve", {"gate": "approve_scope"})


async def test_story_is_created_once():
    at = await front()
    with pytest.raises(InvalidTransition, match="exists already"):
        await at.do("create_story", {"story": STORY_TEXT}, key="another")


@pytest.mark.rule("AP-2", "EV-16")
async def test_repeated_command_id_records_nothing_again():
    at = await front()
    body = {"repo": "/srv/text", "delegate": ["po"]}
    first = await at.do("start_story", body, key="start")
    again = await at.do("start_story", body, key="start")
    assert first == again
    assert (await at.world.types(NEW)).count("StoryStarted") == 1
    with pytest.raises(InvalidTransition, match="started already"):
        await at.do("start_story", body, key="another")


@pytest.mark.rule("LC-4")
async def test_refused_attempt_is_on_record_once_and_stays_refused_when_it_comes_again():
    at = await front()
    for _ in range(2):
        with pytest.raises(GateClosed):
            await at.do("transition", {"event": "approve_scope"}, key="go")
    types = await at.world.types(NEW)
    assert types.count("TransitionRefused") == 1
    assert at.bench.state.state == "DRAFT"


@pytest.mark.rule("LC-3", "AP-2")
async def test_illegal_event_records_nothing():
    at = await front()
    before = await at.world.types(NEW)
    with pytest.raises(InvalidTransition):
        await at.do("transition", {"event": "docs_ready"})
    assert await at.world.types(NEW) == before


@pytest.mark.rule("LC-77")
async def test_delegation_names_each_gate_of_the_role_and_ends():
    at = await front()
    await at.do("start_story", {"repo": "/srv/text", "delegate": ["po", "qa"], "model": "recorded"})
    start = at.bench.state.start
    assert start is not None
    gates = {d.gate: d.delegate for d in start.delegations}
    assert set(gates) == {
        "approve_scope",
        "approve_plan",
        "approve_design",
        "docs_ready",
        "task_acceptance",
        "qa_passed",
    }
    assert (gates["qa_passed"], gates["docs_ready"]) == ("agent:qa-002", "agent:reviewer-001")
    assert {d.granted_by for d in start.delegations} == {"user:ana"}
    assert {d.valid_until for d in start.delegations} == {at.bench.now_ms + DELEGATION_S * 1000}
    assert {d.max_rigor for d in start.delegations} == {"L1"}


@pytest.mark.rule("LC-77")
@pytest.mark.parametrize(
    ("names", "others"),
    [(["council:architect"], {}), (["qa", "council:architect"], {"qa_passed": ("agent:qa-002", None)})],
)
async def test_council_of_a_run_has_the_gates_of_the_roles_that_are_not_named(names: list[str], others: dict[str, Any]):
    at = await front()
    await at.do("start_story", {"repo": "/srv/text", "delegate": names})
    start = at.bench.state.start
    assert start is not None
    of_council = ("agent:architect-900", "architect")
    gates = ("approve_scope", "approve_plan", "approve_design", "docs_ready", "task_acceptance", "qa_passed")
    assert {d.gate: (d.delegate, d.council) for d in start.delegations} == dict.fromkeys(gates, of_council) | others


@pytest.mark.rule("LC-77", "CN-3")
@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["council:"], "'council:' cannot be delegated to"),
        (["council:po"], "'council:po' cannot be delegated to"),
        (["council:nobody1"], "allowed: po, qa, council:architect"),
        (["council:architect", "council:qa"], "a run has one council at gates"),
        (["po", "qa", "council:architect"], "council:architect is left no gate"),
    ],
)
async def test_council_that_can_hold_no_gate_is_refused_and_nothing_is_recorded(names: list[str], says: str):
    at = await front()
    with pytest.raises(InvalidInput, match=says) as refused:
        await at.do("start_story", {"repo": "/srv/text", "delegate": names})
    assert (refused.value.details["field"], at.bench.state.start) == ("delegate", None)
    assert refused.value.details["allowed"]


@pytest.mark.rule("LC-77", "CN-3")
async def test_council_of_a_role_that_no_agent_of_the_fleet_serves_is_refused():
    at = await front()
    at.bench = replace(at.bench, staffed=frozenset({"qa"}))
    with pytest.raises(InvalidInput, match="allowed: po, qa, council:qa$"):
        await at.do("start_story", {"repo": "/srv/text", "delegate": ["council:architect"]})


@pytest.mark.rule("LC-77")
async def test_delegation_above_the_cap_of_the_gate_is_refused():
    at = await front(rigor="L3")
    with pytest.raises(PolicyDenied) as refused:
        await at.do("start_story", {"repo": "/srv/text", "delegate": ["po"]})
    assert refused.value.details["rule_id"] == "LC-77"
    assert at.bench.state.start is None


@pytest.mark.rule("RC-70", "GL-15")
@pytest.mark.parametrize(
    ("repo", "is_taken"),
    [
        ("/srv/git/team/app", True),
        ("file:///srv/git/team/app", True),
        ("/srv/common", True),
        ("/srv/git/team/../other", False),
        ("file:///srv/git/team/%2e%2e/other", False),
        ("file:///srv/git/team/app?x", False),
        ("/srv/git/teams", False),
        ("/private/repo", False),
        ("srv/git/team/app", False),
        ("~/app", False),
    ],
)
async def test_local_repository_lies_in_a_folder_of_the_storys_project(repo: str, is_taken: bool):
    at = await front()
    steps = at.bench.journal.policy
    listed = {at.bench.state.project_id: ("/srv/git/team/",), "*": ("/srv/common",), "pr-other": ("/private",)}
    targets = steps.policy.targets.model_copy(update={"local": listed})
    at.bench.journal.policy = replace(steps, policy=replace(steps.policy, targets=targets))
    if is_taken:
        await at.do("start_story", {"repo": repo})
    else:
        with pytest.raises(PolicyDenied, match=r"targets.local") as refused:
            await at.do("start_story", {"repo": repo})
        assert refused.value.details["rule_id"] == "target_not_listed"
    assert (at.bench.state.start is not None) is is_taken


@pytest.mark.parametrize(
    "body",
    [{}, {"repo": ""}, {"repo": 7}, {"repo": "/srv/text", "delegate": ["devops"]}],
    ids=["none", "empty", "number", "role"],
)
async def test_start_with_bad_input_records_nothing(body: dict[str, Any]):
    at = await front()
    with pytest.raises(InvalidInput):
        await at.do("start_story", body)
    assert at.bench.state.start is None


async def waiting() -> Front:
    """The scope gate of a started story waits for the po."""
    from fleet.owner.duties.gates import request_gate
    from fleet.story.intents import RequestGate

    at = await front()
    await at.do("start_story", {"repo": "/srv/text"})
    digest = at.bench.state.content.digest
    await request_gate(at.bench, RequestGate(gate="approve_scope", subject=digest))
    return at


@pytest.mark.rule("LC-78", "LC-79")
async def test_approved_gate_moves_the_story():
    at = await waiting()
    result = await at.do("approve", {"gate": "approve_scope", "notes": "go on"})
    assert result["state"] == "DESIGN"
    events = await at.world.events(NEW)
    assert [e.type for e in events[-2:]] == ["ApprovalGranted", "StoryTransitioned"]
    assert {e.actor for e in events[-2:]} == {"user:ana"}
    assert len({e.command_id for e in events[-2:]}) == 1


@pytest.mark.rule("LC-74")
async def test_same_decision_under_the_same_key_is_answered_from_the_record():
    at = await waiting()
    first = await at.do("approve", {"gate": "approve_scope"}, key="yes")
    assert await at.do("approve", {"gate": "approve_scope"}, key="yes") == first
    with pytest.raises(NotFound):
        await at.do("reject", {"gate": "approve_scope", "reason": "I see it differently"}, key="no")


async def test_rejected_gate_needs_its_reason():
    at = await waiting()
    with pytest.raises(InvalidInput):
        await at.do("reject", {"gate": "approve_scope", "reason": "no"})
    await at.do("reject", {"gate": "approve_scope", "reason": "the scope is too wide"})
    assert [a.status for a in at.bench.state.approvals.values()] == ["rejected"]


async def test_gate_has_to_be_named():
    at = await waiting()
    for name in ("approve", "reject"):
        with pytest.raises(InvalidInput, match="name the gate"):
            await at.do(name, {})


@pytest.mark.rule("LC-93", "LC-95")
async def test_parked_story_goes_on_and_cancelled_story_leaves_the_open_set():
    from fleet.owner.duties.gates import record_park

    at = await waiting()
    await record_park(at.bench, cause="stuck", detail="nothing moved")
    assert (await at.do("unpark", {"note": "look at it again"}))["disposition"] == "active"
    assert NEW in {s.entity for s in await at.world.log.open_streams()}
    assert (await at.do("cancel", {"reason": "nobody needs it any more"}))["disposition"] == "cancelled"
    assert await at.world.log.open_streams() == []
    refused: list[tuple[str, dict[str, Any]]] = [
        ("approve", {"gate": "approve_scope"}),
        ("transition", {"event": "approve_scope"}),
        ("start_story", {"repo": "/srv/text"}),
        ("cancel", {"reason": "nobody needs it any more"}),
    ]
    for name, body in refused:
        with pytest.raises(FleetError):
            await at.do(name, body)


async def test_story_of_another_day_answers_commands_after_a_restart():
    world = World()
    await story(until="base").write_to(world.log)
    bench = await world.bench(STORY)
    sent = Command(
        command_id=CommandId("user:ana/stop"),
        stream=StreamId.of_story(STORY),
        name="cancel",
        principal=Principal("user:ana"),
        body={"reason": "nobody needs it any more"},
    )
    assert (await world.commands.handle(bench, sent))["disposition"] == "cancelled"


class Racing:
    """A stream on which another writer of the same epoch is faster: `ahead` times something is recorded first."""

    def __init__(self, bench: Workbench, other: Workbench, ahead: int) -> None:
        self.bench, self.other, self.ahead, self.decided = bench, other, ahead, 0

    async def handle(self, world: World, sent: Command) -> Any:
        record = self.bench.journal.record_command

        async def slower(*args: Any, **more: Any) -> bool:
            self.decided += 1
            if self.decided <= self.ahead:
                note = MilestoneReached(milestone_id=EntityId("mi-note1"), name="note", ref=str(self.decided))
                await self.other.journal.load()
                await self.other.journal.record(f"note/{self.decided}", note)
            return await record(*args, **more)

        journal = _Slower(self.bench.journal, slower)
        return await world.commands.handle(replace(self.bench, journal=cast(Any, journal)), sent)


class _Slower:
    def __init__(self, journal: Any, slower: Any) -> None:
        self._journal, self.record_command = journal, slower

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)


@pytest.mark.rule("LC-8")
@pytest.mark.parametrize(("ahead", "is_carried_out"), [(1, True), (2, True), (3, False)])
async def test_command_on_a_story_that_moved_is_decided_again_on_what_is_there(ahead: int, is_carried_out: bool):
    at = await front()
    racing = Racing(at.bench, await at.world.bench(NEW), ahead)
    sent = command("cancel", {"reason": "nobody needs it any more"}, key="stop")
    if is_carried_out:
        assert (await racing.handle(at.world, sent))["disposition"] == "cancelled"
        assert racing.decided == ahead + 1
    else:
        with pytest.raises(VersionConflict):
            await racing.handle(at.world, sent)


@pytest.mark.rule("AP-76", "LC-73")
async def test_rejected_gate_is_asked_for_again_and_a_waiting_one_is_not():
    at = await waiting()
    with pytest.raises(VersionConflict):
        await at.do("request_approval", {"gate": "approve_scope"})
    await at.do("reject", {"gate": "approve_scope", "reason": "the scope is too wide"})
    await at.do("request_approval", {"gate": "approve_scope"})
    first, second = at.bench.state.approvals.values()
    assert (first.status, second.status, second.request.attempt) == ("rejected", "requested", 2)
    assert second.request.requested_by == "user:ana"
    with pytest.raises(InvalidInput) as refused:
        await at.do("request_approval", {"gate": "docs_ready"})
    assert refused.value.details["allowed"] == ["approve_scope"]


@pytest.mark.rule("LC-26", "LC-90")
async def test_rejection_with_a_way_back_moves_the_story_in_the_same_append():
    at = await waiting()
    await at.do("approve", {"gate": "approve_scope"})
    asked = ApprovalRequested(
        approval_id=EntityId("ap-design1"),
        gate="approve_design",
        role="po",
        actor="human",
        subject=Subject(kind="plan", id="pv-first1", digest=at.bench.state.content.digest),
        risk="low",
        expires_at=at.bench.now_ms + 1000,
        attempt=1,
        card_digest=at.bench.state.content.digest,
        requested_by=Principal("system:council"),
    )
    await at.bench.journal.record("ask", asked)
    reason = {"gate": "ap-design1", "reason": "the design misses the point"}
    with pytest.raises(InvalidInput) as refused:
        await at.do("reject", reason | {"back": "approve_design"})
    assert refused.value.details["allowed"] == ["reject_design"]
    result = await at.do("reject", reason | {"back": "reject_design"})
    assert result["state"] == "DRAFT"
    events = await at.world.events(NEW)
    assert [e.type for e in events[-2:]] == ["ApprovalRejected", "StoryTransitioned"]
    assert len({e.command_id for e in events[-2:]}) == 1


def _models(**policies: Any) -> ModelsConfig:
    """The packaged engines; roles have policies of their own as named."""
    return load_models(files().document("models.yaml") | ({"policies": policies} if policies else {}))


async def _start(models: ModelsConfig, profile: str | None) -> Front:
    at = await front()
    at.world.commands = CommandHandler(
        roles_of=lambda p: PEOPLE.get(p, frozenset()),
        coach=files().load("coach.yaml", CoachConfig),
        config_digests={},
        projects=partial(project_state, at.world.log),
        models=models,
        absent_engines={"local"},
    )
    await at.do("start_story", {"repo": "/srv/text", "model": profile})
    return at


@pytest.mark.rule("MB-2", "AP-57")
@pytest.mark.parametrize(
    ("profile", "says"),
    [("nonsense", "unknown model profile 'nonsense'"), ("", "unknown model profile"), (None, "no model is configured")],
)
async def test_start_with_a_model_that_nobody_has_is_refused_with_those_there_are(profile: str | None, says: str):
    with pytest.raises(InvalidInput, match=says) as caught:
        await _start(_models(), profile)
    assert caught.value.details["field"] == "model"
    assert {"mock", "recorded:DIR"} <= set(caught.value.details["allowed"])


@pytest.mark.rule("MB-2", "AP-57")
async def test_start_with_an_engine_that_this_fleet_does_not_serve_is_refused():
    with pytest.raises(InvalidInput, match=r"models\.serve") as caught:
        await _start(_models(), "local")
    assert "local" not in caught.value.details["allowed"]
    assert "mock" in caught.value.details["allowed"]


@pytest.mark.rule("MB-2", "AP-57")
@pytest.mark.parametrize("profile", ["mock", "recorded:/srv/replies"])
async def test_start_with_a_model_that_is_known_is_on_record(profile: str):
    at = await _start(_models(), profile)
    assert at.bench.state.start is not None
    assert at.bench.state.start.model == profile


@pytest.mark.rule("MB-2")
async def test_start_without_a_model_leaves_roles_to_their_policies():
    policies = files().document("models.yaml")["policies"]
    (entry,) = policies["default"]["chain"]
    at = await _start(_models(**policies, qa={**policies["default"], "chain": [entry | {"engine_id": "mock"}]}), None)
    assert at.bench.state.start is not None
    assert at.bench.state.start.model is None


@pytest.mark.rule("AP-57", "LC-95")
async def test_parked_story_is_started_again_on_what_was_meant():
    at = await front()
    await at.do("start_story", {"repo": "/srv/txet", "delegate": ["po"]})
    await at.bench.journal.record("park", StoryParked(cause="stuck", detail="there is no such folder"))
    await at.do("start_story", {"repo": "/srv/text", "model": "mock"})
    state = at.bench.state
    assert state.start is not None
    assert (state.start.repo.url, state.start.model, state.disposition) == ("/srv/text", "mock", "active")
    with pytest.raises(InvalidTransition, match="started already"):
        await at.do("start_story", {"repo": "/srv/text"})


@pytest.mark.rule("AP-57")
async def test_parked_story_that_read_its_repository_keeps_it_and_takes_another_model():
    at = await front()
    await at.do("start_story", {"repo": "/srv/text"})
    tree = Digest(f"sha256:{'0b' * 32}")
    await at.bench.journal.record("base", TreeMerged(base_digest=tree, result_digest=tree, commit="0a" * 20))
    await at.bench.journal.record("park", StoryParked(cause="stuck", detail="there is no such folder"))
    with pytest.raises(InvalidTransition, match="works on /srv/text already"):
        await at.do("start_story", {"repo": "/srv/other"})
    await at.do("start_story", {"repo": "/srv/text", "model": "mock"})
    assert (at.bench.state.disposition, at.bench.state.start and at.bench.state.start.model) == ("active", "mock")
