"""Context events (EV-190..EV-192)."""

from __future__ import annotations

from typing import ClassVar, Literal

from fleet.events.payload import Payload, Value
from fleet.events.values import Count, DecimalText, EventGroup, Origin, Version
from fleet.kernel.ids import Digest, EntityId
from fleet.kernel.types import ContextKind, ContextOperation, Phase, RoleName


# Source: CX-45.
class ContextChange(Value):
    """One change of what roles see."""

    operation: ContextOperation
    entity_type: ContextKind
    entity_id: EntityId
    payload_digest: Digest
    reason: str


# Source: CX-24.
class DroppedScope(Value):
    """Items of one scope that did not fit."""

    scope: str
    count: Count
    ids: tuple[str, ...] = ()


class _ContextEvent(Payload):
    group: ClassVar[EventGroup] = "context"
    origin: ClassVar[Origin] = "context"


class ContextChanged(_ContextEvent):
    """The context of the story is at `version` with snapshot `hash`."""

    type = "ContextChanged"
    changes: tuple[ContextChange, ...]
    version: Version
    hash: Digest


# Source: CX-6.
class ContextPackBuilt(_ContextEvent):
    """A role was given this pack; its text is the blob `hash`."""

    type = "ContextPackBuilt"
    pack_id: EntityId
    as_role: RoleName
    phase: Phase
    task_id: EntityId | None = None
    scopes: tuple[str, ...]
    token_count: Count
    budget: Count
    hash: Digest
    dropped: tuple[DroppedScope, ...] = ()
    as_of: Version
    counter: str | None = None
    """Name and digest of the tokenizer that counted (CX-20); absent where the tokens were estimated."""


# Source: CX-56.
class SummaryRecorded(_ContextEvent):
    """Events `covers_from`..`covers_to` were compressed with full recall."""

    type = "SummaryRecorded"
    summary_id: EntityId
    covers_from: Version
    covers_to: Version
    summary_digest: Digest
    tokens_before: Count
    tokens_after: Count
    ratio: DecimalText
    recall: dict[str, DecimalText]
    target_missed: str | None = None
    """The class of items that is too large to reach the target."""
    as_role: RoleName | None = None
    """Base role whose history it is; None for a summary that is no role's own."""
    written_by: Literal["model"] | None = None
    """`model` where some sentences of it are a model's words, which are marked there; None where all is extracted."""
