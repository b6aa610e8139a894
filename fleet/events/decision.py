"""Decision events (EV-180..EV-184)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from fleet.events.payload import Payload, Value
from fleet.events.values import DecisionOrigin, EventGroup, EvidenceKind, Origin
from fleet.kernel.ids import EntityId, Principal
from fleet.kernel.types import DecisionCategory, DecisionRelation, Reason, RoleName


# Source: GR-49.
class DecisionLink(Value):
    """A relation to another decision."""

    rel: DecisionRelation
    decision_id: EntityId


# Source: GR-54.
class EvidenceRef(Value):
    """What a decision is based on: id of a report or run, digest of an artifact."""

    kind: EvidenceKind
    id: Annotated[str, Field(min_length=1)]


class _DecisionEvent(Payload):
    group: ClassVar[EventGroup] = "decision"
    origin: ClassVar[Origin] = "tasks"
    decision_id: EntityId


# Source: GR-70.
class DecisionProposed(_DecisionEvent):
    """A choice with its rationale, its alternatives and its author is on record."""

    type = "DecisionProposed"
    other_origins = ("council",)
    title: str
    rationale: Reason
    category: DecisionCategory
    alternatives: tuple[str, ...] = ()
    affects: tuple[EntityId, ...] = ()
    """Tasks."""
    links: tuple[DecisionLink, ...] = ()
    plan_id: EntityId | None = None
    based_on: tuple[EvidenceRef, ...] = ()
    author: Principal
    origin_: Annotated[DecisionOrigin, Field(alias="origin")]
    council_id: EntityId | None = None


class DecisionAccepted(_DecisionEvent):
    """The choice holds."""

    type = "DecisionAccepted"
    origin = "approvals"
    other_origins = ("council",)
    by: Principal
    as_role: RoleName
    approval_id: EntityId | None = None
    council_id: EntityId | None = None
    note: str | None = None


class DecisionRejected(_DecisionEvent):
    """The choice was turned down."""

    type = "DecisionRejected"
    origin = "approvals"
    by: Principal
    as_role: RoleName
    reason: str


class DecisionSuperseded(_DecisionEvent):
    """Another decision stands in its place."""

    type = "DecisionSuperseded"
    by_decision_id: EntityId
    by: Principal | None = None
    as_role: RoleName | None = None
    reason: Annotated[str, Field(max_length=4000)] | None = None


class DecisionLinked(_DecisionEvent):
    """More tasks and decisions are known to hang together with it."""

    type = "DecisionLinked"
    affects: tuple[EntityId, ...] = ()
    links: tuple[DecisionLink, ...] = ()
