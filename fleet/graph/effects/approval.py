"""Graph effects of approval events (GR-22, GR-58, GR-59)."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.events.approval import ApprovalExpired, ApprovalGranted, ApprovalRejected, ApprovalRequested, ApprovalRevoked
from fleet.graph.changes import GraphChange, RelationsClosed
from fleet.graph.effects.at import At, Ref, link, ref_of, texts
from fleet.graph.effects.story import milestone
from fleet.graph.schema import RELATIONS, Label, Rel


def approval_requested(at: At, e: ApprovalRequested) -> Iterator[GraphChange]:
    """The approval waits, for exactly this subject; a request without an entity of its own is for the story."""
    approval: Ref = (Label.APPROVAL, e.approval_id)
    yield at.describe(
        *approval,
        gate=e.gate,
        role=e.role,
        status="requested",
        subject_kind=e.subject.kind,
        subject_id=e.subject.id,
        subject_digest=e.subject.digest,
        requested_at=at.ts_ms,
    )
    subject = ref_of(e.subject.id)
    is_known = subject is not None and (Label.APPROVAL, subject[0]) in RELATIONS[Rel.FOR].ends
    yield link(Rel.FOR, approval, subject if subject and is_known else at.ref)


def approval_granted(at: At, e: ApprovalGranted) -> Iterator[GraphChange]:
    """The principal said yes; what waited for it goes on."""
    yield from _decided(at, e, status="granted", notes=e.notes)
    yield from milestone(at, name="approval granted", ref=e.approval_id)


def approval_rejected(at: At, e: ApprovalRejected) -> Iterator[GraphChange]:
    """The principal said no, and why."""
    yield from _decided(at, e, status="rejected", notes=e.reason)


def _decided(at: At, e: ApprovalGranted | ApprovalRejected, *, status: str, notes: str | None) -> Iterator[GraphChange]:
    approval: Ref = (Label.APPROVAL, e.approval_id)
    yield at.update(*approval, status=status, decided_at=at.ts_ms, delegated=e.delegated, **texts(notes=notes))
    yield from at.by(Rel.DECIDED_BY, approval, e.principal, as_role=e.as_role, at=at.ts_ms)
    yield RelationsClosed(Rel.BLOCKED_BY, *approval, mark="removed_v", value=at.version, incoming=True)


def approval_expired(at: At, e: ApprovalExpired) -> Iterator[GraphChange]:
    """Nobody answered."""
    yield at.update(Label.APPROVAL, e.approval_id, status="expired")


def approval_revoked(at: At, e: ApprovalRevoked) -> Iterator[GraphChange]:
    """The grant was taken back."""
    yield at.update(Label.APPROVAL, e.approval_id, status="revoked", **texts(notes=e.reason))
