"""The contracts of CheckpointStore, CheckpointExport, Witness and RawLog, on every adapter (EV-9, EV-19)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet.audit.chain import raw_entry
from fleet.audit.checkpoint import Leaf, LeafMark, SignedCheckpoint, sign_checkpoint
from fleet.audit.files.witness import CheckpointFolder, FolderWitness
from fleet.audit.loss import AttestedHead, Loss, loss_id, sign_loss
from fleet.audit.memory import MemoryCheckpointExport, MemoryCheckpointStore, MemoryRawLog, MemoryWitness
from fleet.audit.port import CheckpointExport, CheckpointStore, RawLog, StoredNote, Witness
from fleet.audit.redis import RedisCheckpointStore, RedisRawLog
from fleet.events.envelope import Head
from fleet.kernel.errors import ArtifactNotFound, LogCorrupted, VersionConflict
from fleet.kernel.ids import StreamId
from fleet.log.memory import MemoryEventLog
from fleet.log.port import Appended, EventLog
from fleet.log.redis.log import RedisEventLog
from tests.support.audit import SIGNER
from tests.support.stores import ACTOR, append_request, empty_database

ONE, TWO = StreamId("story:st-one"), StreamId("story:st-two")
A = "a" * 64


def signed(sequence: int, *, version: int = 5, streams: Sequence[StreamId] = (ONE,)) -> SignedCheckpoint:
    return sign_checkpoint(
        [Leaf(stream=stream, version=version, hash=A) for stream in streams],
        sequence=sequence,
        previous=None if sequence == 1 else signed(1).digest,
        time_ms=sequence,
        key=SIGNER.key,
        sign=SIGNER.sign,
    )


def loss(reason: str = "the disk died", *, sequence: int = 1) -> str:
    head = AttestedHead(version=5, hash=A)
    record = Loss(
        stream=ONE,
        attested=head,
        kept=AttestedHead(version=3, hash=A),
        present=head,
        sequence=sequence,
        refusal="",
        accepted_by=ACTOR,
        reason=reason,
        time="2026-01-02T03:04:05.006Z",
    )
    return sign_loss(record, SIGNER.key, SIGNER.sign)


@dataclass(frozen=True)
class Log:
    """A log and its raw bytes."""

    log: EventLog
    raw: RawLog


@pytest.fixture
async def store(store_url: str | None) -> AsyncGenerator[CheckpointStore]:
    if store_url is None:
        yield MemoryCheckpointStore()
        return
    async with empty_database(store_url) as client:
        yield RedisCheckpointStore(client, margin_s=2)


@pytest.fixture
async def log(store_url: str | None) -> AsyncGenerator[Log]:
    if store_url is None:
        memory = MemoryEventLog()
        yield Log(memory, MemoryRawLog(memory))
        return
    async with empty_database(store_url) as client:
        yield Log(RedisEventLog(client, margin_s=2), RedisRawLog(client))


@pytest.fixture(params=["memory", "folder"])
def copies(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[CheckpointExport, Witness]:
    if request.param == "folder":
        return CheckpointFolder(tmp_path / "audit" / "exported"), FolderWitness(tmp_path / "audit" / "exported")
    export = MemoryCheckpointExport()
    return export, MemoryWitness(export)


@pytest.mark.rule("EV-9")
async def test_store_keeps_each_sequence_once_and_in_order(store: CheckpointStore) -> None:
    assert (await store.latest(), await store.notes()) == (None, [])
    first, second = signed(1), signed(2, version=6, streams=(ONE, TWO))
    await store.append(first, sequence=1)
    await store.append(first, sequence=1)
    await store.append(second, sequence=2)

    assert await store.latest() == second
    assert await store.notes() == [StoredNote(1, first.note), StoredNote(2, second.note)]
    assert await store.notes(after=1) == [StoredNote(2, second.note)]
    assert await store.notes(limit=1) == [StoredNote(1, first.note)]


@pytest.mark.rule("EV-9")
async def test_store_refuses_a_taken_or_distant_sequence(store: CheckpointStore) -> None:
    await store.append(signed(1), sequence=1)
    for sequence, other in ((1, signed(1, version=9)), (3, signed(3))):
        with pytest.raises(VersionConflict) as refused:
            await store.append(other, sequence=sequence)
        assert refused.value.details == {"expected": sequence - 1, "actual": 1}
    assert await store.latest() == signed(1)


@pytest.mark.rule("EV-9")
async def test_of_two_notaries_one_is_first(store: CheckpointStore) -> None:
    both = await asyncio.gather(
        store.append(signed(1), sequence=1), store.append(signed(1, version=9), sequence=1), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in both) == ["NoneType", "VersionConflict"]
    latest = await store.latest()
    assert latest is not None
    assert [n.note for n in await store.notes()] == [latest.note]


@pytest.mark.rule("EV-19")
async def test_store_keeps_each_loss_once(store: CheckpointStore) -> None:
    assert await store.losses() == []
    for note in (loss(), loss("another"), loss()):
        await store.add_loss(note)
    assert await store.losses() == [loss(), loss("another")]


@pytest.mark.rule("EV-19")
async def test_copies_are_written_once_and_read_back(copies: tuple[CheckpointExport, Witness]) -> None:
    export, _ = copies
    assert (await export.sequences(), await export.losses()) == ([], [])
    with pytest.raises(ArtifactNotFound):
        await export.read(1)
    for sequence in (1, 2, 10):
        await export.write(signed(sequence), sequence=sequence)
    await export.write(signed(2), sequence=2)
    with pytest.raises(LogCorrupted, match="another checkpoint 2"):
        await export.write(signed(2, version=9), sequence=2)

    assert await export.sequences() == [1, 2, 10]
    assert await export.read(2) == signed(2)
    for _ in range(2):
        await export.add_loss(loss(), loss=loss_id(loss()))
    assert await export.losses() == [loss()]


@pytest.mark.rule("EV-19")
async def test_witness_tells_the_heads_of_the_newest_copy(copies: tuple[CheckpointExport, Witness]) -> None:
    export, witness = copies
    assert await witness.attested(ONE) is None
    await export.write(signed(1, version=3), sequence=1)
    assert (await witness.attested(ONE), await witness.attested(TWO)) == (Head(3, A), None)
    await export.write(signed(2, version=5, streams=(ONE, TWO)), sequence=2)
    assert (await witness.attested(ONE), await witness.attested(TWO)) == (Head(5, A), Head(5, A))
    note = loss(sequence=2)
    await export.add_loss(note, loss=loss_id(note))
    assert (await witness.attested(ONE), await witness.attested(TWO)) == (Head(3, A), Head(5, A))
    archived = Leaf(stream=ONE, version=5, hash=A, mark=LeafMark.ARCHIVED)
    gone = sign_checkpoint([archived], sequence=3, previous=None, time_ms=1, key=SIGNER.key, sign=SIGNER.sign)
    await export.write(gone, sequence=3)
    assert await witness.attested(ONE) is None


@pytest.mark.rule("EV-32")
async def test_raw_log_holds_the_bytes_of_the_log(log: Log) -> None:
    assert (await log.raw.held(), await log.raw.listed(), await log.raw.head(ONE)) == ([], [], None)
    assert await log.raw.entries(ONE, limit=5) == []
    done = await log.log.append(append_request(TWO, bodies=[b"1", b"\xff\x00", b"3"]))
    assert isinstance(done, Appended)
    await log.log.append(append_request(ONE))

    assert await log.raw.held() == await log.raw.listed() == [ONE, TWO]
    assert await log.raw.entries(TWO, limit=10) == [raw_entry(event) for event in done.events]
    assert await log.raw.entries(TWO, after=1, limit=1) == [raw_entry(done.events[1])]
    assert await log.raw.head(TWO) == Head(3, done.head.hash)


async def test_raw_log_of_an_erased_stream_is_empty(log: Log) -> None:
    done = await log.log.append(append_request(ONE))
    assert isinstance(done, Appended)
    await log.log.erase(ONE, expected=done.head)
    assert (await log.raw.held(), await log.raw.listed(), await log.raw.head(ONE)) == ([], [], None)
