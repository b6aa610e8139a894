"""Models of commands: what queued bodies read as, what bad ones are told, what is queued again (EV-17, GL-15)."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.kernel.errors import InvalidInput
from fleet.policy.runs.spec import RunSpec
from fleet.story.commands.catalogue import NAMES, parse_command

WHY = "nobody needs it any more"
QUEUED: dict[str, tuple[str, dict[str, Any]]] = {
    "front approves": ("approve", {"gate": "approve_scope", "notes": "", "reason": ""}),
    "inbox of gates approves": ("approve", {"gate": "ap-1", "notes": "it is good"}),
    "front rejects": ("reject", {"gate": "approve_scope", "notes": "", "reason": WHY}),
    "inbox of gates rejects": ("reject", {"gate": "ap-1", "reason": WHY, "back": "reject_design"}),
    "yes to a tool is revoked": ("revoke", {"gate": "ap-1", "reason": WHY}),
    "event is fired": ("transition", {"event": "reject_design", "reason": WHY}),
    "event is fired in a role": ("transition", {"event": "reject_design", "reason": "", "actor": "po"}),
    "gate is asked for": ("request_approval", {"gate": "approve_scope"}),
    "story is paused": ("pause_story", {"reason": WHY}),
    "story is resumed": ("resume_story", {"note": ""}),
    "story is unparked": ("unpark", {"note": "continued by fleet resume"}),
    "story is cancelled": ("cancel", {"reason": WHY}),
    "story is archived": ("archive_story", {"reason": WHY}),
    "dimension is waived": ("waive_dimension", {"dimension": "lint", "reason": WHY, "days": 3}),
    "criterion is waived": ("waive_criterion", {"ac_id": "ac-2", "reason": WHY}),
    "tree is restored": ("restore_story", {"checkpoint": "12", "reason": WHY}),
    "decision is proposed": (
        "propose_decision",
        {
            "title": "Fold by table",
            "rationale": "Everybody else does it so.",
            "category": "ARCHITECTURE",
            "alternatives": ["Fold by rule"],
            "affects": [],
            "links": [{"rel": "DEPENDS_ON", "decision_id": "de-1"}],
            "based_on": [],
        },
    ),
    "decision is accepted": ("accept_decision", {"decision_id": "de-1", "note": ""}),
    "decision is rejected": ("reject_decision", {"decision_id": "de-1", "reason": WHY}),
    "decision is superseded": (
        "supersede_decision",
        {"decision_id": "de-1", "by_decision_id": "de-2", "reason": WHY},
    ),
    "story is edited": ("edit_story", {"changes": {"title": "Fold"}, "reason": None}),
    "advice is taken": ("apply_advice", {"proposals": ["wrap"]}),
    "rigor is set": ("set_rigor", {"rigor": "L2", "reason": WHY}),
    "question is asked": ("ask_question", {"text": "Why?", "severity": "blocking", "kind": "question"}),
    "question is answered": ("answer_question", {"question_id": "qu-1", "answer": "Because."}),
    "context is changed": (
        "change_context",
        {
            "changes": [
                {"operation": "DELETE", "entity_type": "TASK", "entity_id": "tk-1", "payload": {}, "reason": WHY},
                {"operation": "CREATE", "entity_type": "QUESTION", "payload": {"text": "Why?"}, "reason": WHY},
            ]
        },
    ),
    "budget is set": (
        "set_budget",
        {"scope": "task", "id": "tk-1", "limits": {"tokens": 5, "wall_ms": None}, "note": ""},
    ),
    "plan is written": ("write_plan", {"rationale": WHY, "tasks": [{"title": "Fold"}], "previous_plan_id": "pv-1"}),
    "plan is adopted": ("adopt_plan", {"plan_id": "pv-1", "decision_id": "de-1"}),
    "plan is rejected": ("reject_plan", {"plan_id": "pv-1", "reason": WHY}),
    "tasks are derived": ("derive_tasks", {}),
    "task is claimed": ("claim_task", {"task_id": "tk-1", "as_role": "developer"}),
    "task is given back": ("release_task", {"task_id": "tk-1"}),
    "task is edited": ("update_task", {"task_id": "tk-1", "changes": {"priority": 2}}),
    "review is approved": (
        "act_on_task",
        {"task_id": "tk-1", "as_role": None, "action": "APPROVE_DESIGN", "feedback": "", "artifacts": []},
    ),
    "story is created": ("create_story", {"story": {"title": "Fold", "ac": ["Given a table"]}}),
    "story is created by a front": ("create_story", {"story": ["no mapping"]}),
    "story is started by a front": (
        "start_story",
        {"repo": "/srv/text", "ref": None, "model": None, "delegate": ["po", "council:architect"]},
    ),
    "story is started by the command line": (
        "start_story",
        {
            "repo": "/srv/text",
            "model": "mock",
            "delegate": [],
            "toolchain": None,
            "record": True,
            "budget": {"tokens": 5, "wall_ms": None},
            "ref": "main",
        },
    ),
    "deployment is ended": (
        "end_deployment",
        {"environment": "preview", "revision": "0a", "action": "rollback", "reason": WHY},
    ),
    "outline becomes a plan": (
        "propose_plan",
        {
            "ceremony_id": "ce-1",
            "council": "qa",
            "feedback": "It is clear.",
            "tasks": [{"title": "Fold", "role": "developer", "estimated_hours": None}],
            "notes": WHY,
        },
    ),
    "council is asked for": (
        "request_council",
        {
            "kind": "selection",
            "story_id": "st-1",
            "task_description": "How?",
            "role": "architect",
            "constraints": {"rubric": [{"name": "fit", "text": "Does it fit?", "weight": 1}], "timeout_seconds": 900},
            "output_kind": "text",
            "budget": {"tokens": 5, "wall_s": 60},
        },
    ),
    "council is sent back": ("reject_council", {"council_id": "co-1", "reason": WHY}),
    "council is cancelled": ("cancel_council", {"council_id": "co-1", "reason": WHY}),
    "tool is called": (
        "invoke_tool",
        {
            "session_id": "se-1",
            "invocation": "0a1b2c3d",
            "as_role": "developer",
            "task_id": None,
            "epoch": 3,
            "is_read_only": False,
            "call": {"tool": "files", "op": "read", "args": {"path": "a.py"}},
        },
    ),
    "run is started": (
        "start_run",
        {
            "run_id": "rn-1",
            "as_role": "developer",
            "task_id": "tk-1",
            "spec": RunSpec(argv=("make", "x")).model_dump(mode="json"),
        },
    ),
    "run is cancelled": ("cancel_run", {"run_id": "rn-1"}),
    "step is resolved": ("resolve_step", {"step_id": "run/rn-1", "outcome": "happened", "note": WHY}),
}
"""Bodies as version 1.0 queued them, by who sent which."""


@pytest.mark.rule("EV-17", "AP-2")
@pytest.mark.parametrize("which", QUEUED)
def test_body_of_an_earlier_version_is_read_and_asks_for_the_same(which: str):
    name, body = QUEUED[which]
    command = parse_command(name, body)
    assert command.command == name
    # The fields of the other answer at a gate are passed over; nothing is added that was not sent.
    assert command.body() == {key: value for key, value in body.items() if key in type(command).model_fields}
    assert parse_command(name, command.body()) == command


@pytest.mark.rule("GL-15")
@pytest.mark.parametrize(
    ("name", "body", "said", "field"),
    [
        ("pause_story", {"reason": " short "}, "reason has 5 characters; write 10 to 4,000", "reason"),
        ("pause_story", {}, "reason has 0 characters; write 10 to 4,000", "reason"),
        ("cancel", {"reason": "x" * 4001}, "reason has 4001 characters; write 10 to 4,000", "reason"),
        ("approve", {"gate": ""}, "name the gate or the approval id", "gate"),
        ("start_story", {}, "start needs a repository: its path, or its address on another machine", "repo"),
        (
            "cancel_council",
            {"council_id": "co-1", "reason": "x" * 2001},
            "reason has 2001 characters; write 10 to 2,000",
            "reason",
        ),
        (
            "resolve_step",
            {"step_id": "run/rn-1", "outcome": "maybe", "note": WHY},
            "'maybe' is no outcome: say happened or not_happened",
            "outcome",
        ),
    ],
)
def test_one_wrong_field_is_told_in_a_sentence(name: str, body: dict[str, Any], said: str, field: str):
    with pytest.raises(InvalidInput) as refused:
        parse_command(name, body)
    assert (refused.value.message, refused.value.details["field"]) == (said, field)
    assert [p["pointer"] for p in refused.value.details["problems"]] == [f"/{field}"]


@pytest.mark.rule("GL-15")
def test_all_wrong_fields_are_listed():
    with pytest.raises(InvalidInput, match=r"^restore_story is wrong: /checkpoint: .*; /reason: reason has 2 char"):
        parse_command("restore_story", {"checkpoint": "", "reason": "no"})


def test_unknown_command_is_told_those_that_there_are():
    with pytest.raises(InvalidInput, match="there is no command 'explode'") as refused:
        parse_command("explode", {})
    assert refused.value.details["allowed"] == sorted(NAMES)
