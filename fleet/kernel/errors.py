"""The closed tree of errors: what is wrong, where, and what to do.

    FleetError            code (stable), retry: NEVER | RELOAD | LATER, details
    +- DomainError        InvalidInput  InvalidTransition  GateClosed  AlreadyClaimed  QuorumNotReached  BudgetExceeded
    +- PolicyDenied       ApprovalRequired
    +- NotFound           StoryNotFound  ArtifactNotFound
    +- OwnershipError     LeaseHeld  OwnershipLost
    +- ConflictError      VersionConflict  IdempotencyMismatch
    +- StoreError         StoreUnavailable  StoreFull  CommitUnknown  LogCorrupted  LogRegressed  UnsupportedSchema
    +- StepError          ToolFailed  ToolTimeout  SandboxUnavailable  OutcomeUnknown  NondeterministicPlan
    +- ModelError         ModelUnavailable  ModelTimeout  ContextTooLarge  ReplyMalformed  ReplyRefused
    +- ConfigError
    +- EdgeError          MalformedRequest  IdempotencyKeyRequired  Unauthenticated  PreconditionFailed
                          PayloadTooLarge  UnsupportedMediaType  PreconditionRequired  RateLimited

Codes and HTTP rows: docs/spec/api.md, section 2 (AP-20..AP-46). Only `code` and `details` cross a trust boundary
(AP-47); `from_wire` looks the class up in a closed table and never builds a class that the other side named.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar


class Retry(StrEnum):
    """Whether the same call may come again: never, after a reload of the state, or later with the same command id."""

    NEVER = "never"
    RELOAD = "reload"
    LATER = "later"


class FleetError(Exception):
    """Base of everything this product raises; the message says what is wrong, where, and what to do."""

    code: ClassVar[str] = "internal_error"
    retry: ClassVar[Retry] = Retry.NEVER

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = details

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.details))

    def to_wire(self) -> dict[str, Any]:
        """The form that may cross a trust boundary: code, message, retry and details."""
        return {"code": self.code, "message": self.message, "retry": self.retry.value, "details": self.details}


def _rebuild(cls: type[FleetError], message: str, details: dict[str, Any]) -> FleetError:
    return cls(message, **details)


class DomainError(FleetError):
    """A rule of the domain refuses the request."""


class InvalidInput(DomainError):
    """The request names something that is not allowed; `problems` lists every finding (GL-15)."""

    code = "invalid_input"


class InvalidTransition(DomainError):
    """The event is not legal in the present state (LC-3)."""

    code = "invalid_transition"
    retry = Retry.RELOAD


class GateClosed(DomainError):
    """The event is legal, but guards are false; all of them are listed (LC-4)."""

    code = "gate_closed"
    retry = Retry.RELOAD


class AlreadyClaimed(DomainError):
    """Another principal holds the claim until it expires (LC-130)."""

    code = "already_claimed"
    retry = Retry.LATER


class QuorumNotReached(DomainError):
    """A decision was demanded from an undecided council."""

    code = "quorum_not_reached"


class BudgetExceeded(DomainError):
    """No scope can hold the reservation; nothing was spent (MB-22)."""

    code = "budget_exceeded"


class PolicyDenied(FleetError):
    """The policy denies the call; carries rule id and policy digest."""

    code = "policy_denied"


class ApprovalRequired(PolicyDenied):
    """A person has to approve first; carries the approval id (RT-34)."""

    code = "approval_required"
    retry = Retry.LATER


class NotFound(FleetError):
    """The object is missing, or hidden from the caller (CX-16)."""

    code = "not_found"


class StoryNotFound(NotFound):
    """No story has this id."""


class ArtifactNotFound(NotFound):
    """No blob has this digest."""


class OwnershipError(FleetError):
    """The caller does not own the stream."""

    code = "ownership_lost"
    retry = Retry.LATER


class LeaseHeld(OwnershipError):
    """Another owner holds a live lease."""

    code = "lease_held"


class OwnershipLost(OwnershipError):
    """A higher epoch exists: this owner stops and writes nothing more."""

    code = "ownership_lost"


class ConflictError(FleetError):
    """The state moved, or the same key named another request."""

    code = "version_conflict"
    retry = Retry.RELOAD


class VersionConflict(ConflictError):
    """The stream moved since the command was decided."""

    code = "version_conflict"


class IdempotencyMismatch(ConflictError):
    """The same key was used for another request (AP-2, RC-12)."""

    code = "idempotency_mismatch"
    retry = Retry.NEVER


class StoreError(FleetError):
    """A store cannot answer, or answers something that must not be trusted."""

    code = "store_unavailable"
    retry = Retry.LATER


class StoreUnavailable(StoreError):
    """The store does not answer; nothing was written by this call, or the call was a read."""

    code = "store_unavailable"


class StoreFull(StoreError):
    """The store has no room; nothing was written."""

    code = "store_full"


class CommitUnknown(StoreError):
    """The reply was lost: repeat with the same command id until the answer is definite (EV-18)."""

    code = "commit_unknown"


class LogCorrupted(StoreError):
    """A stored entry does not verify."""

    code = "log_corrupted"
    retry = Retry.NEVER


class LogRegressed(StoreError):
    """The log is behind a cursor or checkpoint: it went back in time (EV-19)."""

    code = "log_regressed"
    retry = Retry.NEVER


class UnsupportedSchema(StoreError):
    """An event is newer than this reader; the story stops and nothing is skipped (EV-30)."""

    code = "unsupported_schema"
    retry = Retry.NEVER


class StepError(FleetError):
    """A step of a story could not be carried out."""

    code = "tool_failed"


class ToolFailed(StepError):
    """A tool broke (its own non-zero exit would be a result, not this)."""

    code = "tool_failed"


class ToolTimeout(StepError):
    """The tool did not answer in its time."""

    code = "tool_timeout"
    retry = Retry.LATER


class SandboxUnavailable(StepError):
    """Nothing could hold the run, so nothing was started; names the missing item and the mend (RC-32)."""

    code = "sandbox_unavailable"
    retry = Retry.LATER


class OutcomeUnknown(StepError):
    """An UNSAFE step may or may not have happened: park and ask (RC-52)."""

    code = "outcome_unknown"


class NondeterministicPlan(StepError):
    """A recorded step differs from what the plan now wants (PL-49)."""

    code = "nondeterministic_plan"


class ModelError(FleetError):
    """A model call gave no usable reply."""

    code = "model_unavailable"
    retry = Retry.LATER


class ModelUnavailable(ModelError):
    """The engine cannot be reached, or has no recorded reply for this request."""

    code = "model_unavailable"


class ModelTimeout(ModelError):
    """The engine did not answer in its time."""

    code = "model_timeout"


class ContextTooLarge(ModelError):
    """The prompt does not fit into the model's context; sizes are listed (CX-23)."""

    code = "context_too_large"
    retry = Retry.NEVER


class ReplyMalformed(ModelError):
    """The reply is not of the asked form, after all attempts."""

    code = "reply_malformed"
    retry = Retry.NEVER


class ReplyRefused(ModelError):
    """The model refused to answer."""

    code = "reply_refused"
    retry = Retry.NEVER


class ConfigError(FleetError):
    """The configuration is wrong: names file, path and reason; only at start (GL-22)."""

    code = "config_error"


class EdgeError(FleetError):
    """What only a protocol can raise."""

    code = "malformed_request"


class MalformedRequest(EdgeError):
    """The request cannot be parsed."""

    code = "malformed_request"


class IdempotencyKeyRequired(EdgeError):
    """A mutating request came without Idempotency-Key (AP-2)."""

    code = "idempotency_key_required"


class Unauthenticated(EdgeError):
    """No bearer token, or one that nobody holds (AP-1)."""

    code = "unauthenticated"


class PreconditionFailed(EdgeError):
    """If-Match names another version (AP-3)."""

    code = "precondition_failed"
    retry = Retry.RELOAD


class PayloadTooLarge(EdgeError):
    """The body, event or append is over its limit; nothing was written."""

    code = "payload_too_large"


class UnsupportedMediaType(EdgeError):
    """The body is not of an accepted content type."""

    code = "unsupported_media_type"


class PreconditionRequired(EdgeError):
    """If-Match is missing (AP-3)."""

    code = "precondition_required"
    retry = Retry.RELOAD


class RateLimited(EdgeError):
    """Too many requests or connections of this principal."""

    code = "rate_limited"
    retry = Retry.LATER


def all_error_classes() -> tuple[type[FleetError], ...]:
    """Every class of the tree, the base first, in order of definition."""
    classes: list[type[FleetError]] = [FleetError]
    for cls in classes:
        classes.extend(cls.__subclasses__())
    return tuple(classes)


_BRANCHES = frozenset(
    {DomainError, OwnershipError, ConflictError, StoreError, StepError, ModelError, EdgeError, FleetError}
)


def from_wire(document: Mapping[str, Any]) -> FleetError:
    """The error that a document of `to_wire` stands for; ReplyMalformed with `unknown_code` for any other (AP-47)."""
    table = {cls.code: cls for cls in reversed(all_error_classes()) if cls not in _BRANCHES}
    code, details = document.get("code"), document.get("details")
    message = str(document.get("message", ""))
    kept: dict[str, Any] = {str(k): v for k, v in details.items()} if isinstance(details, Mapping) else {}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if not isinstance(code, str) or (cls := table.get(code)) is None:
        text = f"the other side answered with unknown code {code!r}: {message}"
        return ReplyMalformed(text, unknown_code=str(code)[:80])
    return cls(message, **kept)
