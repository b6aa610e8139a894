"""What the notary, the auditor and whoever accepts a loss need of checkpoints alike."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fleet.audit.attested import Opened, check_note, check_order, check_root
from fleet.audit.chain import RawEntry
from fleet.audit.checkpoint import Checkpoint, Leaf, SignedCheckpoint
from fleet.audit.finding import LogFinding, Verdict
from fleet.audit.key_ring import KeyRing
from fleet.audit.loss import AttestedHead, Loss, loss_id
from fleet.audit.port import CheckpointExport, CheckpointStore, RawLog, Signer, Verifier
from fleet.events.envelope import GENESIS_HASH, Head
from fleet.kernel.errors import FleetError, InvalidInput, LogCorrupted
from fleet.kernel.ids import Digest, StreamId

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest checkpoint: `sequence` 0 and no heads before the first."""

    sequence: int
    signed: SignedCheckpoint | None
    leaves: tuple[Leaf, ...]
    restored: int
    """How many checkpoints the store had lost, and got back from the exported copies."""


def keys_of(signer: Signer, verifier: Verifier) -> KeyRing:
    """The signer's key and those that it has followed. ConfigError when the key cannot be used."""
    return KeyRing.trusting(signer.key, signer.handovers, check=verifier.check)


async def restore_copies(store: CheckpointStore, export: CheckpointExport, keys: KeyRing, verifier: Verifier) -> Newest:
    """Store and export hold the same checkpoints again, as far as they can be trusted; returns the newest.

    A crash after the store and before the export is repaired here, and so is a store that went back in time.

    Raises:
        LogCorrupted: a signature does not hold, heads are not those that were signed, or the two name different
            checkpoints under one number.
    """
    # The copies first: each checkpoint is stored before it is exported, so that none can seem lost meanwhile.
    copies = await export.sequences()
    stored = await _latest(store, keys, verifier)
    last, number = (copies[-1] if copies else 0), (stored.checkpoint.sequence if stored else 0)
    if stored and number > last:
        await export.write(stored.signed, sequence=number)
    restored = range(number + 1, last + 1)
    if number and last >= number and (await export.read(number)).digest != (stored.signed.digest if stored else None):
        raise LogCorrupted(
            f"checkpoint {number} in the store is not the one that was exported: run `fleet audit verify`",
            sequence=number,
        )
    for sequence in restored:
        stored = await _restore(store, export, keys, verifier, sequence=sequence, before=stored)
    signed = stored.signed if stored else None
    return Newest(max(number, last), signed, signed.leaves if signed else (), len(restored))


@dataclass(frozen=True, slots=True)
class _Held:
    signed: SignedCheckpoint
    checkpoint: Checkpoint

    @property
    def opened(self) -> Opened:
        return Opened(self.checkpoint, self.signed.digest)


async def _latest(store: CheckpointStore, keys: KeyRing, verifier: Verifier) -> _Held | None:
    signed = await store.latest()
    if signed is None:
        return None
    return _trusted(signed, keys, verifier, sequence=None)


def _trusted(signed: SignedCheckpoint, keys: KeyRing, verifier: Verifier, *, sequence: int | None) -> _Held:
    checkpoint = check_note(signed.note, keys, verifier.check, sequence=sequence)
    problem = checkpoint if isinstance(checkpoint, LogFinding) else check_root(checkpoint, signed)
    if isinstance(checkpoint, LogFinding) or problem is not None:
        raise LogCorrupted(f"{problem}; run `fleet audit verify` before anything else is signed")
    return _Held(signed, checkpoint)


async def _restore(
    store: CheckpointStore,
    export: CheckpointExport,
    keys: KeyRing,
    verifier: Verifier,
    *,
    sequence: int,
    before: _Held | None,
) -> _Held:
    held = _trusted(await export.read(sequence), keys, verifier, sequence=sequence)
    if problem := check_order(before.opened if before else None, held.checkpoint):
        raise LogCorrupted(f"{problem}; run `fleet audit verify` before anything else is signed")
    await store.append(held.signed, sequence=sequence)
    return held


async def open_losses(
    store: CheckpointStore, export: CheckpointExport, keys: KeyRing, verifier: Verifier, *, repair: bool
) -> tuple[list[Loss], list[LogFinding]]:
    """Every accepted loss that is signed, and a finding for each record that is not.

    Args:
        repair: whether a record that only one of the two holds is added to the other.
    """
    in_store, copied = await store.losses(), await export.losses()
    losses: list[Loss] = []
    findings: list[LogFinding] = []
    for note in dict.fromkeys([*in_store, *copied]):
        try:
            losses.append(keys.open_loss(note, verifier.check))
        except (LogCorrupted, InvalidInput) as error:
            verdict = Verdict.BAD_SIGNATURE if isinstance(error, LogCorrupted) else Verdict.ALTERED
            findings.append(LogFinding(verdict, "loss", None, error.message))
            continue
        if repair and note not in copied:
            await export.add_loss(note, loss=loss_id(note))
        if repair and note not in in_store:
            await store.add_loss(note)
    return sorted(losses, key=lambda loss: (loss.sequence, loss.time)), findings


@dataclass(frozen=True, slots=True)
class Buried:
    """What one tombstone says: where the stream ended, and under which digest its bytes are kept."""

    stream: StreamId
    head: Head
    export: Digest


@dataclass(frozen=True, slots=True)
class Archive:
    """Where archived stories ended, by stream, and every tombstone that says so."""

    heads: dict[StreamId, Head]
    buried: list[Buried] = field(default_factory=list[Buried])

    def add(self, entries: Iterable[RawEntry]) -> None:
        """Tombstones among these entries are known afterwards; anything that is none is passed over."""
        for entry in entries:
            if entry.fields.get("t") == b"StoryTombstoned" and (tombstone := _tombstone(entry.fields.get("b", b""))):
                self.heads[tombstone.stream] = tombstone.head
                self.buried.append(tombstone)

    def of(self, stream: StreamId) -> list[Buried]:
        """The tombstones of this stream, the newest last."""
        return [tombstone for tombstone in self.buried if tombstone.stream == stream]


def _tombstone(body: bytes) -> Buried | None:
    try:
        value = json.loads(body)
        head = AttestedHead(version=value["last_version"], hash=value["last_hash"])
        export = Digest(value["export_digest"])
        return Buried(StreamId.of_story(value["story_id"]), Head(head.version, head.hash), export)
    except (ValueError, KeyError, TypeError, FleetError):
        return None


async def tombstones(raw: RawLog, streams: Sequence[StreamId]) -> Archive:
    """The tombstones in these project streams."""
    archive = Archive({})
    for stream in streams:
        after = 0
        while page := await raw.entries(stream, after=after, limit=_PAGE):
            archive.add(page)
            after = max(after + 1, int(page[-1].entry_id.split("-")[0]))
    return archive


GENESIS = AttestedHead(version=0, hash=GENESIS_HASH)
"""Where a stream stands before its first event."""
