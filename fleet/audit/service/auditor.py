"""Recomputes everything that is stored and says what differs from what was recorded (EV-32)."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fleet.audit.attested import Opened, StreamState, check_leaf, check_note, check_order, check_root, check_successor
from fleet.audit.chain import ChainCheck, RawEntry
from fleet.audit.checkpoint import Checkpoint, Leaf, SignedCheckpoint, parse_checkpoint
from fleet.audit.finding import LogFinding, Verdict
from fleet.audit.key_ring import KeyRing, is_handover
from fleet.audit.loss import Loss, loss_id
from fleet.audit.note import NoteKey, note_text
from fleet.audit.port import CheckpointExport, CheckpointStore, RawLog, StoredNote, Verifier
from fleet.audit.proof import Proof, make_proof
from fleet.audit.service.archive_audit import open_archive
from fleet.audit.service.attest import Archive, open_losses, tombstones
from fleet.events.envelope import Head
from fleet.kernel.errors import ArtifactNotFound, InvalidInput, LogCorrupted, NotFound
from fleet.kernel.ids import StreamId
from fleet.trees.port import BlobStore

_LOOKS = 5
"""How often the end of a busy stream is looked at before its head is taken as it is."""


async def follow(
    raw: RawLog, chain: ChainCheck, *, each: Callable[[list[RawEntry]], None] | None = None
) -> Head | None:
    """The chain is checked from where it stands to the end of the stream. Returns what the head says of that end.

    Args:
        each: gets every page that was read.
    """
    head = await raw.head(chain.stream)
    for _ in range(_LOOKS):
        await _to_the_end(raw, chain, each)
        now = await raw.head(chain.stream)
        if now == head:
            chain.close(head)
            return head
        head = now
    return head


async def _to_the_end(raw: RawLog, chain: ChainCheck, each: Callable[[list[RawEntry]], None] | None) -> None:
    page = await raw.entries(chain.stream, after=chain.version, limit=_PAGE)
    while page:
        last = page[-1].entry_id
        following = (
            await raw.entries(chain.stream, after=int(last.split("-")[0]), limit=_PAGE) if _is_full(page) else []
        )
        if following and following[-1].entry_id == last:
            # Ids that are no versions (`7-1`, `7-2`, ...) would bring the same page again and again.
            following = []
        chain.take(page, following=following)
        if each is not None:
            each(page)
        page = following


def _is_full(page: list[RawEntry]) -> bool:
    return len(page) == _PAGE


async def prove(raw: RawLog, export: CheckpointExport, blobs: BlobStore, *, stream: StreamId, version: int) -> Proof:
    """The proof for one event, by the oldest checkpoint that covers it; of an archived story from its archive.

    Raises:
        NotFound: the event, or a checkpoint that covers it, is not there.
        LogCorrupted: log and archive do not hold any more what that checkpoint attests.
    """
    signed, leaf = await _covering(export, stream, version=version)
    entries: list[RawEntry] = []
    chain = ChainCheck(stream, kept_versions=frozenset({leaf.version}))
    await follow(raw, chain, each=entries.extend)
    if chain.version == 0 and (entries := await _archived(raw, blobs, stream)):
        chain = ChainCheck(stream, kept_versions=frozenset({leaf.version}))
        chain.take(entries)
    if chain.findings or chain.hashes.get(leaf.version) != leaf.hash:
        raise LogCorrupted(
            f"{stream} does not hold any more what checkpoint attests at version {leaf.version}: run `fleet audit "
            "verify`",
            stream=str(stream),
            version=leaf.version,
        )
    return make_proof(signed, leaf, entries, version=version)


async def _covering(export: CheckpointExport, stream: StreamId, *, version: int) -> tuple[SignedCheckpoint, Leaf]:
    for sequence in await export.sequences():
        signed = await export.read(sequence)
        for leaf in signed.leaves:
            if leaf.stream == stream and leaf.version >= version >= 1:
                return signed, leaf
    raise NotFound(
        f"no exported checkpoint covers {stream} version {version}: look with `fleet events`, or wait a minute for "
        "the next checkpoint",
        stream=str(stream),
        version=version,
    )


async def _archived(raw: RawLog, blobs: BlobStore, stream: StreamId) -> list[RawEntry]:
    """The entries of a story that left the log; none when it was not archived."""
    projects = [name for name in await raw.listed() if name.startswith("project:")]
    buried = (await tombstones(raw, projects)).of(stream)
    if not buried:
        return []
    archive = await open_archive(blobs, buried[-1])
    if isinstance(archive, LogFinding):
        raise LogCorrupted(f"{archive}", stream=str(stream))
    return list(archive.entries)


Progress = Callable[[str, int, int], None]
"""(what is looked at, how many are done, how many there are)."""

_CHECKPOINT = "checkpoint"
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What one verification looked at, and every difference that it found; clean when there is none."""

    streams: int
    events: int
    checkpoints: int
    """Those in the store."""
    archives: int
    """Archived stories that were opened and verified."""
    exported: int
    newest: int
    """The highest sequence whose signature holds; 0 when there is none."""
    findings: tuple[LogFinding, ...]
    accepted: tuple[Loss, ...]
    """Losses that excuse what would be findings otherwise."""
    remarks: tuple[str, ...]
    """What a reader should know although nothing is wrong."""

    @property
    def is_clean(self) -> bool:
        """True when nothing was found."""
        return not self.findings


class _Attested(NamedTuple):
    """A leaf, and the newest checkpoint that holds it."""

    leaf: Leaf
    sequence: int


@dataclass(slots=True)
class _Audit:
    """One verification under way."""

    losses: list[Loss] = field(default_factory=list[Loss])
    findings: list[LogFinding] = field(default_factory=list[LogFinding])
    remarks: list[str] = field(default_factory=list[str])
    attested: dict[StreamId, dict[tuple[int, str, str], _Attested]] = field(
        default_factory=dict[StreamId, dict[tuple[int, str, str], _Attested]]
    )
    exported: dict[int, str] = field(default_factory=dict[int, str])
    states: dict[StreamId, StreamState] = field(default_factory=dict[StreamId, StreamState])
    archive: Archive = field(default_factory=lambda: Archive({}))
    opened: dict[StreamId, frozenset[tuple[int, str]]] = field(
        default_factory=dict[StreamId, frozenset[tuple[int, str]]]
    )
    """What the archives of a stream hold, if all of them could be opened."""
    archives: int = 0
    events: int = 0
    newest: int = 0

    def attest(self, leaves: tuple[Leaf, ...], *, sequence: int) -> None:
        for leaf in leaves:
            heads = self.attested.setdefault(leaf.stream, {})
            identity = (leaf.version, leaf.hash, leaf.mark.value)
            last = heads.get(identity)
            heads[identity] = _Attested(leaf, max(sequence, last.sequence if last else 0))


class Auditor:
    """Checks log, archived stories, stored checkpoints and exported ones against each other. Only reads.

    Args:
        blobs: where archived stories are.
        key: the notary's public key, from where the reader trusts it; also one that has been retired since.
        handovers: notes that retired a key, beside those in the store.
    """

    def __init__(
        self,
        raw: RawLog,
        store: CheckpointStore,
        export: CheckpointExport,
        *,
        blobs: BlobStore,
        key: NoteKey,
        verifier: Verifier,
        handovers: Sequence[str] = (),
    ) -> None:
        self._raw, self._store, self._export, self._blobs = raw, store, export, blobs
        self._key, self._verifier, self._handovers = key, verifier, handovers
        self._keys = KeyRing.trusting(key, handovers, check=verifier.check)

    async def verify(self, *, extra: SignedCheckpoint | None = None, progress: Progress | None = None) -> AuditReport:
        """What differs, as far as signatures, chains and attested heads tell. StoreUnavailable.

        Args:
            extra: a checkpoint that was kept elsewhere; what it attests must hold as well.
        """
        tell = progress or _tell_nobody
        audit = _Audit()
        handovers = [kept.note for kept in await self._notes() if is_handover(kept.note)]
        self._keys = KeyRing.trusting(self._key, [*self._handovers, *handovers], check=self._verifier.check)
        audit.losses, bad = await open_losses(self._store, self._export, self._keys, self._verifier, repair=False)
        audit.findings += bad
        # The copies first: each checkpoint is stored before it is exported, so that none can seem lost meanwhile.
        await self._look_at_copies(audit, tell)
        stored = await self._look_at_notes(audit)
        if extra is not None:
            self._look_at_extra(audit, extra, stored)
        await self._look_at_streams(audit, tell)
        await self._look_at_archives(audit, tell)
        accepted = self._compare(audit)
        return AuditReport(
            streams=sum(state.end.version > 0 for state in audit.states.values()),
            events=audit.events,
            checkpoints=len(stored),
            archives=audit.archives,
            exported=len(audit.exported),
            newest=audit.newest,
            findings=tuple(_without_repeats(audit.findings)),
            accepted=tuple(accepted),
            remarks=tuple(audit.remarks),
        )

    async def _look_at_copies(self, audit: _Audit, tell: Progress) -> None:
        sequences = await self._export.sequences()
        before: tuple[Opened, tuple[Leaf, ...]] | None = None
        for done, sequence in enumerate(sequences, start=1):
            tell("exported checkpoints", done, len(sequences))
            signed = await self._copy(audit, sequence)
            if signed is None:
                continue
            audit.exported[sequence] = signed.note
            checkpoint = self._opened(audit, signed.note, sequence)
            if checkpoint is None:
                before = None
                continue
            is_first = sequence == sequences[0]
            if before is not None or is_first:
                _add(audit, check_order(before[0] if before else None, checkpoint))
            if before is not None and before[0].checkpoint.sequence + 1 == sequence:
                audit.findings += check_successor(before[1], signed.leaves, audit.losses, sequence=sequence - 1)
            before = Opened(checkpoint, signed.digest), self._attest(audit, checkpoint, signed)

    async def _copy(self, audit: _Audit, sequence: int) -> SignedCheckpoint | None:
        try:
            return await self._export.read(sequence)
        except (InvalidInput, ArtifactNotFound) as error:
            audit.exported[sequence] = ""
            audit.findings.append(LogFinding(Verdict.ALTERED, _CHECKPOINT, sequence, f"exported copy: {error.message}"))
            return None

    def _opened(self, audit: _Audit, note: str, sequence: int | None) -> Checkpoint | None:
        checkpoint = check_note(note, self._keys, self._verifier.check, sequence=sequence)
        if isinstance(checkpoint, LogFinding):
            audit.findings.append(checkpoint)
            return None
        audit.newest = max(audit.newest, checkpoint.sequence)
        return checkpoint

    def _attest(self, audit: _Audit, checkpoint: Checkpoint, signed: SignedCheckpoint) -> tuple[Leaf, ...]:
        """The leaves, if they are those that were signed; the log is compared with them later."""
        problem = check_root(checkpoint, signed)
        if problem is not None:
            audit.findings.append(problem)
            return ()
        audit.attest(signed.leaves, sequence=checkpoint.sequence)
        return signed.leaves

    async def _look_at_notes(self, audit: _Audit) -> dict[int, str]:
        notes = await self._notes()
        before: Opened | None = None
        for number, kept in enumerate(notes):
            same = audit.exported.get(kept.sequence)
            checkpoint = None if same == kept.note and same else self._opened(audit, kept.note, kept.sequence)
            if same and same != kept.note:
                detail = "the checkpoint in the store is not the one that was exported"
                audit.findings.append(LogFinding(Verdict.FORKED, _CHECKPOINT, kept.sequence, detail))
            if checkpoint is None:
                before = None
                continue
            if before is not None or number == 0:
                _add(audit, check_order(before, checkpoint))
            before = Opened(checkpoint, SignedCheckpoint(note=kept.note, leaves=()).digest)
        stored = {kept.sequence: kept.note for kept in notes}
        await self._look_at_newest(audit, stored)
        self._compare_places(audit, stored, copies=set(await self._export.sequences()))
        return stored

    async def _notes(self) -> list[StoredNote]:
        notes: list[StoredNote] = []
        while page := await self._store.notes(after=notes[-1].sequence if notes else 0, limit=_PAGE):
            notes += page
        return notes

    async def _look_at_newest(self, audit: _Audit, stored: dict[int, str]) -> None:
        """The heads that are stored beside the newest note are those that it was signed over."""
        try:
            signed = await self._store.latest()
        except LogCorrupted as error:
            audit.findings.append(LogFinding(Verdict.ALTERED, _CHECKPOINT, max(stored, default=0), error.message))
            return
        if signed is None:
            return
        checkpoint = check_note(signed.note, self._keys, self._verifier.check, sequence=None)
        if not isinstance(checkpoint, LogFinding):
            self._attest(audit, checkpoint, signed)

    def _compare_places(self, audit: _Audit, stored: dict[int, str], *, copies: set[int]) -> None:
        last, exported = max(stored, default=0), max(audit.exported, default=0)
        if exported > last:
            detail = f"{exported} was exported, the store ends at {last}: the whole store went back in time"
            audit.findings.append(LogFinding(Verdict.ROLLED_BACK, _CHECKPOINT, exported, detail))
        for sequence in _gaps(range(1, last + 1), stored):
            audit.findings.append(LogFinding(Verdict.MISSING, _CHECKPOINT, sequence, "it is gone from the store"))
        for sequence in _gaps(range(1, last), copies):
            audit.findings.append(LogFinding(Verdict.MISSING, _CHECKPOINT, sequence, "its exported copy is gone"))
        if last > max(copies, default=0):
            audit.remarks.append(f"checkpoint {last} is not exported yet; the notary repeats that")
        if not last and not exported:
            audit.remarks.append("there is no checkpoint yet: a log that went back or was rewritten cannot be noticed")

    def _look_at_extra(self, audit: _Audit, extra: SignedCheckpoint, stored: dict[int, str]) -> None:
        checkpoint = self._opened(audit, extra.note, None)
        if checkpoint is None:
            return
        self._attest(audit, checkpoint, extra)
        here = stored.get(checkpoint.sequence) or audit.exported.get(checkpoint.sequence)
        if here is None:
            detail = "the given checkpoint is newer than those that are kept here"
            audit.findings.append(LogFinding(Verdict.ROLLED_BACK, _CHECKPOINT, checkpoint.sequence, detail))
        elif here != extra.note:
            detail = "the given checkpoint is not the one that is kept here"
            audit.findings.append(LogFinding(Verdict.FORKED, _CHECKPOINT, checkpoint.sequence, detail))

    async def _look_at_streams(self, audit: _Audit, tell: Progress) -> None:
        listed, held = set(await self._raw.listed()), set(await self._raw.held())
        for stream in sorted(held - listed):
            # Listed a moment later is how a stream looks that has just begun.
            if stream not in await self._raw.listed():
                detail = "it is not in the list of streams, so that nobody would look at it"
                audit.findings.append(LogFinding(Verdict.ALTERED, str(stream), None, detail))
        streams = sorted({*listed, *held, *audit.attested})
        for done, stream in enumerate(streams, start=1):
            tell("streams", done, len(streams))
            await self._look_at_stream(audit, stream, is_listed=stream in listed)

    async def _look_at_stream(self, audit: _Audit, stream: StreamId, *, is_listed: bool) -> None:
        versions = frozenset(version for version, _, _ in audit.attested.get(stream, {}))
        chain = ChainCheck(stream, kept_versions=versions)
        is_project = stream.startswith("project:")
        head = await follow(self._raw, chain, each=audit.archive.add if is_project else None)
        audit.findings += chain.findings
        audit.events += chain.version
        audit.states[stream] = StreamState(chain.end, head, chain.hashes)
        if is_listed and chain.version == 0 and stream in await self._raw.listed():
            detail = "it is in the list of streams, but has no entry"
            audit.findings.append(LogFinding(Verdict.DELETED, str(stream), None, detail))

    async def _look_at_archives(self, audit: _Audit, tell: Progress) -> None:
        """Every story that left the log is whole where its tombstone says that it is."""
        unread: set[StreamId] = set()
        for done, buried in enumerate(audit.archive.buried, start=1):
            tell("archived stories", done, len(audit.archive.buried))
            archive = await open_archive(self._blobs, buried)
            if isinstance(archive, LogFinding):
                audit.findings.append(archive)
                unread.add(buried.stream)
                continue
            audit.archives += 1
            audit.opened[buried.stream] = audit.opened.get(buried.stream, frozenset()) | archive.events
        for stream in unread:
            audit.opened.pop(stream, None)

    def _compare(self, audit: _Audit) -> list[Loss]:
        """The log holds what was attested; returns the losses that excuse where it does not."""
        excuses: dict[Loss, None] = {}
        for stream, attested in sorted(audit.attested.items()):
            seen = audit.states[stream]
            tombstone, archived = audit.archive.heads.get(stream), audit.opened.get(stream)
            state = StreamState(seen.end, seen.head, seen.hashes, tombstone, archived)
            told = {finding.verdict for finding in audit.findings if finding.subject == stream}
            wrong: dict[Verdict, LogFinding] = {}
            for leaf, sequence in sorted(attested.values(), key=lambda a: a.leaf.version):
                outcome = check_leaf(leaf, state, audit.losses, sequence=sequence)
                if isinstance(outcome, Loss):
                    excuses[outcome] = None
                elif outcome is not None and outcome.verdict not in told:
                    # Of a log that went back the farthest head tells most, of any other difference the first one.
                    is_better = outcome.verdict is Verdict.ROLLED_BACK or outcome.verdict not in wrong
                    wrong[outcome.verdict] = outcome if is_better else wrong[outcome.verdict]
            audit.findings += wrong.values()
        return list(excuses)

    async def notes(self, *, after: int = 0, limit: int | None = None) -> list[StoredNote]:
        """Stored checkpoints with a number above `after`, in order, at most `limit`; nothing in them is checked."""
        return await self._store.notes(after=after, limit=limit)

    async def newest(self) -> int:
        """The number of the newest stored checkpoint, 0 without one; LogCorrupted when it has not the form of one."""
        newest = await self._store.latest()
        if newest is None:
            return 0
        try:
            return parse_checkpoint(note_text(newest.note)).sequence
        except InvalidInput as error:
            raise LogCorrupted(f"the newest checkpoint is damaged: {error.message}") from error

    async def proof(self, stream: StreamId, *, version: int) -> Proof:
        """The proof for one event; NotFound and LogCorrupted as `prove` says."""
        return await prove(self._raw, self._export, self._blobs, stream=stream, version=version)


async def copy_checkpoints(
    source: CheckpointExport, target: CheckpointExport, *, progress: Progress | None = None
) -> int:
    """The target holds all checkpoints and accepted losses of the source; returns how many checkpoints these are.

    Raises NotFound when there is none, LogCorrupted when the target holds another one under the same number.
    """
    tell = progress or _tell_nobody
    sequences = await source.sequences()
    if not sequences:
        raise NotFound("there is no exported checkpoint yet: the notary makes them while the fleet runs")
    for done, sequence in enumerate(sequences, start=1):
        tell("checkpoints", done, len(sequences))
        await target.write(await source.read(sequence), sequence=sequence)
    for note in await source.losses():
        await target.add_loss(note, loss=loss_id(note))
    return len(sequences)


def _tell_nobody(_: str, __: int, ___: int) -> None:
    return


def _add(audit: _Audit, finding: LogFinding | None) -> None:
    if finding is not None:
        audit.findings.append(finding)


def _gaps(expected: range, present: Container[int]) -> list[int]:
    return [sequence for sequence in expected if sequence not in present]


def _without_repeats(findings: list[LogFinding]) -> list[LogFinding]:
    """The first finding of each kind and place; a stream that is deleted is so only once."""
    kept: dict[tuple[Verdict, str, int | None], LogFinding] = {}
    for finding in findings:
        version = None if finding.verdict in (Verdict.DELETED, Verdict.ROLLED_BACK) else finding.version
        kept.setdefault((finding.verdict, finding.subject, version), finding)
    return list(kept.values())
