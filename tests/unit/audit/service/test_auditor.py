"""The auditor and the desk for losses over the twins in memory (EV-19, EV-32)."""

from __future__ import annotations

import pytest

from fleet.audit.checkpoint import SignedCheckpoint, sign_checkpoint
from fleet.audit.files.ed25519 import Ed25519Verifier
from fleet.audit.memory import MemoryCheckpointExport, MemoryCheckpointStore
from fleet.audit.proof import check_proof
from fleet.audit.service.auditor import copy_checkpoints
from fleet.events.envelope import Head
from fleet.kernel.errors import InvalidInput, InvalidTransition, LogCorrupted, NotFound
from fleet.kernel.ids import Principal, StreamId
from tests.support.audit import OTHER_SIGNER, SIGNER, AuditWorld

ONE, TWO = StreamId("story:st-one"), StreamId("story:st-two")
ANA = Principal("user:ana")
WHY = "the disk of the store died"


@pytest.fixture
async def world() -> AuditWorld:
    """Two streams, attested at 4 and 2 events, and at 6 and 2."""
    made = AuditWorld()
    await made.append(ONE, b"1", b"2", b"3", b"4")
    await made.append(TWO, b"1", b"2")
    await made.notary().checkpoint()
    await made.append(ONE, b"5", b"6")
    await made.notary().checkpoint()
    return made


async def found(world: AuditWorld, *, extra: SignedCheckpoint | None = None) -> list[tuple[str, str, int | None]]:
    report = await world.auditor().verify(extra=extra)
    assert report.is_clean is (not report.findings)
    return [(f.verdict.value, f.subject, f.version) for f in report.findings]


@pytest.mark.rule("EV-32")
async def test_clean_log_is_clean_and_progress_is_told(world: AuditWorld) -> None:
    told: list[tuple[str, int, int]] = []
    report = await world.auditor().verify(progress=lambda *now: told.append(now))
    assert (report.findings, report.remarks, report.accepted) == ((), (), ())
    assert (report.streams, report.events, report.checkpoints, report.exported, report.newest) == (2, 8, 2, 2, 2)
    assert told == [
        ("exported checkpoints", 1, 2),
        ("exported checkpoints", 2, 2),
        ("streams", 1, 2),
        ("streams", 2, 2),
    ]


async def test_log_without_checkpoints_is_clean_with_a_remark() -> None:
    world = AuditWorld()
    await world.append(ONE, b"1")
    report = await world.verify()
    assert report.is_clean
    assert "there is no checkpoint yet" in report.remarks[0]


async def test_checkpoint_that_is_not_exported_yet_is_a_remark(world: AuditWorld) -> None:
    del world.export.copies[2]
    report = await world.verify()
    assert (report.is_clean, report.remarks) == (True, ("checkpoint 2 is not exported yet; the notary repeats that",))


@pytest.mark.rule("EV-32")
async def test_stored_checkpoints_that_are_gone_or_differ_are_named(world: AuditWorld) -> None:
    first, second = world.store.kept
    world.store.kept.pop()
    assert await found(world) == [("rolled back", "checkpoint", 2)]
    other = sign_checkpoint(
        second.leaves, sequence=2, previous=first.digest, time_ms=9, key=SIGNER.key, sign=SIGNER.sign
    )
    world.store.kept.append(other)
    assert await found(world) == [("forked", "checkpoint", 2)]
    world.export.copies.clear()
    assert await found(world) == [("missing", "checkpoint", 1)]
    world.store.kept[1] = SignedCheckpoint(note="", leaves=())
    assert ("altered", "checkpoint", 2) in await found(world)


@pytest.mark.rule("EV-32")
async def test_copies_that_do_not_follow_each_other_are_named(world: AuditWorld) -> None:
    first, second = world.store.kept
    apart = sign_checkpoint(
        second.leaves, sequence=2, previous=second.digest, time_ms=9, key=SIGNER.key, sign=SIGNER.sign
    )
    world.store.kept[1] = world.export.copies[2] = apart
    assert await found(world) == [("forked", "checkpoint", 2)]
    back = sign_checkpoint(
        first.leaves[1:], sequence=2, previous=first.digest, time_ms=9, key=SIGNER.key, sign=SIGNER.sign
    )
    world.store.kept[1] = world.export.copies[2] = back
    assert await found(world) == [("deleted", ONE, 4)]
    unsigned = sign_checkpoint(
        first.leaves, sequence=1, previous=None, time_ms=1, key=OTHER_SIGNER.key, sign=OTHER_SIGNER.sign
    )
    world.export.copies[1] = unsigned
    assert {verdict for verdict, _, _ in await found(world)} == {"bad signature", "forked"}
    assert (await world.auditor(OTHER_SIGNER.key).verify()).newest == 1


@pytest.mark.rule("EV-32")
async def test_checkpoint_from_elsewhere_is_compared_as_well(world: AuditWorld) -> None:
    first, second = world.store.kept
    assert await found(world, extra=second) == []
    newer = sign_checkpoint(
        second.leaves, sequence=3, previous=second.digest, time_ms=9, key=SIGNER.key, sign=SIGNER.sign
    )
    assert await found(world, extra=newer) == [("rolled back", "checkpoint", 3)]
    other = sign_checkpoint(first.leaves[:1], sequence=1, previous=None, time_ms=9, key=SIGNER.key, sign=SIGNER.sign)
    assert await found(world, extra=other) == [("forked", "checkpoint", 1)]
    assert [verdict for verdict, _, _ in await found(world, extra=SignedCheckpoint(note="", leaves=()))] == ["altered"]


@pytest.mark.rule("EV-32")
async def test_farthest_head_tells_how_far_a_stream_went_back(world: AuditWorld) -> None:
    await world.cut(ONE, 3)
    assert await found(world) == [("rolled back", ONE, 6)]


@pytest.mark.rule("EV-32")
async def test_first_attested_version_tells_where_a_stream_was_forked(world: AuditWorld) -> None:
    other = AuditWorld()
    await other.append(ONE, *(b"other %d" % n for n in range(8)))
    world.raw.tampered[ONE], world.raw.heads[ONE] = await other.entries(ONE), await other.log.head(ONE)
    assert await found(world) == [("forked", ONE, 4)]


@pytest.mark.rule("EV-32")
async def test_hidden_and_emptied_streams_are_named(world: AuditWorld) -> None:
    world.raw.unlisted.add(TWO)
    assert await found(world) == [("altered", TWO, None)]
    world.raw.unlisted.clear()
    world.raw.tampered[TWO], world.raw.heads[TWO] = [], None
    assert await found(world) == [("deleted", TWO, None)]


@pytest.mark.rule("EV-32")
async def test_proof_takes_the_oldest_checkpoint_that_covers_the_event(world: AuditWorld) -> None:
    auditor = world.auditor()
    assert len((await auditor.proof(ONE, version=3)).entries) == 4
    proof = await auditor.proof(ONE, version=5)
    assert check_proof(proof, SIGNER.ring, Ed25519Verifier().check).entry.fields["b"] == b"5"
    for version in (0, 7):
        with pytest.raises(NotFound, match="no exported checkpoint covers"):
            await auditor.proof(ONE, version=version)
    await world.cut(ONE, 3)
    with pytest.raises(LogCorrupted, match="does not hold any more"):
        await auditor.proof(ONE, version=3)


async def test_copies_are_copied(world: AuditWorld) -> None:
    await world.cut(ONE, 3)
    await world.notary().checkpoint()
    await world.desk().accept(ONE, by=ANA, reason=WHY)
    target = MemoryCheckpointExport()
    assert await copy_checkpoints(world.export, target) == 3
    assert (target.copies, await target.losses()) == (world.export.copies, await world.export.losses())
    with pytest.raises(NotFound, match="no exported checkpoint yet"):
        await copy_checkpoints(MemoryCheckpointExport(), target)
    other = AuditWorld()
    await other.append(TWO, b"1")
    await other.notary().checkpoint()
    with pytest.raises(LogCorrupted, match="another checkpoint 1"):
        await copy_checkpoints(other.export, target)


@pytest.mark.rule("EV-19")
async def test_accepted_loss_is_recorded_in_both_places_before_the_stream_takes_appends(world: AuditWorld) -> None:
    await world.cut(ONE, 5)
    await world.notary().checkpoint()
    done = await world.desk().accept(ONE, by=ANA, reason="  the disk of\nthe store died ")

    loss = done.loss
    assert (done.is_new, loss.lost, loss.kept.version, loss.present.version, loss.attested.version) == (
        True,
        1,
        4,
        5,
        6,
    )
    assert (loss.reason, loss.accepted_by, loss.sequence) == (WHY, ANA, 3)
    assert loss.refusal.startswith("rolled back: story:st-one version 6")
    assert len(await world.store.losses()) == len(await world.export.losses()) == 1
    assert await world.log.refused() == {}
    report = await world.verify()
    assert (report.is_clean, report.accepted) == (True, (loss,))

    again = await world.desk().accept(ONE, by=ANA, reason="it was accepted already")
    assert (again.is_new, again.loss) == (False, loss)
    assert (await world.notary().checkpoint()).findings == ()
    assert (await world.verify()).is_clean
    with pytest.raises(InvalidTransition, match="nothing of story:st-one was lost"):
        await world.desk().accept(ONE, by=ANA, reason=WHY)


@pytest.mark.rule("EV-19")
async def test_loss_that_grew_before_the_next_checkpoint_is_accepted_anew(world: AuditWorld) -> None:
    await world.cut(ONE, 5)
    await world.notary().checkpoint()
    await world.desk().accept(ONE, by=ANA, reason=WHY)
    await world.cut(ONE, 3)
    done = await world.desk().accept(ONE, by=ANA, reason="and once more it died")
    assert (done.is_new, done.loss.kept.version, done.loss.present.version) == (True, 0, 3)
    assert (await world.notary().checkpoint()).findings == ()


@pytest.mark.rule("EV-19")
async def test_stream_that_was_refused_for_another_reason_is_accepted_without_a_loss(world: AuditWorld) -> None:
    new = StreamId("story:st-new")
    await world.append(new, b"1")
    for stream in (TWO, new):
        await world.log.refuse(stream, reason="the graph is ahead of it")
        done = await world.desk().accept(stream, by=ANA, reason=WHY)
        assert (done.loss.lost, done.loss.refusal) == (0, "the graph is ahead of it")
    assert await world.log.refused() == {}
    assert (await world.notary().checkpoint()).findings == ()


async def test_damaged_stream_and_short_reason_are_not_accepted(world: AuditWorld) -> None:
    for reason in ("", "too short", "x" * 4001):
        with pytest.raises(InvalidInput, match="the reason has"):
            await world.desk().accept(ONE, by=ANA, reason=reason)
    world.raw.tampered[ONE] = (await world.entries(ONE))[:3]
    world.raw.heads[ONE] = Head(6, "0" * 64)
    with pytest.raises(LogCorrupted, match="what is left of story:st-one is damaged"):
        await world.desk().accept(ONE, by=ANA, reason=WHY)


@pytest.mark.rule("EV-19")
async def test_notary_that_signs_in_between_does_not_undo_the_acceptance(world: AuditWorld) -> None:
    class Busy(MemoryCheckpointStore):
        is_signing = False

        async def add_loss(self, note: str) -> None:
            if not self.is_signing:
                self.is_signing = True
                await world.append(TWO, b"meanwhile")
                await world.notary().checkpoint()
            await super().add_loss(note)

    busy = Busy()
    busy.kept = world.store.kept
    world.store = busy
    await world.cut(ONE, 5)
    await world.notary().checkpoint()

    done = await world.desk().accept(ONE, by=ANA, reason=WHY)

    assert (done.loss.sequence, len(await busy.losses())) == (4, 2)
    assert (await world.notary().checkpoint()).findings == ()
    assert await world.log.refused() == {}
    assert (await world.verify()).is_clean
