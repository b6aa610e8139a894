"""Closed names and constrained scalars that event payloads are made of (GL-6, GL-11, GL-12)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue

Origin = Literal[
    "coach",
    "planning",
    "approvals",
    "tasks",
    "steps",
    "scorer",
    "council",
    "context",
    "budget",
    "owner",
    "report",
    "admin",
]
"""The service whose result an event records (EV-17)."""

EventGroup = Literal[
    "story",
    "approval",
    "task",
    "plan",
    "step",
    "workspace",
    "decision",
    "council",
    "context",
    "budget",
    "report",
    "platform",
]
"""Groups of the event stream that clients subscribe to (AP-101)."""

ActorType = Literal["human", "agent", "system"]
StepKind = Literal["model", "tool", "run", "merge", "notify"]
StepOutcome = Literal["succeeded", "failed", "denied", "timed_out", "cancelled"]
EvidenceKind = Literal["report", "run", "artifact"]
"""What a decision can be based on (GR-54)."""
DecisionOrigin = Literal["agent", "human", "council"]
SubjectKind = Literal[
    "content",
    "plan",
    "tree",
    "docs",
    "tree+environment",
    "report",
    "report+dimension",
    "object",
    "request",
]
"""What the digest of an approval's subject is taken over (LC-71)."""
BudgetScopeKind = Literal["platform", "project", "story", "task", "council", "role", "principal", "step"]
StuckPattern = Literal[
    "repeated_result",
    "repeated_failure",
    "no_usable_reply",
    "alternating_calls",
    "repeated_denial",
    "unchanged_tree",
    "repeated_summary",
]
"""The patterns of MB-40, in its order."""
ParkCause = Literal[
    "outcome_unknown",
    "crash_loop",
    "plan_stalled",
    "derivation_failed",
    "loopback_limit",
    "rework_limit",
    "budget_exhausted",
    "council_undecided",
    "stuck",
    "approval_unanswered",
    "nondeterministic_plan",
    "unsupported_schema",
    "log_regressed",
    "internal_error",
    "operator",
]
"""Why a story is parked (LC-94)."""
TaskState = Literal[
    "todo",
    "implementing",
    "dev_completed",
    "pending_arch_review",
    "arch_reviewing",
    "arch_approved",
    "arch_rejected",
    "pending_qa",
    "qa_testing",
    "qa_passed",
    "qa_failed",
    "pending_po_approval",
    "po_approved",
    "done",
    "cancelled",
]
TaskAction = Literal[
    "ASSIGN_TO_DEVELOPER",
    "COMMIT_CODE",
    "AUTO_ROUTE_TO_ARCHITECT",
    "CLAIM_REVIEW",
    "APPROVE_DESIGN",
    "REJECT_DESIGN",
    "REVISE_CODE",
    "AUTO_ROUTE_TO_QA",
    "CLAIM_TESTING",
    "APPROVE_TESTS",
    "REJECT_TESTS",
    "AUTO_ROUTE_TO_PO",
    "APPROVE_STORY",
    "REJECT_STORY",
    "REQUEST_REWORK",
    "AUTO_COMPLETE",
    "MERGE_FAILED",
    "DISCARD_TASK",
    "RESTORE",
    "RELEASE_CLAIM",
]
"""Actions of the task workflow (LC-100..LC-117), what a restored checkpoint does to a task (PL-47), and a review that
nobody holds any more (LC-130)."""

StateName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,39}$")]
"""A state of a lifecycle of config/fsm.yaml."""
EventName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")]
"""An event of a lifecycle of config/fsm.yaml, e.g. `approve_scope`."""
GateName = Annotated[str, Field(pattern=r"^([a-z][a-z0-9_]{0,59}|tool:[a-z0-9_]+\.[a-z0-9_]+)$")]
"""A gate of config/fsm.yaml, or `tool:<tool>.<op>`."""
DelegateName = Annotated[str, Field(pattern=r"^(council:)?[a-z][a-z0-9_-]{0,59}$")]
"""An agent role, or `council:<role>` (LC-77)."""
DecimalText = Annotated[str, Field(pattern=r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$")]
"""A ratio or score as a decimal string, e.g. `98.7` (GL-12)."""
Millis = Annotated[int, Field(ge=0)]
"""Milliseconds: a UTC time since the Unix epoch (`_at`), or a duration (`_ms`)."""
Count = Annotated[int, Field(ge=0)]
"""How many: tokens, bytes, attempts, lines."""
Version = Annotated[int, Field(ge=0)]
"""A version of a stream."""
PriorityValue = Annotated[int, Field(ge=1, le=10)]
"""1 is the highest, 10 the lowest."""


def _without_floats(value: JsonValue) -> JsonValue:
    match value:
        case float():
            raise ValueError("events hold no floats: use a decimal string or an integer")
        case dict():
            for child in value.values():
                _without_floats(child)
        case list():
            for child in value:
                _without_floats(child)
        case _:
            pass
    return value


Json = Annotated[JsonValue, AfterValidator(_without_floats)]
"""Any JSON value without floats."""
