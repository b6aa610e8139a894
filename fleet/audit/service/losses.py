"""A person accepts that a stream went back: recorded and signed first, then the stream takes appends again (EV-19)."""

from __future__ import annotations

from typing import NamedTuple

from fleet.audit.chain import ChainCheck
from fleet.audit.checkpoint import Leaf
from fleet.audit.loss import AttestedHead, Loss, excused, loss_id, sign_loss
from fleet.audit.port import AcceptedLoss, CheckpointExport, CheckpointStore, RawLog, Signer, Verifier
from fleet.audit.service.attest import GENESIS, Newest, keys_of, open_losses, restore_copies
from fleet.audit.service.auditor import follow
from fleet.events.codec import rfc3339
from fleet.kernel.clock import Clock
from fleet.kernel.errors import InvalidInput, InvalidTransition, LogCorrupted
from fleet.kernel.ids import CommandId, Principal, StreamId
from fleet.kernel.types import MAX_REASON, MIN_REASON, is_reason
from fleet.log.port import EventLog


class _Attested(NamedTuple):
    """The newest head that was attested of a stream, and the newest one that the log still holds."""

    head: AttestedHead
    kept: AttestedHead


class _Wanted(NamedTuple):
    """Who wants to accept what, why, and by which command."""

    stream: StreamId
    by: Principal
    reason: str
    command_id: CommandId | None


class LossDesk:
    """Accepts losses. The record is in the checkpoint store and among the exported copies before anything else.

    A crash in between leaves the stream refused; accepting again finds the record and goes on. Implements Losses.
    """

    def __init__(
        self,
        log: EventLog,
        raw: RawLog,
        store: CheckpointStore,
        export: CheckpointExport,
        *,
        signer: Signer,
        verifier: Verifier,
        clock: Clock,
    ) -> None:
        self._log, self._raw, self._store, self._export = log, raw, store, export
        self._signer, self._verifier, self._clock = signer, verifier, clock

    async def accept(
        self, stream: StreamId, *, by: Principal, reason: str, command_id: CommandId | None = None
    ) -> AcceptedLoss:
        """See `Losses.accept`."""
        words = _checked(reason)
        if command_id is not None and (done := await self._carried_out(stream, command_id)):
            return done
        request = _Wanted(stream, by, words, command_id)
        done = await self._accept(request)
        # A notary may have signed in between: the record has to excuse that checkpoint too.
        while await self._is_demanded(done.loss):
            done = await self._accept(request)
        await self._log.accept_loss(stream)
        return done

    async def _carried_out(self, stream: StreamId, command_id: CommandId) -> AcceptedLoss | None:
        """What this command accepted; None when it did nothing yet, or died before the stream was opened."""
        keys = keys_of(self._signer, self._verifier)
        losses, _ = await open_losses(self._store, self._export, keys, self._verifier, repair=True)
        own = [loss for loss in losses if loss.command_id == command_id]
        if not own:
            return None
        # Only the refusal that the record is about is still to be lifted by it.
        refusal = (await self._log.refused()).get(stream)
        is_open = refusal is None or refusal != own[-1].refusal or await self._present(stream) != own[-1].present
        return AcceptedLoss(own[-1], is_new=False) if is_open else None

    async def _newest(self) -> Newest:
        return await restore_copies(self._store, self._export, keys_of(self._signer, self._verifier), self._verifier)

    async def _is_demanded(self, loss: Loss) -> bool:
        """Whether a checkpoint after the record attests what is gone."""
        newest = await self._newest()
        leaf = next((leaf for leaf in newest.leaves if leaf.stream == loss.stream), None)
        if leaf is None or newest.sequence <= loss.sequence:
            return False
        return not await self._holds(AttestedHead(version=leaf.version, hash=leaf.hash), loss.stream)

    async def _accept(self, asked: _Wanted) -> AcceptedLoss:
        stream = asked.stream
        newest = await self._newest()
        keys = keys_of(self._signer, self._verifier)
        losses, _ = await open_losses(self._store, self._export, keys, self._verifier, repair=True)
        attested = await self._attested(stream, newest.leaves, losses, sequence=newest.sequence)
        present = await self._present(stream)
        refusal = (await self._log.refused()).get(stream)
        if refusal is None and attested.head == attested.kept:
            raise InvalidTransition(
                f"nothing of {stream} was lost: it holds what checkpoint {newest.sequence} attests, and takes appends",
                stream=str(stream),
                state="whole",
                event="accept_loss",
                allowed=[],
            )
        accepted = Loss(
            stream=stream,
            attested=attested.head,
            kept=attested.kept,
            present=present,
            sequence=newest.sequence,
            refusal=refusal or "",
            accepted_by=asked.by,
            reason=asked.reason,
            time=rfc3339(self._clock.now_ms()),
            command_id=asked.command_id,
        )
        recorded = next((loss for loss in reversed(losses) if _is_same(loss, accepted)), None)
        if recorded is None:
            await self._record(accepted)
        return AcceptedLoss(recorded or accepted, recorded is None)

    async def _record(self, loss: Loss) -> None:
        note = sign_loss(loss, self._signer.key, self._signer.sign)
        await self._export.add_loss(note, loss=loss_id(note))
        await self._store.add_loss(note)

    async def _present(self, stream: StreamId) -> AttestedHead:
        chain = ChainCheck(stream)
        await follow(self._raw, chain)
        if chain.findings:
            raise LogCorrupted(
                f"what is left of {stream} is damaged ({chain.findings[0]}): restore it from a backup first",
                stream=str(stream),
            )
        return AttestedHead(version=chain.end.version, hash=chain.end.hash)

    async def _attested(
        self, stream: StreamId, leaves: tuple[Leaf, ...], losses: list[Loss], *, sequence: int
    ) -> _Attested:
        leaf = next((leaf for leaf in leaves if leaf.stream == stream), None)
        if leaf is None:
            return _Attested(GENESIS, GENESIS)
        head = AttestedHead(version=leaf.version, hash=leaf.hash)
        if loss := excused(losses, stream, version=leaf.version, sequence=sequence):
            # Accepted before, and no checkpoint was made since; it may have gone back once more.
            holds = loss.kept.version == 0 or await self._holds(loss.kept, stream)
            return _Attested(head, loss.kept if holds else await self._kept(stream))
        if await self._holds(head, stream):
            return _Attested(head, head)
        return _Attested(head, await self._kept(stream))

    async def _kept(self, stream: StreamId) -> AttestedHead:
        """The newest attested head that the log still holds: what was lost lies after it."""
        for sequence in reversed(await self._export.sequences()):
            for leaf in (await self._export.read(sequence)).leaves:
                if leaf.stream == stream:
                    head = AttestedHead(version=leaf.version, hash=leaf.hash)
                    if await self._holds(head, stream):
                        return head
        return GENESIS

    async def _holds(self, head: AttestedHead, stream: StreamId) -> bool:
        entries = await self._raw.entries(stream, after=head.version - 1, limit=1)
        return (
            bool(entries)
            and entries[0].entry_id == f"{head.version}-0"
            and entries[0].fields.get("h") == head.hash.encode()
        )


def _is_same(loss: Loss, other: Loss) -> bool:
    named = ("stream", "attested", "kept", "present", "sequence")
    return all(getattr(loss, name) == getattr(other, name) for name in named)


def _checked(reason: str) -> str:
    words = " ".join(reason.split())
    if not is_reason(words):
        raise InvalidInput(
            f"the reason has {len(words)} characters: say in {MIN_REASON} to {MAX_REASON} why the loss is accepted",
            field="reason",
        )
    return words
