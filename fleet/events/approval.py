"""Approval events (EV-120..EV-124)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fleet.events.payload import Payload, Value
from fleet.events.values import Count, EventGroup, GateName, Millis, Origin, SubjectKind
from fleet.kernel.ids import Digest, EntityId, Principal
from fleet.kernel.types import Risk, RoleName


# Source: LC-7.
class Subject(Value):
    """Exactly what an approval is about: a grant holds only while this digest is the current one."""

    kind: SubjectKind
    id: Annotated[str, Field(min_length=1)]
    digest: Digest


class _ApprovalEvent(Payload):
    group: ClassVar[EventGroup] = "approval"
    origin: ClassVar[Origin] = "approvals"
    approval_id: EntityId


# Source: LC-72.
class ApprovalRequested(_ApprovalEvent):
    """A gate waits for a decision until `expires_at`; silence is never consent."""

    type = "ApprovalRequested"
    gate: GateName
    role: RoleName
    actor: Literal["human", "any"]
    subject: Subject
    risk: Risk
    expires_at: Millis
    attempt: Count
    card_digest: Digest
    requested_by: Principal


# Source: LC-70.
class ApprovalGranted(_ApprovalEvent):
    """An authenticated principal holding the role said yes to this subject digest."""

    type = "ApprovalGranted"
    principal: Principal
    as_role: RoleName
    subject_digest: Digest
    notes: str | None = None
    grant_expires_at: Millis
    delegated: bool
    delegation_id: EntityId | None = None


class ApprovalRejected(_ApprovalEvent):
    """A principal said no, and why."""

    type = "ApprovalRejected"
    principal: Principal
    as_role: RoleName
    reason: str
    delegated: bool


class ApprovalExpired(_ApprovalEvent):
    """Nobody answered in time; this is not a rejection."""

    type = "ApprovalExpired"
    attempt: Count


class ApprovalRevoked(_ApprovalEvent):
    """A grant was taken back before it was used."""

    type = "ApprovalRevoked"
    principal: Principal
    reason: str
