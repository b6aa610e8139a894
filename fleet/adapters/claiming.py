"""The words in which leases and the run ledger refuse, the same for every adapter (EV-4, RC-12, RC-54)."""

from __future__ import annotations

from fleet.errors import IdempotencyMismatch, LeaseHeld, OwnershipLost
from fleet.ids import Digest, RunKey, StoryId, StreamId
from fleet.ports import Lease

__all__ = ["key_reused", "lease_held", "lease_lost", "run_fenced", "shard_of"]


def shard_of(owner: str) -> str:
    """The shard in `<shard>/<incarnation>`; all of it when there is no slash."""
    return owner.split("/", 1)[0]


def lease_held(stream: StreamId, *, owner: str, expires_in_ms: int) -> LeaseHeld:
    """The error for a claim on a stream whose lease lives."""
    return LeaseHeld(
        f"{stream} is leased to {owner} for another {expires_in_ms} ms: leave it to that owner or try again later",
        stream=stream,
        owner=owner,
        expires_in_ms=expires_in_ms,
    )


def lease_lost(lease: Lease) -> OwnershipLost:
    """The error for a renewal by somebody who is no longer the owner."""
    return OwnershipLost(
        f"{lease.stream} no longer belongs to {lease.owner} under epoch {lease.epoch}: stop this owner",
        stream=lease.stream,
        owner=lease.owner,
        epoch=lease.epoch,
    )


def run_fenced(key: RunKey, *, story: StoryId, epoch: int, seen: int) -> OwnershipLost:
    """The error for a run that an outdated owner asks for."""
    return OwnershipLost(
        f"story {story} is owned under epoch {seen}, run {key[:12]} was asked for under {epoch}: nothing was started",
        story_id=story,
        key=key,
        expected=epoch,
        actual=seen,
    )


def key_reused(key: RunKey, *, spec: Digest, known: str) -> IdempotencyMismatch:
    """The error for a key that names another run."""
    return IdempotencyMismatch(
        f"run key {key[:12]} belongs to spec {known}, it came with {spec}: use a new key for another run",
        key=key,
        spec=spec,
        known=known,
    )
