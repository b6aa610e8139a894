"""What goes into a policy decision and what comes out of it (RT-30..RT-34).

What the caller says (`ToolCall`) and what the product knows (`CallFacts`, `ApprovalRecord`) are different types. Only
the second can open anything: a call has no field for a consent; a consent is looked up from what is on record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue

from fleet.kernel.digest import digest_of_json
from fleet.kernel.ids import Digest, EntityId, Principal
from fleet.kernel.types import ApprovalStatus, EffectClass, Frozen, Phase, Rigor
from fleet.policy.capabilities import ToolGate
from fleet.policy.rules.table import Origin


def _has_a_digest(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        digest_of_json(value)
    except (TypeError, UnicodeEncodeError, RecursionError) as error:
        raise ValueError("use texts and integers; it has no canonical form") from error
    return value


CallArgs = Annotated[dict[str, JsonValue], AfterValidator(_has_a_digest)]
"""Arguments of a call, by name."""


# Source: RT-32.
class ToolCall(Frozen):
    """What the caller asks for. Any other field, such as `approved`, is refused."""

    tool: Annotated[str, Field(max_length=40)]
    op: Annotated[str, Field(max_length=40)]
    args: CallArgs = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFacts:
    """What the product knows about a call: session, story and task, never anything that the caller wrote."""

    principal: Principal
    is_enabled: bool
    """Authenticated, registered and not disabled."""
    role: str
    """The role in which the principal acts."""
    roles_held: frozenset[str]
    phase: Phase
    story: Literal["active", "parked", "cancelled", "closed"]
    rigor: Rigor
    epoch: int
    """Under which the call was opened."""
    current_epoch: int
    """Of the story now."""
    origin: Origin = "caller"
    """`product` for the journal's own steps, which no caller can name."""
    task: EntityId | None = None
    claimed_by: Principal | None = None
    """Who has the task."""
    is_read_only: bool = False
    """Planning steps, critics and voters are offered reading only (RT-35)."""
    used_up: str = ""
    """Which budget of the story is used up, in words; empty while there is room."""
    tree: Digest | None = None
    """The workspace that the call is about."""
    environment: str | None = None
    """The environment that it is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRecord:
    """A request for consent as the story's events have it, in their order (LC-70)."""

    approval_id: EntityId
    gate: str
    subject: Digest
    status: ApprovalStatus
    principal: Principal | None = None
    """Who granted."""
    as_role: str | None = None
    """In which role that principal granted."""
    expires_at_ms: int = 0
    """Until when the grant holds."""
    is_delegated: bool = False
    is_consumed: bool = False
    """A step was started on it; it is for one call only (RT-33)."""


class Obligations(Frozen):
    """What whoever carries the call out has to keep."""

    is_recorded: bool
    """The decision goes on record before the call starts (RT-31)."""
    effect: EffectClass
    timeout_s: int
    output_limit_kb: int
    """KiB of output that are kept."""
    hosts: tuple[str, ...] = ()
    """Reachable hosts; none means no network."""
    confine: tuple[str, ...] = ()
    """Arguments to be resolved below the workspace root without following links (RT-57)."""
    write_paths: tuple[str, ...] = ()
    """Globs that changed files are bound to; none means everywhere inside the workspace."""
    preconditions: tuple[str, ...] = ()
    postconditions: tuple[str, ...] = ()
    consumes: EntityId | None = None
    """The approval that the step has to name, which uses it up (RT-33)."""


class _Decision(Frozen):
    rule_id: str
    """The rule of config/policy.yaml, or the check of RT-30, that decided."""
    policy_digest: Digest
    request_digest: Digest
    """Digest of tool, operation, arguments, tree and environment (RT-33)."""
    reason: str


class Allowed(_Decision):
    """The call may start now, under these obligations."""

    kind: Literal["allowed"] = "allowed"
    obligations: Obligations


class NeedsApproval(_Decision):
    """The call may start once a person has said yes to exactly this request (RT-34)."""

    kind: Literal["needs_approval"] = "needs_approval"
    gate: ToolGate
    approval_id: EntityId | None
    """The request that waits for an answer; None when one has to be recorded."""


class Denied(_Decision):
    """The call is refused."""

    kind: Literal["denied"] = "denied"


PolicyDecision = Annotated[Allowed | NeedsApproval | Denied, Field(discriminator="kind")]


def request_digest(call: ToolCall, facts: CallFacts) -> Digest:
    """What an approval is about; changing any argument, the tree or the environment needs a new one (RT-33)."""
    return digest_of_json(request_document(call, facts))


def request_document(call: ToolCall, facts: CallFacts) -> dict[str, JsonValue]:
    """What `request_digest` is taken over; its canonical JSON is what a person is shown (RT-33)."""
    return {"tool": call.tool, "op": call.op, "args": call.args, "tree": facts.tree, "environment": facts.environment}
