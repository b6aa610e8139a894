"""Consent: who may give it, for what, for how long, and that nothing else counts (LC-70..LC-78)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.events.approval import (
    ApprovalExpired,
    ApprovalGranted,
    ApprovalRejected,
    ApprovalRequested,
    ApprovalRevoked,
    Subject,
)
from fleet.events.payload import Payload
from fleet.events.story import StoryCancelled, StoryEdited, StoryParked, StoryTransitioned
from fleet.events.task import TaskAdded, TaskTransitioned
from fleet.kernel.errors import FleetError, InvalidInput, InvalidTransition, NotFound, PolicyDenied, VersionConflict
from fleet.kernel.ids import Digest, EntityId, Principal
from fleet.story.approvals import (
    check_delegable,
    check_notes,
    delegation_for,
    last_request,
    subject_authors,
    supporting_fact,
    valid_grant,
)
from fleet.story.commands.command import Caller
from fleet.story.commands.gates import Reject, decide_gate, find_approval, fire
from fleet.story.guards import GuardContext, evaluate
from fleet.story.lifecycle import FsmConfig
from fleet.story.state import StoryState
from tests.support.rules import files, fsm
from tests.support.story_events import (
    CONTENT,
    DELEGATION,
    DEVELOPER,
    MERGED,
    PLAN,
    PO,
    REVIEWER,
    STORY,
    SYSTEM,
    T0,
    TASK,
    Stage,
    StoryLog,
    created_payload,
    digest,
    facts,
    story,
    subject,
)

ANA = Caller(principal=PO, roles=frozenset({"po"}))
BO = Caller(principal=Principal("user:bo"), roles=frozenset({"po", "qa"}))
DEV = Caller(principal=Principal("user:dev"), roles=frozenset({"developer"}))
NOW = T0 + 600_000


def pending(gate: str, about: Subject, *, until: Stage, role: str = "po", approval_id: str = "ap-one1") -> StoryLog:
    return ask(story(until=until), gate, about, role=role, approval_id=approval_id)


def ask(log: StoryLog, gate: str, about: Subject, *, role: str = "po", approval_id: str = "ap-one1") -> StoryLog:
    return log.add(
        ApprovalRequested(
            approval_id=EntityId(approval_id),
            gate=gate,
            role=role,
            actor="human",
            subject=about,
            risk="low",
            expires_at=NOW + 86_400_000,
            attempt=1,
            card_digest=digest("card"),
            requested_by=SYSTEM,
        )
    )


def scope() -> StoryLog:
    log = story(until="started").move("BACKLOG", "create_story", "DRAFT")
    return ask(log, "approve_scope", subject("content", STORY, CONTENT))


def decide(state: StoryState, name: str, caller: Caller, *, approve: bool = True, notes: str = "", **more: Any):
    return decide_gate(state, fsm(), name, approve=approve, caller=caller, now_ms=NOW, notes=notes, **more)


@pytest.mark.rule("LC-78")
def test_grant_moves_the_story_in_the_same_append_when_nothing_else_is_missing():
    granted, moved = decide(scope().state, "approve_scope", ANA, notes="  go on  ")
    assert isinstance(granted, ApprovalGranted)
    assert isinstance(moved, StoryTransitioned)
    assert (granted.principal, granted.as_role, granted.subject_digest) == (PO, "po", CONTENT)
    assert (granted.notes, granted.delegated) == ("go on", False)
    assert granted.grant_expires_at == NOW + 604_800_000
    assert (moved.from_, moved.event, moved.to) == ("DRAFT", "approve_scope", "DESIGN")


@pytest.mark.rule("LC-78")
def test_grant_alone_is_recorded_when_another_guard_is_false():
    log = scope()
    state = log.state.with_(score=None)
    assert [p.type for p in decide(state, "approve_scope", ANA)] == ["ApprovalGranted"]


def test_grant_on_a_parked_story_waits_until_it_goes_on():
    log = scope().add(StoryParked(cause="stuck", detail="nothing moved"))
    assert [p.type for p in decide(log.state, "approve_scope", ANA)] == ["ApprovalGranted"]


@pytest.mark.rule("LC-93")
@pytest.mark.parametrize("approve", [True, False])
def test_story_that_is_over_takes_no_decision(approve: bool):
    log = scope().add(StoryCancelled(reason="nobody needs it any more"))
    with pytest.raises(InvalidTransition, match="is over"):
        decide(log.state, "approve_scope", ANA, approve=approve, notes="no longer wanted")


@pytest.mark.rule("LC-11")
def test_caller_without_the_role_of_the_gate_is_refused():
    for approve in (True, False):
        with pytest.raises(PolicyDenied) as refused:
            decide(scope().state, "approve_scope", DEV, approve=approve, notes="I say what I want")
        assert refused.value.details["rule_id"] == "LC-11"


@pytest.mark.rule("RT-19")
def test_gate_is_opened_by_the_role_that_the_table_names_and_by_no_profile_of_it():
    data = files().document("fsm.yaml")
    data["gates"]["approve_scope"]["role"] = "security"
    own = FsmConfig.model_validate(data)
    ann = Caller(principal=Principal("user:ann"), roles=frozenset({"security"}))
    log = story(until="started").move("BACKLOG", "create_story", "DRAFT")
    asked = ask(log, "approve_scope", subject("content", STORY, CONTENT), role="security").state
    granted, *_ = decide_gate(asked, own, "approve_scope", approve=True, caller=ann, now_ms=NOW, notes="")
    assert isinstance(granted, ApprovalGranted)
    for table, state, caller in ((own, asked, ANA), (fsm(), scope().state, ann)):
        with pytest.raises(PolicyDenied):
            decide_gate(state, table, "approve_scope", approve=True, caller=caller, now_ms=NOW, notes="")


@pytest.mark.rule("LC-76")
@pytest.mark.parametrize("name", ["agent:reviewer-001", "system:council"])
def test_gate_for_people_refuses_agents_and_services(name: str):
    caller = Caller(principal=Principal(name), roles=frozenset({"po"}))
    with pytest.raises(PolicyDenied) as refused:
        decide(scope().state, "approve_scope", caller)
    assert refused.value.details["rule_id"] == "LC-76"


@pytest.mark.rule("LC-72")
@given(
    who=st.sampled_from(["user:eve", "agent:reviewer-001", "system:council", "user:ana"]),
    roles=st.frozensets(st.sampled_from(["po", "qa", "architect", "developer", "system"])),
    way=st.sampled_from(["decide", "fire"]),
)
@settings(max_examples=60, deadline=None)
def test_every_grant_names_a_person_who_holds_the_role(who: str, roles: frozenset[str], way: str):
    caller, state = Caller(principal=Principal(who), roles=roles), scope().state
    try:
        if way == "decide":
            found = decide(state, "approve_scope", caller)
        else:
            found = fire(state, fsm(), "approve_scope", caller=caller, now_ms=NOW)
    except FleetError:
        found = ()
    grants = [p for p in found if isinstance(p, ApprovalGranted)]
    assert bool(grants) == (who.startswith("user:") and "po" in roles)
    assert all(g.principal == who for g in grants)


@pytest.mark.rule("LC-74")
@pytest.mark.parametrize("approve", [True, False])
def test_second_decision_meets_the_recorded_one(approve: bool):
    log = scope()
    log.add(*decide(log.state, "approve_scope", ANA))
    with pytest.raises(VersionConflict) as conflict:
        decide(log.state, "ap-one1", BO, approve=approve, notes="I see it differently")
    assert conflict.value.details == {"status": "granted", "approval_id": "ap-one1"}


def test_gate_that_nobody_asked_for_is_not_found_and_the_pending_ones_are_named():
    with pytest.raises(NotFound, match="pending: approve_scope"):
        find_approval(scope().state, "docs_ready")
    with pytest.raises(NotFound, match="pending: none"):
        find_approval(story(until="created").state, "docs_ready")


@pytest.mark.rule("LC-7")
def test_subject_that_changed_since_the_request_has_to_be_looked_at_again():
    log = scope().add(
        StoryEdited(changes={"title": "Another"}, content_digest=digest("other"), previous_content_digest=CONTENT),
        actor=PO,
    )
    with pytest.raises(VersionConflict, match="changed since it was requested"):
        decide(log.state, "approve_scope", ANA)


@pytest.mark.rule("LC-65")
@pytest.mark.parametrize("text", ["", "too short", " " * 50, "x" * 4001])
def test_rejection_needs_a_reason(text: str):
    with pytest.raises(InvalidInput):
        decide(scope().state, "approve_scope", ANA, approve=False, notes=text)
    with pytest.raises(InvalidInput):
        check_notes(text, "note")


def test_rejection_is_recorded_with_its_reason_and_moves_nothing():
    (rejected,) = decide(scope().state, "approve_scope", ANA, approve=False, notes=" the scope is too wide ")
    assert isinstance(rejected, ApprovalRejected)
    assert (rejected.reason, rejected.as_role, rejected.delegated) == ("the scope is too wide", "po", False)


@pytest.mark.rule("LC-99")
@pytest.mark.parametrize(
    ("roles", "also", "event"),
    [
        ({"qa"}, {}, "reject_test"),
        # With a second way that the caller may take, the caller has to say which.
        ({"qa"}, {"to": "DESIGN", "by": ["qa"]}, None),
        ({"qa"}, {"to": "DESIGN", "by": ["architect"]}, "reject_test"),
    ],
)
def test_no_after_the_design_takes_the_one_way_back_that_the_caller_may(
    roles: set[str], also: dict[str, Any], event: str | None
):
    document = json.loads(json.dumps(files().document("fsm.yaml")))
    if also:
        more = {"from": "TEST", "event": "redesign", "guards": ["feedback_given"], "kind": "loopback", **also}
        document["lifecycles"]["agile"]["transitions"].append(more)
    config = FsmConfig.model_validate(document)
    log = ask(story(until="merged"), "qa_passed", Subject(kind="tree", id=STORY, digest=MERGED), role="qa")
    caller = Caller(principal=Principal("user:quinn"), roles=frozenset(roles))
    said = Reject(gate="qa_passed", reason="the slug is empty").decide(log.state, replace(facts(caller), fsm=config))
    kinds = [payload.type for payload in said if isinstance(payload, Payload)]
    if event is None:
        assert kinds == ["ApprovalRejected"]
        return
    assert kinds == ["ApprovalRejected", "StoryTransitioned", "TaskAdded"]
    moved, added = said[1:]
    assert isinstance(moved, StoryTransitioned)
    assert isinstance(added, TaskAdded)
    assert (moved.event, moved.reason, added.task.description) == (event, "the slug is empty", "the slug is empty")


def accepted() -> StoryLog:
    log = story(until="task")
    log.task(TASK, "arch_reviewing", "APPROVE_DESIGN", "arch_approved")
    log.task(TASK, "arch_approved", "AUTO_ROUTE_TO_QA", "pending_qa")
    log.task(TASK, "pending_qa", "CLAIM_TESTING", "qa_testing")
    log.task(TASK, "qa_testing", "APPROVE_TESTS", "qa_passed")
    log.task(TASK, "qa_passed", "AUTO_ROUTE_TO_PO", "pending_po_approval")
    return ask(log, "task_acceptance", subject("tree", TASK, digest("candidate tree")))


@pytest.mark.rule("LC-112")
def test_accepted_task_moves_on_with_its_grant():
    granted, moved = decide(accepted().state, "task_acceptance", ANA)
    assert granted.type == "ApprovalGranted"
    assert isinstance(moved, TaskTransitioned)
    assert (moved.action, moved.to, moved.actor_type, moved.evidence) == (
        "APPROVE_STORY",
        "po_approved",
        "human",
        (digest("candidate tree"),),
    )


@pytest.mark.rule("LC-114")
def test_rejected_task_goes_back_to_work_with_the_reason():
    _, moved = decide(accepted().state, "task_acceptance", ANA, approve=False, notes="umlauts are still missing")
    assert isinstance(moved, TaskTransitioned)
    assert (moved.action, moved.to, moved.feedback) == ("REQUEST_REWORK", "implementing", "umlauts are still missing")


@pytest.mark.rule("LC-75")
def test_agent_never_approves_what_it_wrote():
    author = Caller(principal=DEVELOPER, roles=frozenset({"po"}))
    with pytest.raises(PolicyDenied) as refused:
        decide(accepted().state, "task_acceptance", author, delegation_id=DELEGATION)
    assert refused.value.details["rule_id"] == "author_is_approver"
    other = Caller(principal=REVIEWER, roles=frozenset({"po"}))
    granted, _ = decide(accepted().state, "task_acceptance", other, delegation_id=DELEGATION)
    assert isinstance(granted, ApprovalGranted)
    assert (granted.delegated, granted.delegation_id) == (True, DELEGATION)


@pytest.mark.rule("LC-75")
@pytest.mark.parametrize(("rigor", "allowed"), [("L2", True), ("L3", False)])
def test_person_approves_own_work_below_the_highest_rigor_only(rigor: Any, allowed: bool):
    log = accepted()
    own = replace(log.state.tasks[TASK], author=PO)
    state = log.state.with_(rigor=rigor, tasks={**log.state.tasks, TASK: own})
    if allowed:
        assert decide(state, "task_acceptance", ANA)
        return
    with pytest.raises(PolicyDenied, match="is an author"):
        decide(state, "task_acceptance", ANA)


@pytest.mark.rule("LC-75")
def test_po_approves_the_scope_of_an_own_story_at_the_highest_rigor():
    assert decide(scope().state.with_(rigor="L3"), "approve_scope", ANA)


def test_authors_of_a_subject_are_those_on_record():
    state = story().state
    assert subject_authors(state, subject("content", STORY, CONTENT)) == {PO}
    assert subject_authors(state, subject("plan", PLAN, digest("plan"))) == {Principal("agent:architect-001")}
    assert subject_authors(state, subject("tree", TASK, MERGED)) == {DEVELOPER}
    assert subject_authors(state, subject("docs", STORY, digest("docs"))) == {DEVELOPER, SYSTEM}
    assert subject_authors(state, subject("report", STORY, digest("report"))) == frozenset()
    fresh = story(until="created").state
    assert subject_authors(fresh, subject("plan", PLAN, digest("plan"))) == frozenset()
    bare = story(until="planned").state
    assert subject_authors(bare, subject("tree", TASK, MERGED)) == frozenset()


@pytest.mark.rule("LC-70", "LC-90")
def test_grant_is_valid_until_it_is_voided_or_expires():
    log = story(until="scope")
    state = log.state
    found = valid_grant(state, "approve_scope", CONTENT, now_ms=NOW)
    assert found is not None
    assert found.grant is not None
    assert valid_grant(state, "approve_scope", CONTENT, now_ms=found.grant.expires_at_ms) is None
    assert valid_grant(state, "approve_scope", digest("other"), now_ms=NOW) is None
    assert valid_grant(state, "approve_design", CONTENT, now_ms=NOW) is None
    log.move("DESIGN", "reject_design", "DRAFT", loopback=True)
    assert valid_grant(log.state, "approve_scope", CONTENT, now_ms=NOW) is None


@pytest.mark.rule("LC-70")
@pytest.mark.parametrize("kind", ["rejected", "expired", "revoked"])
def test_request_that_was_not_granted_is_no_consent(kind: str):
    log = scope()
    ending: Payload = {
        "rejected": ApprovalRejected(
            approval_id=EntityId("ap-one1"), principal=PO, as_role="po", reason="not like this", delegated=False
        ),
        "expired": ApprovalExpired(approval_id=EntityId("ap-one1"), attempt=1),
        "revoked": ApprovalRevoked(approval_id=EntityId("ap-one1"), principal=PO, reason="a mistake"),
    }[kind]
    log.add(ending)
    assert valid_grant(log.state, "approve_scope", CONTENT, now_ms=NOW) is None
    found = last_request(log.state, "approve_scope", CONTENT)
    assert found is not None
    assert found.status == kind


@pytest.mark.rule("LC-77")
@pytest.mark.parametrize(
    ("gate", "rigor"),
    [("approve_deploy", "L0"), ("raise_budget", "L0"), ("waive_dimension", "L1"), ("approve_scope", "L3")],
)
def test_gate_that_is_never_delegated_or_above_its_cap_is_refused(gate: str, rigor: str):
    with pytest.raises(PolicyDenied) as refused:
        check_delegable(fsm(), "agile", gate, rigor)
    assert refused.value.details["rule_id"] == "LC-77"


@pytest.mark.rule("LC-77")
def test_gate_within_its_cap_may_be_delegated():
    for rigor in ("L0", "L1", "L2"):
        check_delegable(fsm(), "agile", "approve_scope", rigor)
    check_delegable(fsm(), "sdlc", "approve_design", "L3")
    with pytest.raises(PolicyDenied):
        check_delegable(fsm(), "agile", "approve_scope", "L9")


@pytest.mark.rule("LC-77")
def test_delegation_covers_its_gate_until_its_end_and_up_to_its_rigor():
    state = story(until="started").state
    found = delegation_for(state, "approve_scope", now_ms=NOW)
    assert found is not None
    assert (found.delegate, found.granted_by) == (REVIEWER, PO)
    assert delegation_for(state, "approve_design", now_ms=NOW) is None
    assert delegation_for(state, "approve_scope", now_ms=found.valid_until) is None
    assert delegation_for(state.with_(rigor="L2"), "approve_scope", now_ms=NOW) is not None
    assert delegation_for(state.with_(rigor="L3"), "approve_scope", now_ms=NOW) is None
    assert delegation_for(story(until="created").state, "approve_scope", now_ms=NOW) is None


@pytest.mark.rule("LC-77")
def test_delegated_grant_rests_on_a_recorded_fact():
    state = story(until="merged").state
    content, tree = subject("content", STORY, CONTENT), subject("tree", STORY, MERGED)
    assert supporting_fact(state, content) == "readiness score 95"
    assert supporting_fact(state.with_(score=None), content) is None
    assert "98.7" in (supporting_fact(state, tree) or "")
    warned = state.scores[MERGED].model_copy(update={"verdict": "warn"})
    assert supporting_fact(state.with_(scores={MERGED: warned}), tree) is None
    assert supporting_fact(state, subject("report", STORY, digest("x"))) is None
    documented = story(until="docs").state
    assert supporting_fact(documented, subject("docs", STORY, Digest(digest("docs")))) is not None


def sdlc(gate: str, about: Subject, *, until: Stage) -> StoryLog:
    """A story of `sdlc` whose gate waits."""
    log = story(until=until, created=created_payload(lifecycle="sdlc"))
    return ask(log, gate, about, role="architect")


ARCHIE = Caller(principal=Principal("user:archie"), roles=frozenset({"architect"}))
PLANNED = subject("plan", PLAN, digest("plan"))


def signed(log: StoryLog, name: str, gate: str) -> bool:
    """Whether the guard holds of the story now."""
    row = next(r for r in fsm().lifecycles["sdlc"].transitions if r.gate == gate)
    context = GuardContext(config=fsm(), now_ms=NOW, transition=row.model_copy(update={"guards": (name,)}))
    (found,) = evaluate(log.state, context)
    return found.ok


@pytest.mark.rule("LC-58")
def test_design_is_signed_off_by_whoever_may_approve_it_for_the_plan_that_it_is_about():
    log = sdlc("approve_design", PLANNED, until="planned")
    assert not signed(log, "design_signoff", "approve_design")
    with pytest.raises(PolicyDenied):
        decide(log.state, "approve_design", DEV)
    granted, *_ = decide(log.state, "approve_design", ARCHIE)
    assert signed(log.add(granted, actor=ARCHIE.principal), "design_signoff", "approve_design")
    plan = log.state.plan
    assert plan is not None
    other = replace(plan, proposal=plan.proposal.model_copy(update={"plan_digest": digest("another plan")}))
    changed = log.state.with_(plans={**log.state.plans, plan.proposal.plan_id: other})
    row = next(r for r in fsm().lifecycles["sdlc"].transitions if r.gate == "approve_design")
    results = evaluate(changed, GuardContext(config=fsm(), now_ms=NOW, transition=row))
    assert {r.name: r.ok for r in results}["design_signoff"] is False


@pytest.mark.rule("LC-59", "LC-75")
def test_review_is_signed_off_by_nobody_who_wrote_something_in_the_tree():
    tree = subject("tree", STORY, MERGED)
    log = sdlc("review_approved", tree, until="merged").move("TEST", "tests_done", "REVIEW")
    assert not signed(log, "review_signoff", "review_approved")
    for author in (ARCHIE.principal, Principal("agent:architect-001")):
        wrote = log.state.with_(tree_authors=(*log.state.tree_authors, author))
        with pytest.raises(PolicyDenied) as refused:
            decide(wrote, "review_approved", Caller(principal=author, roles=frozenset({"architect"})))
        assert refused.value.details["rule_id"] == "author_is_approver"
    granted, *_ = decide(log.state, "review_approved", ARCHIE)
    assert signed(log.add(granted, actor=ARCHIE.principal), "review_signoff", "review_approved")


@pytest.mark.rule("LC-99", "LC-91")
@pytest.mark.parametrize(("role", "mends"), [("developer", "developer"), ("data", "data")])
def test_no_of_a_review_goes_back_to_the_role_that_did_all_the_work(role: str, mends: str):
    log = sdlc("review_approved", subject("tree", STORY, MERGED), until="merged").move("TEST", "tests_done", "REVIEW")
    done = {
        name: replace(task, task=task.task.model_copy(update={"role": role})) for name, task in log.state.tasks.items()
    }
    no = Reject(gate="review_approved", reason="the schema has no index")
    said = no.decide(log.state.with_(tasks=done), facts(ARCHIE))
    assert [one.type for one in said if isinstance(one, Payload)] == [
        "ApprovalRejected",
        "StoryTransitioned",
        "TaskAdded",
    ]
    moved, added = said[1:]
    assert isinstance(moved, StoryTransitioned)
    assert isinstance(added, TaskAdded)
    assert (moved.event, moved.to, added.task.role) == ("request_changes", "BUILD", mends)
