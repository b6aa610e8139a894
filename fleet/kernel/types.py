"""The closed names and bounded texts that several packages speak of, each defined once (GL-6, GL-11, GL-12)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """A value: it cannot be changed, and a field that it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Rigor = Literal["L0", "L1", "L2", "L3"]
Phase = Literal["DESIGN", "BUILD", "TEST", "DOCS"]

RoleName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,59}$")]
"""Name of a role or of a profile of one, as configured, convened and recorded."""

MIN_REASON = 10
MAX_REASON = 4000
Reason = Annotated[str, Field(min_length=MIN_REASON, max_length=MAX_REASON)]
"""Why somebody does what others must be able to understand later (GL-14)."""


# Source: GL-14.
class ReasonRequest(Frozen):
    """Why."""

    reason: Reason


class NoteRequest(Frozen):
    """A note for the record."""

    note: Annotated[str, Field(max_length=4000)] = ""


CommitId = Annotated[str, Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")]
"""A git object name: 40 hex digits, or 64 in a SHA-256 repository."""

Risk = Literal["low", "medium", "high"]
Complexity = Literal["LOW", "MEDIUM", "HIGH"]
PriorityChange = Literal["HIGH", "MEDIUM", "LOW"]
EffectClass = Literal["PURE", "KEYED", "UNSAFE"]
OutcomeKind = Literal["succeeded", "failed", "timed_out", "cancelled"]
ProbeResult = Literal["happened", "not_happened", "cannot_tell"]
"""What a look at the world says about an effect that may have happened."""

TaskKind = Literal["code", "test", "design", "docs", "data", "infra", "deploy", "fix", "research"]
ChangeKind = Literal["added", "modified", "removed"]
QuestionKind = Literal["question", "clarification", "change_request"]

DecisionCategory = Literal[
    "ARCHITECTURE",
    "INFRASTRUCTURE",
    "SECURITY",
    "QUALITY",
    "TESTING",
    "DATA",
    "SCOPE",
    "PROCESS",
    "IMPLEMENTATION",
]
DecisionStatus = Literal["PROPOSED", "ACCEPTED", "REJECTED", "SUPERSEDED"]
DecisionRelation = Literal["DEPENDS_ON", "GOVERNS", "RELATES_TO"]
ContextOperation = Literal["CREATE", "UPDATE", "DELETE"]
ContextKind = Literal["DECISION", "TASK", "MILESTONE", "QUESTION", "SUMMARY"]

CouncilKind = Literal["selection", "gate", "estimate"]
OutputKind = Literal["code_patch", "design", "plan", "text"]
Vote = Literal["approve", "reject", "abstain"]
BallotRefusal = Literal["invalid", "late", "ineligible", "duplicate"]
"""Why a ballot counts for nothing; `invalid` alone is recorded, the others are read from logs (CN-47, CN-48)."""
UndecidedReason = Literal[
    "no_quorum", "no_valid_candidate", "all_rejected", "no_majority", "budget_exhausted", "deadline"
]

Dimension = Literal["build", "unit", "static", "e2e", "coverage", "lint"]
WaivableDimension = Literal["unit", "static", "e2e", "coverage", "lint"]
StageStatus = Literal["passed", "failed", "skipped", "error", "timeout"]
StaticGate = Literal["OK", "WARN", "ERROR", "NONE"]
EvidenceState = Literal["present", "missing", "not_applicable", "waived"]
Verdict = Literal["pass", "warn", "block"]

ApprovalStatus = Literal["requested", "granted", "rejected", "expired", "revoked"]
BudgetLimit = Literal["tokens", "output_tokens", "calls", "cost_microusd", "gpu_ms", "wall_ms"]
DeploymentStatus = Literal["succeeded", "failed", "unknown", "rolled_back"]
TakeoverCause = Literal["new", "expired", "restart"]
ReportFormat = Literal["md", "html", "json"]
NoticeKind = Literal["approval_requested", "time_limit_passed", "incident_opened"]
MockMode = Literal["excellent", "poor", "stubborn", "verbose", "concise", "error_prone", "inconsistent"]
"""How a mock model answers."""


def is_reason(text: str) -> bool:
    """Whether the text, without space at its ends, is as long as a reason has to be."""
    return MIN_REASON <= len(text.strip()) <= MAX_REASON
