"""Signs where every stream ends, and notices when one went back (EV-9, EV-19, EV-32)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from fleet.audit.attested import StreamState, check_leaf
from fleet.audit.chain import ChainCheck
from fleet.audit.checkpoint import Leaf, LeafMark, SignedCheckpoint, parse_checkpoint, sign_checkpoint
from fleet.audit.finding import LogFinding, Verdict
from fleet.audit.loss import Loss, excused
from fleet.audit.note import note_text
from fleet.audit.port import CheckpointExport, CheckpointStore, RawLog, Signer, Verifier
from fleet.audit.service.attest import Newest, keys_of, open_losses, restore_copies, tombstones
from fleet.audit.service.auditor import follow
from fleet.events.envelope import Head
from fleet.kernel.clock import Clock
from fleet.kernel.errors import ConfigError, FleetError, StoreError, VersionConflict
from fleet.kernel.ids import StreamId
from fleet.log.port import EventLog

_TRIES = 5


@dataclass(frozen=True, slots=True)
class Notarized:
    """What one look at the whole log gave."""

    sequence: int
    """The newest checkpoint; 0 while there is nothing to sign."""
    is_new: bool
    """False when nothing had changed since the checkpoint before."""
    streams: int
    versions: int
    findings: tuple[LogFinding, ...]
    """Streams that are refused because they do not hold any more what was attested."""
    restored: int
    """Checkpoints that the store had lost; above 0 the whole server went back in time."""


@dataclass(slots=True)
class _Look:
    """One pass over all streams."""

    newest: Newest
    losses: list[Loss]
    refused: dict[StreamId, str]
    leaves: list[Leaf] = field(default_factory=list[Leaf])
    findings: list[LogFinding] = field(default_factory=list[LogFinding])


class Notary:
    """Makes a checkpoint over all streams when it starts, soon after a story closed, and every `interval_s`.

    Nobody has to tell it that a story closed: the append that closes a story takes it out of the open set, and that is
    the request. It stands until a look has seen the story closed, whoever dies before; so nothing is asked in vain.

    It signs only what it has recomputed from stored bytes, and only if every stream still holds what the checkpoint
    before attests; a stream that does not takes no appends from then on, keeps its old leaf, and the others go on. Two
    notaries at once do no harm: the store lets one of them have each sequence. A checkpoint goes into the store first
    and is exported then; what a crash left undone in between is done at the start of the next one.

    Args:
        interval_s: seconds between two looks at the log, when no story closes.
        closing_s: seconds between two looks for stories that closed.
        announce: gets one line for each stream that is refused, and when nothing can be signed.
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
        interval_s: float = 60.0,
        closing_s: float = 2.0,
        announce: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._log, self._raw, self._store, self._export = log, raw, store, export
        self._signer, self._verifier, self._clock = signer, verifier, clock
        self._interval_s, self._closing_s, self._announce = interval_s, closing_s, announce
        self._seen_closed: frozenset[StreamId] = frozenset()
        # Two looks at once would only race each other for the same sequence.
        self._one_at_a_time = asyncio.Lock()
        self.last: Notarized | None = None
        """What the newest look gave."""
        self.problem: str | None = None
        """Why the newest look gave nothing; None when it did."""

    async def run(self) -> None:
        """Never returns. A store that is down, or a damaged checkpoint, is met again at the next look."""
        pause_s = self._closing_s
        while True:
            began_ms = self._clock.monotonic_ms()
            is_done = await self._try()
            # A look reads from every stream: when stories close all the time, half of the time is left to others.
            took_s = (self._clock.monotonic_ms() - began_ms) / 1000
            pause_s = self._closing_s if is_done else min(2 * pause_s, self._interval_s)
            await self._until_due(at_least_s=max(took_s, pause_s))

    async def conclude(self) -> None:
        """What the log holds now is attested too, if the stores allow it: the last thing before the fleet stops."""
        await self._try()

    async def _try(self) -> bool:
        try:
            await self.checkpoint()
        except FleetError as error:
            problem = f"{error.code}: {error.message}"
            if problem != self.problem:
                self._announce(f"no checkpoint: {problem}")
            self.problem = problem
            return False
        return True

    async def _until_due(self, *, at_least_s: float) -> None:
        """The interval is over, or a story closed that the newest look has not seen closed."""
        end_ms = self._clock.monotonic_ms() + int(self._interval_s * 1000)
        await self._clock.sleep(min(at_least_s, self._interval_s))
        while (left_ms := end_ms - self._clock.monotonic_ms()) > 0:
            with suppress(StoreError):
                if await self._closed() - self._seen_closed:
                    return
            await self._clock.sleep(min(self._closing_s, left_ms / 1000))

    async def _closed(self) -> frozenset[StreamId]:
        present, still_open = await self._log.streams(), set(await self._log.open_streams())
        return frozenset(s for s in present if s.startswith("story:") and s not in still_open)

    async def checkpoint(self) -> Notarized:
        """Everything that is in the log now is attested, but for streams that are refused.

        Raises:
            LogCorrupted: the newest checkpoint is not one that this notary signed, or not the one that was exported.
            StoreUnavailable, StoreFull, CommitUnknown: nothing is lost; the next look goes on.
            ConfigError: the key cannot be used.
        """
        async with self._one_at_a_time:
            for _ in range(_TRIES):
                # Before the look: a story that closes while it goes on is looked at once more.
                closed = await self._closed()
                try:
                    self.last = await self._look()
                except VersionConflict:
                    # Another notary was first: its checkpoint is the one to go on from.
                    continue
                self._seen_closed, self.problem = closed, None
                return self.last
        raise VersionConflict(
            f"other notaries were first {_TRIES} times: run one notary only", sequence=self.last and self.last.sequence
        )

    async def _look(self) -> Notarized:
        keys = keys_of(self._signer, self._verifier)
        newest = await restore_copies(self._store, self._export, keys, self._verifier)
        if newest.signed is not None and self._hand_over(newest.signed):
            keys = keys_of(self._signer, self._verifier)
        losses, _ = await open_losses(self._store, self._export, keys, self._verifier, repair=True)
        look = _Look(newest, losses, await self._log.refused())
        before = {leaf.stream: leaf for leaf in newest.leaves}
        for stream in sorted({*before, *await self._raw.listed()}):
            await self._visit(look, stream, before.get(stream))
        is_new = tuple(look.leaves) != newest.leaves or self._signer.successor is not None
        if is_new:
            await self._sign(look)
        return Notarized(
            sequence=newest.sequence + is_new,
            is_new=is_new,
            streams=len(look.leaves),
            versions=sum(leaf.version for leaf in look.leaves),
            findings=tuple(look.findings),
            restored=newest.restored,
        )

    async def _sign(self, look: _Look) -> SignedCheckpoint:
        before, successor = look.newest, self._signer.successor
        signed = sign_checkpoint(
            look.leaves,
            sequence=before.sequence + 1,
            previous=before.signed.digest if before.signed else None,
            time_ms=self._clock.now_ms(),
            key=self._signer.key,
            sign=self._signer.sign,
            successor=(successor.key, successor.sign) if successor else None,
        )
        await self._store.append(signed, sequence=before.sequence + 1)
        await self._export.write(signed, sequence=before.sequence + 1)
        self._hand_over(signed)
        return signed

    def _hand_over(self, newest: SignedCheckpoint) -> bool:
        """Whether this checkpoint retired our key: then its successor is the one in use."""
        handover = parse_checkpoint(note_text(newest.note)).handover
        if handover is None or handover.retired != self._signer.key:
            return False
        successor = self._signer.successor
        if successor is None or successor.key != handover.successor:
            raise ConfigError(
                f"the newest checkpoint retired the audit key {handover.retired.name} for {handover.successor.name}, "
                "which is not in the home: restore the folder `audit` from a backup",
                key=handover.successor.text,
            )
        self._signer.succeed(newest.note)
        self._announce(f"the key {handover.retired.name} is retired; {handover.successor.text} signs from now on")
        return True

    async def _visit(self, look: _Look, stream: StreamId, leaf: Leaf | None) -> None:
        """The stream's leaf for the next checkpoint is in the look; a stream that does not verify is refused."""
        leaf_or_finding = await self._leaf(look, stream, leaf)
        if isinstance(leaf_or_finding, LogFinding):
            look.findings.append(leaf_or_finding)
            if stream not in look.refused:
                await self._log.refuse(stream, reason=str(leaf_or_finding)[:1000])
                self._announce(f"refused {leaf_or_finding}")
        elif stream not in look.refused:
            look.leaves += [leaf_or_finding] if leaf_or_finding else []
            return
        if leaf is not None:
            look.leaves.append(leaf.model_copy(update={"mark": LeafMark.REFUSED}))

    async def _leaf(self, look: _Look, stream: StreamId, leaf: Leaf | None) -> Leaf | LogFinding | None:
        """Where the stream ends now, what is wrong with it, or None when nothing of it is left to attest."""
        loss = leaf and excused(look.losses, stream, version=leaf.version, sequence=look.newest.sequence)
        if leaf is None or loss:
            return await self._whole(stream, must_hold=loss.present.version if loss else 0, loss=loss or None)
        chain = ChainCheck(
            stream, after=Head(leaf.version - 1), is_linked=leaf.version == 1, kept_versions=frozenset({leaf.version})
        )
        head = await follow(self._raw, chain)
        if chain.version < leaf.version:
            return await self._gone(stream, leaf, look.losses, sequence=look.newest.sequence)
        wrong = check_leaf(leaf, StreamState(chain.end, head, chain.hashes), look.losses, sequence=look.newest.sequence)
        if isinstance(wrong, LogFinding):
            return wrong
        return chain.findings[0] if chain.findings else _leaf_at(stream, chain.end)

    async def _whole(self, stream: StreamId, *, must_hold: int, loss: Loss | None) -> Leaf | LogFinding | None:
        chain = ChainCheck(stream, kept_versions=frozenset({must_hold}))
        await follow(self._raw, chain)
        if chain.findings:
            return chain.findings[0]
        if loss is not None and loss.present.version and chain.hashes.get(must_hold) != loss.present.hash:
            verdict = Verdict.FORKED if chain.version >= must_hold else Verdict.ROLLED_BACK
            detail = f"the loss was accepted at version {must_hold}, which the log does not hold any more"
            return LogFinding(verdict, str(stream), must_hold, detail)
        return _leaf_at(stream, chain.end) if chain.version else None

    async def _gone(self, stream: StreamId, leaf: Leaf, losses: list[Loss], *, sequence: int) -> Leaf | LogFinding:
        """The attested version is not there: archived, or what has happened to it."""
        chain = ChainCheck(stream)
        head = await follow(self._raw, chain)
        projects = [s for s in await self._raw.listed() if s.startswith("project:")]
        archive = await tombstones(self._raw, projects) if chain.version == 0 else None
        tombstone = archive.heads.get(stream) if archive else None
        wrong = check_leaf(leaf, StreamState(chain.end, head, {}, tombstone), losses, sequence=sequence)
        if isinstance(wrong, LogFinding):
            return wrong
        end = tombstone or Head(leaf.version, leaf.hash)
        return Leaf(stream=stream, version=end.version, hash=end.hash, mark=LeafMark.ARCHIVED)


def _leaf_at(stream: StreamId, end: Head) -> Leaf:
    return Leaf(stream=stream, version=end.version, hash=end.hash)
