"""Report and ownership events (EV-230, EV-240)."""

from __future__ import annotations

from typing import ClassVar

from fleet.events.payload import Payload, Value
from fleet.events.values import Count, EventGroup, Json, Origin, Version
from fleet.kernel.ids import Digest, EntityId
from fleet.kernel.types import ReportFormat, TakeoverCause


# Source: RP-20.
class Orphan(Value):
    """A record that lacks a required link."""

    id: str
    missing: str
    rule: str | None = None


# Source: RP-20.
class Traceability(Value):
    """How many of the required links exist."""

    linked: Count
    total: Count
    orphans: tuple[Orphan, ...] = ()


# Source: EV-3.
class OwnershipTaken(Payload):
    """The stream has a new owner; earlier epochs cannot write."""

    type = "OwnershipTaken"
    group: ClassVar[EventGroup] = "platform"
    origin: ClassVar[Origin] = "owner"
    epoch: Count
    previous_epoch: Count
    owner: str
    """`<shard>/<incarnation>`."""
    cause: TakeoverCause


# Source: RP-3.
class ReportGenerated(Payload):
    """A report of the story as of this version is in the blob store."""

    type = "ReportGenerated"
    group: ClassVar[EventGroup] = "report"
    origin: ClassVar[Origin] = "report"
    report_id: EntityId
    report_digest: Digest
    as_of: Version
    format: ReportFormat
    stats: dict[str, Json]
    traceability: Traceability
