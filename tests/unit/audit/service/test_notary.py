"""The notary over the twins in memory: what it signs, what it refuses, and how it gets over a crash (EV-9, EV-19)."""

from __future__ import annotations

import asyncio

import pytest

from fleet.audit.chain import RawEntry
from fleet.audit.checkpoint import LeafMark, SignedCheckpoint, open_checkpoint, sign_checkpoint
from fleet.audit.files.ed25519 import Ed25519Verifier
from fleet.audit.finding import Verdict
from fleet.audit.loss import AttestedHead, Loss, loss_id, sign_loss
from fleet.audit.memory import MemoryCheckpointStore, MemoryWitness
from fleet.audit.note import NoteKey
from fleet.audit.port import StoredNote
from fleet.audit.service.notary import Notary
from fleet.audit.service.stream_export import export_stream
from fleet.events.envelope import Head
from fleet.events.project import StoryTombstoned
from fleet.kernel.errors import LogCorrupted, LogRegressed, StoreUnavailable, VersionConflict
from fleet.kernel.ids import StoryId, StreamId
from tests.support.audit import OTHER_SIGNER, SIGNER, AuditWorld
from tests.support.stores import ACTOR, eventually

ONE, TWO, PROJECT = StreamId("story:st-one"), StreamId("story:st-two"), StreamId("project:pr-one")


@pytest.fixture
async def world() -> AuditWorld:
    """Two streams of 4 and 2 events, attested once."""
    made = AuditWorld()
    await made.append(ONE, b"1", b"2", b"3", b"4")
    await made.append(TWO, b"1", b"2")
    assert (await made.notary().checkpoint()).is_new
    return made


async def newest(world: AuditWorld) -> SignedCheckpoint:
    found = await world.store.latest()
    assert found is not None
    return found


@pytest.mark.rule("EV-9")
async def test_checkpoint_holds_the_head_of_every_stream_and_follows_the_one_before(world: AuditWorld) -> None:
    head = await world.append(ONE, b"5")
    done = await world.notary().checkpoint()

    first, second = world.store.kept
    assert (done.sequence, done.streams, done.versions, done.findings) == (2, 2, 7, ())
    assert [(x.stream, x.version, x.hash) for x in second.leaves][0] == (ONE, 5, head.hash)
    opened = open_checkpoint(second.note, SIGNER.key, Ed25519Verifier().check)
    assert (opened.previous, opened.versions) == (first.digest, 7)
    assert world.export.copies == {1: first, 2: second}


async def test_log_that_did_not_change_needs_no_new_checkpoint(world: AuditWorld) -> None:
    done = await world.notary().checkpoint()
    assert (done.sequence, done.is_new, len(world.store.kept)) == (1, False, 1)
    assert (await AuditWorld().notary().checkpoint()).sequence == 0


@pytest.mark.rule("EV-19")
async def test_stream_that_went_back_is_refused_and_the_others_are_attested(world: AuditWorld) -> None:
    await world.cut(ONE, 3)
    await world.append(TWO, b"3")

    done = await world.notary().checkpoint()

    assert [(f.verdict, f.subject, f.version) for f in done.findings] == [(Verdict.ROLLED_BACK, ONE, 4)]
    assert list(await world.log.refused()) == [ONE]
    with pytest.raises(LogRegressed):
        await world.append(ONE, b"4")
    leaves = {x.stream: (x.version, x.mark) for x in (await newest(world)).leaves}
    assert leaves == {ONE: (4, LeafMark.REFUSED), TWO: (3, LeafMark.LIVE)}
    assert [line for line in world.announced if line.startswith("refused rolled back")] == world.announced
    again = await world.notary().checkpoint()
    assert (again.is_new, len(again.findings), len(world.announced)) == (False, 1, 1)


@pytest.mark.rule("EV-19", "EV-32")
async def test_forked_altered_and_shortened_streams_are_refused(world: AuditWorld) -> None:
    entries = await world.entries(ONE)
    other = AuditWorld()
    await other.append(ONE, b"1", b"2", b"3", b"other", b"and more")
    world.raw.tampered[ONE] = await other.entries(ONE)
    world.raw.heads[ONE] = await other.log.head(ONE)
    assert [f.verdict for f in (await world.notary().checkpoint()).findings] == [Verdict.FORKED]

    world.raw.heads.clear()
    world.raw.tampered[ONE] = [*entries[:3], RawEntry("4-0", {**entries[3].fields, "b": b"x"})]
    assert [f.verdict for f in (await world.notary().checkpoint()).findings] == [Verdict.ALTERED]

    world.raw.tampered[ONE] = entries[:3]
    assert [f.verdict for f in (await world.notary().checkpoint()).findings] == [Verdict.MISSING]

    world.raw.tampered[ONE] = []
    world.raw.heads[ONE] = None
    assert [f.verdict for f in (await world.notary().checkpoint()).findings] == [Verdict.DELETED]


@pytest.mark.rule("EV-32")
async def test_new_stream_that_does_not_verify_is_never_attested(world: AuditWorld) -> None:
    new = StreamId("story:st-new")
    await world.append(new, b"1", b"2")
    entries = await world.entries(new)
    world.raw.tampered[new] = [entries[0], RawEntry("2-0", {**entries[1].fields, "b": b"x"})]

    done = await world.notary().checkpoint()

    assert [f.subject for f in done.findings] == [new]
    assert {x.stream for x in (await newest(world)).leaves} == {ONE, TWO}


async def test_stream_that_others_refused_keeps_its_leaf(world: AuditWorld) -> None:
    new = StreamId("story:st-new")
    await world.append(ONE, b"5")
    await world.append(new, b"1")
    for stream in (ONE, new):
        await world.log.refuse(stream, reason="the graph is ahead of it")

    done = await world.notary().checkpoint()

    assert (done.findings, await world.log.refused()) == ((), dict.fromkeys([new, ONE], "the graph is ahead of it"))
    leaves = {x.stream: (x.version, x.mark) for x in (await newest(world)).leaves}
    assert leaves == {ONE: (4, LeafMark.REFUSED), TWO: (2, LeafMark.LIVE)}


@pytest.mark.rule("EV-32")
async def test_archived_story_stays_attested_with_its_last_head(world: AuditWorld) -> None:
    last = await world.append(ONE, b"5")
    archive = export_stream(await world.log.read(ONE), await world.log.commands(ONE))
    buried = StoryTombstoned(
        story_id=StoryId("st-one"),
        export_digest=await world.blobs.put(archive),
        last_version=last.version,
        last_hash=last.hash,
    )
    await world.append(PROJECT, b"{}", b'{"story_id":', buried)
    await world.log.erase(ONE, expected=last)

    done = await world.notary().checkpoint()

    assert done.findings == ()
    (leaf,) = (x for x in (await newest(world)).leaves if x.stream == ONE)
    assert (leaf.version, leaf.hash, leaf.mark) == (5, last.hash, LeafMark.ARCHIVED)
    assert (await world.notary().checkpoint()).is_new is False
    assert (await world.verify()).is_clean
    witness = MemoryWitness(world.export)
    assert (await witness.attested(ONE), await witness.attested(TWO)) == (None, await world.log.head(TWO))


class FailingStore(MemoryCheckpointStore):
    """Fails once, before or after it stored a checkpoint, or tells that another notary was first."""

    def __init__(self, error: Exception, *, stores: bool) -> None:
        super().__init__()
        self.error, self.stores, self.times = error, stores, 1

    async def append(self, signed: SignedCheckpoint, *, sequence: int) -> None:
        if self.stores:
            await super().append(signed, sequence=sequence)
        if self.times:
            self.times -= 1
            raise self.error
        await super().append(signed, sequence=sequence)


class Crash(BaseException):
    """The process dies here."""


@pytest.mark.rule("EV-9")
@pytest.mark.parametrize("stores", [False, True], ids=["before the store", "between store and export"])
async def test_crash_while_a_checkpoint_is_written_is_repaired(stores: bool) -> None:
    world = AuditWorld()
    world.store = FailingStore(Crash(), stores=stores)  # pyright: ignore[reportArgumentType]
    await world.append(ONE, b"1")
    with pytest.raises(Crash):
        await world.notary().checkpoint()
    assert (len(world.store.kept), len(world.export.copies)) == (int(stores), 0)
    await world.append(ONE, b"2")

    done = await world.notary().checkpoint()

    assert (done.sequence, done.restored) == (1 + stores, 0)
    assert list(world.export.copies) == list(range(1, done.sequence + 1))
    assert (await world.verify()).is_clean


@pytest.mark.rule("EV-9")
async def test_notary_that_was_not_first_goes_on_from_the_other_checkpoint() -> None:
    world = AuditWorld()
    world.store = FailingStore(VersionConflict("taken"), stores=False)
    await world.append(ONE, b"1")
    assert (await world.notary().checkpoint()).sequence == 1

    world.store = store = FailingStore(VersionConflict("taken"), stores=False)
    world.export.copies.clear()
    store.times = 100
    with pytest.raises(VersionConflict, match="run one notary only"):
        await world.notary().checkpoint()


@pytest.mark.rule("EV-19")
async def test_store_that_went_back_gets_its_checkpoints_from_the_copies(world: AuditWorld) -> None:
    await world.append(ONE, b"5")
    await world.notary().checkpoint()
    world.store.kept.pop()
    assert (await world.notary().checkpoint()).restored == 1
    world.store.kept.clear()
    done = await world.notary().checkpoint()
    assert (done.restored, done.sequence, len(world.store.kept)) == (2, 2, 2)
    assert (await world.verify()).is_clean


@pytest.mark.rule("EV-32")
async def test_nothing_is_signed_after_a_checkpoint_that_cannot_be_trusted(world: AuditWorld) -> None:
    await world.append(ONE, b"5")
    (good,) = world.store.kept

    async def refused(match: str) -> None:
        with pytest.raises(LogCorrupted, match=match):
            await world.notary().checkpoint()
        assert len(world.store.kept) <= 1

    world.store.kept[0] = good.model_copy(update={"leaves": good.leaves[:1]})
    await refused("altered")
    forged = sign_checkpoint(
        good.leaves, sequence=1, previous=None, time_ms=1, key=OTHER_SIGNER.key, sign=OTHER_SIGNER.sign
    )
    world.store.kept[0] = forged
    await refused("bad signature")
    other = sign_checkpoint(good.leaves, sequence=1, previous=None, time_ms=2, key=SIGNER.key, sign=SIGNER.sign)
    world.store.kept[0] = other
    await refused("not the one that was exported")
    world.store.kept.clear()
    world.export.copies[2] = sign_checkpoint(
        good.leaves, sequence=2, previous=other.digest, time_ms=2, key=SIGNER.key, sign=SIGNER.sign
    )
    await refused("forked")


@pytest.mark.rule("EV-19")
async def test_loss_that_only_one_place_knows_is_repaired_and_a_forged_one_excuses_nothing(world: AuditWorld) -> None:
    leaf = (await newest(world)).leaves[0]
    entries = await world.entries(ONE)
    present = AttestedHead(version=3, hash=entries[2].fields["h"].decode())
    loss = Loss(
        stream=ONE,
        attested=AttestedHead(version=leaf.version, hash=leaf.hash),
        kept=AttestedHead(version=0, hash="0" * 64),
        present=present,
        sequence=1,
        refusal="",
        accepted_by=ACTOR,
        reason="the disk died",
        time="2026-01-02T03:04:05.006Z",
    )
    await world.cut(ONE, 3)
    await world.store.add_loss(sign_loss(loss, OTHER_SIGNER.key, OTHER_SIGNER.sign))
    await world.store.add_loss("no note")
    assert [f.verdict for f in (await world.notary().checkpoint()).findings] == [Verdict.ROLLED_BACK]
    await world.log.accept_loss(ONE)

    note = sign_loss(loss.model_copy(update={"sequence": 2}), SIGNER.key, SIGNER.sign)
    await world.export.add_loss(note, loss=loss_id(note))
    assert (await world.notary().checkpoint()).findings == ()
    assert note in await world.store.losses()
    assert {x.stream: x.version for x in (await newest(world)).leaves} == {ONE: 3, TWO: 2}


@pytest.mark.rule("EV-19")
async def test_stream_that_went_back_once_more_after_the_acceptance_is_refused_again(world: AuditWorld) -> None:
    await world.cut(ONE, 3)
    await world.notary().checkpoint()
    await world.desk().accept(ONE, by=ACTOR, reason="the disk of the store died")
    await world.cut(ONE, 2)
    (finding,) = (await world.notary().checkpoint()).findings
    assert (finding.verdict, finding.version) == (Verdict.ROLLED_BACK, 3)

    other = AuditWorld()
    await other.append(ONE, b"a", b"b", b"c")
    world.raw.tampered[ONE], world.raw.heads[ONE] = await other.entries(ONE), await other.log.head(ONE)
    (finding,) = (await world.notary().checkpoint()).findings
    assert finding.verdict is Verdict.FORKED


async def test_notary_goes_on_every_minute_and_tells_what_keeps_it_from_it() -> None:
    world = AuditWorld()
    world.store = store = FailingStore(StoreUnavailable("down"), stores=False)
    await world.append(ONE, b"1")
    notary: Notary = world.notary()
    task = asyncio.create_task(notary.run())
    try:
        assert await eventually(lambda: world.clock.sleepers, within_s=60)
        assert notary.problem == "store_unavailable: down"
        assert world.announced == ["no checkpoint: store_unavailable: down"]
        world.clock.advance(60)
        assert await eventually(lambda: len(store.kept), within_s=60)
        assert await eventually(lambda: notary.problem is None, within_s=60)
        assert notary.last is not None
        await world.append(ONE, b"2")
        world.clock.advance(59)
        await asyncio.sleep(0)
        assert len(store.kept) == 1
        world.clock.advance(1)
        assert await eventually(lambda: len(store.kept) == 2, within_s=60)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_asking_twice_at_once_makes_one_checkpoint(world: AuditWorld) -> None:
    await world.append(ONE, b"5")
    notary = world.notary()
    both = await asyncio.gather(notary.checkpoint(), notary.checkpoint())
    assert sorted(n.is_new for n in both) == [False, True]
    assert [n.sequence for n in await world.store.notes()] == [1, 2]
    assert (await world.store.notes(after=1, limit=5)) == [StoredNote(2, world.store.kept[1].note)]


async def test_witness_of_an_empty_folder_knows_nothing() -> None:
    witness = MemoryWitness(AuditWorld().export)
    assert await witness.attested(ONE) is None
    alone = MemoryWitness()
    alone.heads[ONE] = Head(3)
    assert (await alone.attested(ONE), await alone.attested(TWO)) == (Head(3), None)


def test_key_of_the_tests_is_a_key() -> None:
    assert NoteKey.parse(SIGNER.key.text) == SIGNER.key
