"""What checkpoints attest, against each other and against the log (EV-32)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleet.audit.checkpoint import Checkpoint, Leaf, LeafMark, SignedCheckpoint
from fleet.audit.finding import LogFinding, Verdict
from fleet.audit.key_ring import KeyRing
from fleet.audit.loss import Loss, excused
from fleet.audit.merkle import merkle_root
from fleet.audit.note import SignCheck
from fleet.events.envelope import Head
from fleet.kernel.errors import InvalidInput, LogCorrupted
from fleet.kernel.ids import Digest, StreamId

_SUBJECT = "checkpoint"


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint whose signature holds, and the digest of its note."""

    checkpoint: Checkpoint
    digest: Digest


def check_note(note: str, keys: KeyRing, check: SignCheck, *, sequence: int | None) -> Checkpoint | LogFinding:
    """The checkpoint of the note that is kept as number `sequence` (None: any), or what is wrong with it."""
    try:
        checkpoint = keys.open(note, check)
    except LogCorrupted as error:
        return LogFinding(Verdict.BAD_SIGNATURE, _SUBJECT, sequence, error.message)
    except InvalidInput as error:
        return LogFinding(Verdict.ALTERED, _SUBJECT, sequence, error.message)
    if sequence is not None and checkpoint.sequence != sequence:
        return LogFinding(Verdict.REORDERED, _SUBJECT, sequence, f"holds the signed checkpoint {checkpoint.sequence}")
    return checkpoint


def check_root(checkpoint: Checkpoint, signed: SignedCheckpoint) -> LogFinding | None:
    """The leaves are those that were signed, each stream once and in order."""
    streams = [leaf.stream for leaf in signed.leaves]
    is_ordered = streams == sorted(set(streams))
    if is_ordered and len(streams) == checkpoint.size and merkle_root(signed.leaf_hashes) == checkpoint.root:
        return None
    return LogFinding(
        Verdict.ALTERED, _SUBJECT, checkpoint.sequence, "its list of heads is not the one that was signed"
    )


def check_order(earlier: Opened | None, later: Checkpoint) -> LogFinding | None:
    """The later checkpoint follows the earlier one and names its digest; None before the first."""
    expected = earlier.checkpoint.sequence + 1 if earlier else 1
    if later.sequence != expected:
        gone = f"checkpoints {expected} to {later.sequence - 1} are" if later.sequence > expected + 1 else "it is"
        return LogFinding(
            Verdict.MISSING, _SUBJECT, expected, f"{gone} gone, while checkpoint {later.sequence} is there"
        )
    if earlier is not None and later.previous != earlier.digest:
        detail = f"it does not follow the checkpoint {earlier.checkpoint.sequence} that is kept"
        return LogFinding(Verdict.FORKED, _SUBJECT, later.sequence, detail)
    return None


def check_successor(
    earlier: Sequence[Leaf], later: Sequence[Leaf], losses: Sequence[Loss], *, sequence: int
) -> list[LogFinding]:
    """No stream of checkpoint `sequence` is missing or shorter in the next one, but for accepted losses."""
    after = {leaf.stream: leaf for leaf in later}
    findings: list[LogFinding] = []
    for leaf in earlier:
        now = after.get(leaf.stream)
        reached = now.version if now else 0
        is_same = now is not None and now.version == leaf.version and now.hash == leaf.hash
        if reached > leaf.version or is_same or excused(losses, leaf.stream, version=leaf.version, sequence=sequence):
            continue
        verdict = Verdict.DELETED if now is None else Verdict.FORKED if reached == leaf.version else Verdict.ROLLED_BACK
        detail = (
            f"checkpoint {sequence} attests version {leaf.version}, checkpoint {sequence + 1} {reached or 'nothing'}"
        )
        findings.append(LogFinding(verdict, str(leaf.stream), leaf.version, detail))
    return findings


@dataclass(frozen=True, slots=True)
class StreamState:
    """What the log holds of a stream: its last entry, what its head says, and hashes at the versions asked for."""

    end: Head
    head: Head | None
    hashes: Mapping[int, str]
    tombstone: Head | None = None
    """Where it ended when it was archived."""
    archived: frozenset[tuple[int, str]] | None = None
    """Version and hash of every archived event; None when the archive was not opened."""


def check_leaf(
    leaf: Leaf, state: StreamState | None, losses: Sequence[Loss], *, sequence: int
) -> LogFinding | Loss | None:
    """The log holds what the leaf of checkpoint `sequence` attests; else the accepted loss, or the finding."""
    actual = state.hashes.get(leaf.version) if state else None
    if actual == leaf.hash or _is_archived(leaf, state):
        return None
    if loss := excused(losses, leaf.stream, version=leaf.version, sequence=sequence):
        return loss
    end = state.end.version if state else 0
    claimed = state.head.version if state and state.head else 0
    at = f"checkpoint {sequence} attests version {leaf.version}"
    if end == 0 and state and state.archived:
        return _not_in_archive(leaf, max(version for version, _ in state.archived), at)
    if actual is not None:
        return _finding(Verdict.FORKED, leaf, f"{at}, the log holds another event there")
    if end >= leaf.version or claimed >= leaf.version > end > 0:
        return _finding(Verdict.MISSING, leaf, f"{at}, the log has no entry there")
    if end == 0:
        return _finding(Verdict.DELETED, leaf, f"{at}, the log holds nothing of the stream")
    return _finding(Verdict.ROLLED_BACK, leaf, f"{at}, the log ends at {end}")


def _is_archived(leaf: Leaf, state: StreamState | None) -> bool:
    if state is None or state.tombstone is None or state.end.version:
        return False
    if state.archived is not None:
        return (leaf.version, leaf.hash) in state.archived
    if leaf.mark is LeafMark.ARCHIVED or leaf.version == state.tombstone.version:
        return (leaf.version, leaf.hash) == (state.tombstone.version, state.tombstone.hash)
    return leaf.version < state.tombstone.version


def _not_in_archive(leaf: Leaf, last: int, at: str) -> LogFinding:
    if leaf.version > last:
        return _finding(Verdict.ROLLED_BACK, leaf, f"{at}, the archive ends at {last}")
    return _finding(Verdict.FORKED, leaf, f"{at}, the archive holds another event there")


def _finding(verdict: Verdict, leaf: Leaf, detail: str) -> LogFinding:
    return LogFinding(verdict, str(leaf.stream), leaf.version, detail)


def attested_heads(leaves: Sequence[Leaf], losses: Sequence[Loss], *, sequence: int) -> dict[StreamId, Head]:
    """The heads that checkpoint `sequence` commits to (epoch 0), shortened by accepted losses.

    Archived streams are left out: their bytes are meant to be gone.
    """
    heads: dict[StreamId, Head] = {}
    for leaf in leaves:
        loss = excused(losses, leaf.stream, version=leaf.version, sequence=sequence)
        kept = loss.kept if loss else leaf
        if kept.version and leaf.mark is not LeafMark.ARCHIVED:
            heads[leaf.stream] = Head(kept.version, kept.hash)
    return heads
