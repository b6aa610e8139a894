"""Commands on a story: what they record, and what they refuse (LC-3, LC-4, LC-11, LC-78, LC-93..LC-95)."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.events.approval import ApprovalGranted, ApprovalRequested, Subject
from fleet.events.payload import Payload
from fleet.events.story import StoryCancelled, StoryClosed, StoryParked, StoryTransitioned, StoryUnparked
from fleet.kernel.errors import GateClosed, InvalidInput, InvalidTransition, PolicyDenied
from fleet.kernel.ids import EntityId, Principal
from fleet.story.commands.command import Caller
from fleet.story.commands.gates import fire, refusal
from fleet.story.commands.interventions import Cancel, Unpark
from fleet.story.text import parse
from tests.support.rules import fsm
from tests.support.story_events import CONTENT, MERGED, PO, STORY, SYSTEM, T0, StoryLog, digest, facts, story, subject

ANA = Caller(principal=PO, roles=frozenset({"po"}))
QA = Caller(principal=Principal("user:quinn"), roles=frozenset({"qa"}))
DEV = Caller(principal=Principal("user:dev"), roles=frozenset({"developer"}))
OWNER = Caller(principal=SYSTEM, roles=frozenset({"system"}))
NOW = T0 + 600_000


def draft(*, ready: bool = True) -> StoryLog:
    log = story(until="started" if ready else "created").move("BACKLOG", "create_story", "DRAFT")
    return request(log, "approve_scope", subject("content", STORY, CONTENT))


def request(log: StoryLog, gate: str, about: Subject, *, role: str = "po", number: int = 1) -> StoryLog:
    return log.add(
        ApprovalRequested(
            approval_id=EntityId(f"ap-{role}-{number}"),
            gate=gate,
            role=role,
            actor="human",
            subject=about,
            risk="low",
            expires_at=NOW + 86_400_000,
            attempt=number,
            card_digest=digest("card"),
            requested_by=SYSTEM,
        )
    )


def go(log: StoryLog, event: str, caller: Caller, *, reason: str = "") -> tuple[Payload, ...]:
    return fire(log.state, fsm(), event, caller=caller, now_ms=NOW, reason=reason)


@pytest.mark.rule("LC-3")
def test_event_outside_the_table_is_refused_with_what_is_allowed():
    with pytest.raises(InvalidTransition) as refused:
        go(draft(), "qa_passed", ANA)
    assert refused.value.details == {"state": "DRAFT", "event": "qa_passed", "allowed": ["approve_scope"]}


@pytest.mark.rule("LC-3", "LC-93")
@pytest.mark.parametrize(
    "payload",
    [
        StoryParked(cause="stuck", detail="nothing moved"),
        StoryCancelled(reason="nobody needs it"),
        StoryClosed(final_state="DONE", report_id=None),
    ],
    ids=["parked", "cancelled", "closed"],
)
def test_story_that_is_not_active_takes_no_event(payload: Payload):
    with pytest.raises(InvalidTransition) as refused:
        go(draft().add(payload), "approve_scope", ANA)
    assert refused.value.details["allowed"] == []


@pytest.mark.rule("LC-11")
@pytest.mark.parametrize("caller", [DEV, QA, OWNER], ids=["developer", "qa", "owner"])
def test_caller_who_may_not_fire_the_event_is_refused(caller: Caller):
    with pytest.raises(PolicyDenied) as refused:
        go(story(until="planned"), "reject_design", caller, reason="a reason long enough")
    assert refused.value.details["rule_id"] == "LC-11"


@pytest.mark.rule("LC-11", "LC-26", "LC-65")
def test_loop_back_needs_the_role_and_a_reason():
    with pytest.raises(GateClosed):
        go(story(until="planned"), "reject_design", ANA, reason="too short")
    moved, *_ = go(story(until="planned"), "reject_design", ANA, reason="  the table is missing  ")
    assert isinstance(moved, StoryTransitioned)
    assert (moved.to, moved.loopback, moved.reason) == ("DRAFT", True, "the table is missing")


@pytest.mark.rule("LC-78")
def test_person_who_holds_the_gate_consents_by_firing():
    granted, moved = go(draft(), "approve_scope", ANA)
    assert isinstance(granted, ApprovalGranted)
    assert (granted.principal, granted.approval_id, granted.delegated) == (PO, "ap-po-1", False)
    assert isinstance(moved, StoryTransitioned)
    assert (moved.from_, moved.to, [g.ok for g in moved.guards]) == ("DRAFT", "DESIGN", [True, True])


@pytest.mark.rule("LC-78", "LC-4")
def test_no_consent_is_recorded_when_another_guard_is_false():
    with pytest.raises(GateClosed) as refused:
        go(draft(ready=False), "approve_scope", ANA)
    guards = refused.value.details["guards"]
    assert [(g["name"], g["ok"]) for g in guards] == [("dor_ok", False), ("po_approved", True)]
    record = refusal(draft(ready=False).state, refused.value, ANA)
    assert (record.state, record.event, record.principal, len(record.guards)) == ("DRAFT", "approve_scope", PO, 2)


@pytest.mark.rule("LC-72", "LC-76")
def test_owner_that_fires_a_gate_gives_no_consent():
    with pytest.raises(GateClosed) as refused:
        go(draft(), "approve_scope", OWNER)
    assert [g["name"] for g in refused.value.details["guards"] if not g["ok"]] == ["po_approved"]


@pytest.mark.rule("LC-10")
def test_owner_moves_a_story_whose_consent_is_on_record():
    log = story(only=("created", "scored", "started")).move("BACKLOG", "create_story", "DRAFT")
    log.gate("approve_scope", subject("content", STORY, CONTENT), by=PO)
    (moved,) = go(log, "approve_scope", OWNER)
    assert isinstance(moved, StoryTransitioned)
    assert moved.to == "DESIGN"


def test_consent_is_for_the_newest_request_of_the_gate():
    log = story(until="merged")
    request(log, "qa_passed", subject("tree", STORY, digest("an earlier tree")), role="qa", number=1)
    request(log, "qa_passed", subject("tree", STORY, MERGED), role="qa", number=2)
    granted, _ = go(log, "qa_passed", QA)
    assert isinstance(granted, ApprovalGranted)
    assert (granted.approval_id, granted.subject_digest) == ("ap-qa-2", MERGED)


@pytest.mark.rule("LC-95")
def test_unparking_needs_a_parked_story_and_a_note():
    parked = story(until="base").add(StoryParked(cause="stuck", detail="nothing moved")).state
    (payload,) = Unpark(note=" look at it again ").decide(parked, facts())
    assert isinstance(payload, StoryUnparked)
    assert (payload.by, payload.note, payload.cause) == (PO, "look at it again", "stuck")
    with pytest.raises(InvalidInput):
        Unpark(note="short").decide(parked, facts())
    with pytest.raises(InvalidTransition):
        Unpark(note="look at it again").decide(story(until="base").state, facts())


@pytest.mark.rule("LC-93")
def test_cancelling_needs_a_reason_and_a_story_that_is_not_over():
    (payload,) = Cancel(reason="nobody needs it any more").decide(story(until="base").state, facts())
    assert isinstance(payload, StoryCancelled)
    with pytest.raises(InvalidInput):
        Cancel(reason="no")
    for over in (story(), story(until="base").add(payload)):
        with pytest.raises(InvalidTransition):
            Cancel(reason="nobody needs it any more").decide(over.state, facts())


def text(**changes: Any) -> dict[str, Any]:
    return {"title": "Make slugs", "description": "For links.", "acceptance_criteria": ["Given x, y holds"]} | changes


@pytest.mark.rule("GL-6")
def test_aliases_of_the_fields_and_of_rigor_are_translated():
    found = parse({"title": " Make slugs ", "brief": "For links.", "ac": ["Given x, y holds"], "rigor": "critical"})
    assert (found.title, found.description, found.acceptance_criteria) == (
        "Make slugs",
        "For links.",
        ("Given x, y holds",),
    )
    assert (found.rigor, found.lifecycle, found.priority, found.hold) == ("L3", "agile", 5, False)
    assert parse(text(rigor="l2")).rigor == "L2"


@pytest.mark.rule("GL-7")
def test_text_is_normalised_so_that_equal_looking_stories_are_equal():
    composed, decomposed = "Gr\u00f6\u00dfe", "Gro\u0308\u00dfe"
    assert parse(text(title=decomposed, tags=[decomposed])) == parse(text(title=composed, tags=[composed]))


@pytest.mark.rule("GL-15")
@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"title": ""}, "/title"),
        ({"title": "x" * 201}, "/title"),
        ({"title": "bell\x07"}, "/title"),
        ({"description": "x" * 20_001}, "/brief"),
        ({"acceptance_criteria": [""]}, "/ac/0"),
        ({"acceptance_criteria": ["x"] * 51}, "/ac"),
        ({"rigor": "L9"}, "/rigor"),
        ({"priority": 0}, "/priority"),
        ({"tests_passing": True}, "/tests_passing"),
        ({"constraints": {"ratio": 0.5}}, "/constraints"),
    ],
)
def test_bad_field_is_named_by_its_pointer(changes: dict[str, Any], pointer: str):
    with pytest.raises(InvalidInput) as refused:
        parse(text(**changes))
    pointers = [p["pointer"] for p in refused.value.details["problems"]]
    assert [p for p in pointers if p.startswith((pointer, pointer.replace("/brief", "/description")))] or [
        p for p in pointers if p.startswith(pointer.replace("/ac", "/acceptance_criteria"))
    ]


@pytest.mark.rule("GL-15")
def test_every_problem_is_listed_at_once():
    with pytest.raises(InvalidInput) as refused:
        parse({"title": "", "priority": 11, "stray": 1})
    assert len(refused.value.details["problems"]) == 3


@pytest.mark.parametrize("data", [None, [], "a story", 7])
def test_story_that_is_no_mapping_is_refused(data: Any):
    with pytest.raises(InvalidInput, match="a story is a mapping"):
        parse(data)
