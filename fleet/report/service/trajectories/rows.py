"""The rows in which trajectories of stories leave the fleet: one type for each table, and the version of them all.

A table's columns are the fields of its row type, in their order. Times are UTC milliseconds, decimals are text, and
`JsonText` is canonical JSON. Additive changes keep the version; any other one raises it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NewType, TypeAlias

TRAJECTORY_SCHEMA = "swe-fleet/trajectory/1"

JsonText = NewType("JsonText", str)


@dataclass(frozen=True, slots=True)
class Criterion:
    """One acceptance criterion."""

    ac_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryRow:
    """One story: what was asked for, how it ended, and what it used (the sums of MB-30)."""

    story_id: str
    project_id: str
    title: str
    description: str
    acceptance_criteria: tuple[Criterion, ...]
    tags: tuple[str, ...]
    rigor: str
    lifecycle: str
    language: str
    model: str | None
    """Model profile of the run."""
    toolchain: str | None
    """Of its runs: the one it was started with, or the layer with the packages that its base asks for."""
    created_ms: int
    ended_ms: int | None
    state: str | None
    """State of its lifecycle; None before the first transition."""
    outcome: str
    """`delivered`, `cancelled`, `parked` or `open`."""
    parked_for: str | None
    """Cause, while it is parked."""
    score: str | None
    """Of the last tree that was scored."""
    verdict: str | None
    steps: int
    calls: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    tokens_unpriced: int
    """Tokens without a price, which is not the same as a cost of 0."""
    gpu_ms: int
    latency_ms: int
    cost_microusd: int
    events: int
    last_hash: str
    """Hash of its last event: what the rows were made from."""
    missing_blobs: int
    """Texts that the log names and nobody has any more; their columns are null."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkRow:
    """One thing that was done: a model call, a tool call, a run in the sandbox, or a call that the policy denied."""

    story_id: str
    step_id: str | None
    """None where the policy denied it before it was a step."""
    version: int
    """Of the event that began it."""
    started_ms: int
    finished_ms: int | None
    kind: str | None
    tool: str | None
    op: str | None
    effect: str | None
    role: str
    principal: str
    task_id: str | None
    council_id: str | None
    outcome: str
    """`succeeded`, `failed`, `timed_out`, `cancelled`, `denied`, `unknown` or `unfinished`."""
    error_code: str | None
    reason: str | None
    exit_code: int | None
    excerpt: str | None
    result: JsonText | None
    """The whole recorded result; of a model call, the reply as it was understood."""
    request: JsonText | None
    """Of a model call: sampling, schema and tools; its messages are in their own table."""
    engine: str | None
    model: str | None
    revision: str | None
    seed: int | None
    tree_in: str | None
    tree_out: str | None
    calls: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    latency_ms: int
    gpu_ms: int
    cost_microusd: int | None


@dataclass(frozen=True, slots=True)
class ToolAsked:
    """A tool that a model asked for, as it wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRow:
    """One message of a model call, in order: the prompt, then what the model answered."""

    story_id: str
    step_id: str
    position: int
    role: str
    content: str | None
    is_reply: bool
    """Whether a model wrote it in this call."""
    is_used: bool
    """False for replies that were of no use and made anew."""
    tool_use_id: str | None = None
    tool_uses: tuple[ToolAsked, ...] = ()


@dataclass(frozen=True, slots=True)
class SeatOfCouncil:
    """One member of a council."""

    member_id: str
    role: str
    weight: int
    can_propose: bool
    can_vote: bool
    test_author: bool


@dataclass(frozen=True, slots=True)
class PhaseTokens:
    """Tokens of one phase."""

    phase: str
    tokens: int


@dataclass(frozen=True, slots=True)
class TestDropped:
    """A generated test that did not count, and why."""

    __test__ = False

    test: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CouncilRow:
    """One council: its rules and its end."""

    story_id: str
    council_id: str
    version: int
    kind: str
    output_kind: str
    task_id: str | None
    seats: tuple[SeatOfCouncil, ...]
    quorum: int
    rounds: int
    seed: int
    rule_version: int
    tests_kept: tuple[str, ...]
    tests_dropped: tuple[TestDropped, ...]
    tests_trusted: bool | None
    outcome: str
    """`decided`, `undecided`, `cancelled` or `open`."""
    decided_in: str | None
    winner: str | None
    verdict: str | None
    estimate: int | None
    reason: str | None
    tokens: tuple[PhaseTokens, ...]
    tally: JsonText | None
    counterfactuals: JsonText | None
    """What simpler rules would have chosen."""
    minority_report: str | None
    decision_hash: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContributionRow:
    """What one member of a council delivered: a draft, tests, a critique, a repair or an estimate."""

    story_id: str
    council_id: str
    version: int
    kind: str
    """`draft`, `draft_failed`, `tests`, `critique`, `repair` or `estimate`."""
    round: int | None
    member_id: str | None
    """None for a repair, whose author is that of the draft."""
    candidate_id: str | None
    attempt: int | None
    digest: str | None
    content: JsonText | None
    kept: str | None
    """Of a repair: which version stayed."""
    reason: str | None
    value: int | None
    """Of an estimate."""
    tokens: int | None


@dataclass(frozen=True, slots=True)
class GateOutcome:
    """One hard gate of a candidate."""

    name: str
    ok: bool
    run_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceRow:
    """What running one candidate showed, after one round."""

    story_id: str
    council_id: str
    version: int
    candidate_id: str
    round: int
    tree: str | None
    gates: tuple[GateOutcome, ...]
    gates_ok: bool
    trusted_passed: int
    trusted_total: int
    cluster_id: str
    cluster_size: int
    lint_errors: int
    diff_lines: int


@dataclass(frozen=True, slots=True)
class VoteOn:
    """One vote of a ballot."""

    candidate_id: str
    vote: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BallotRow:
    """One ballot; one that was refused counts for nothing and has no votes."""

    story_id: str
    council_id: str
    version: int
    round: int
    voter: str
    attempt: int
    is_counted: bool
    refused_for: str | None
    votes: tuple[VoteOn, ...]
    ranking: tuple[str, ...]
    reasons: JsonText | None
    tokens: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """One event as recorded: nothing that happened is missing here."""

    story_id: str
    version: int
    ts_ms: int
    type: str
    schema: int
    actor: str
    body: JsonText


TrajectoryRow: TypeAlias = (
    StoryRow | WorkRow | MessageRow | CouncilRow | ContributionRow | EvidenceRow | BallotRow | EventRow
)

TRAJECTORY_TABLES: Mapping[str, type[TrajectoryRow]] = MappingProxyType(
    {
        "stories": StoryRow,
        "steps": WorkRow,
        "messages": MessageRow,
        "councils": CouncilRow,
        "contributions": ContributionRow,
        "evidence": EvidenceRow,
        "ballots": BallotRow,
        "events": EventRow,
    }
)
