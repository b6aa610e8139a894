"""The notary's key is retired by a checkpoint that its successor signs too; whoever trusts one of them can follow."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.audit.checkpoint import parse_checkpoint, sign_checkpoint
from fleet.audit.files.ed25519 import Ed25519Verifier, KeyFile, read_public_key
from fleet.audit.finding import Verdict
from fleet.audit.key_ring import KeyRing, is_handover
from fleet.audit.loss import AttestedHead, Loss, sign_loss
from fleet.audit.note import NoteKey, note_text
from fleet.audit.proof import check_proof
from fleet.events.envelope import GENESIS_HASH
from fleet.kernel.errors import ConfigError, InvalidInput, LogCorrupted, StoreUnavailable
from fleet.kernel.ids import Principal, StreamId
from tests.support.audit import OTHER_SIGNER, SIGNER, AuditWorld, KeyInMemory

CHECK = Ed25519Verifier().check
ONE = StreamId("story:st-one")
THIRD_SIGNER = KeyInMemory("swe-fleet/log/third", 3)
pytestmark = pytest.mark.rule("EV-32")


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "audit" / "notary.key")


@pytest.fixture
async def world(keys: KeyFile) -> AuditWorld:
    """One stream of two events, attested once by the first key."""
    made = AuditWorld()
    await made.append(ONE, b"1", b"2")
    await made.notary(keys).checkpoint()
    return made


async def rotated(world: AuditWorld, keys: KeyFile) -> tuple[NoteKey, NoteKey]:
    old, new = keys.key, keys.prepare_successor()
    done = await world.notary(keys).checkpoint()
    assert done.is_new, "a handover is a checkpoint of its own, also when nothing else changed"
    assert keys.key == new != old
    return old, new


async def findings(world: AuditWorld, key: NoteKey) -> list[str]:
    return [str(finding) for finding in (await world.auditor(key).verify()).findings]


async def test_the_successor_signs_after_the_checkpoint_that_both_have_signed(world: AuditWorld, keys: KeyFile) -> None:
    old, new = await rotated(world, keys)
    await world.append(ONE, b"3")
    assert (await world.notary(keys).checkpoint()).sequence == 3
    assert not (await world.notary(keys).checkpoint()).is_new, "it is handed over once"

    first, second, third = (parse_checkpoint(note_text(kept.note)) for kept in world.store.kept)
    assert [point.origin for point in (first, second, third)] == [old.name, old.name, new.name]
    assert second.handover is not None
    assert (second.handover.retired, second.handover.successor) == (old, new)
    assert [is_handover(kept.note) for kept in world.store.kept] == [False, True, False]
    assert any(new.text in line for line in world.announced)
    for trusted in (old, new):
        assert await findings(world, trusted) == []
    assert "not signed by" in "".join(await findings(world, OTHER_SIGNER.key))


async def test_keys_are_rotated_again_and_every_one_leads_to_all(world: AuditWorld, keys: KeyFile) -> None:
    first, second = await rotated(world, keys)
    _, third = await rotated(world, keys)
    await world.append(ONE, b"3")
    await world.notary(keys).checkpoint()

    assert len(keys.handovers) == 2
    for trusted in (first, second, third):
        assert await findings(world, trusted) == []
        shuffled = random.Random(7).sample(keys.handovers, 2)
        assert KeyRing.trusting(trusted, shuffled, check=CHECK).keys == (first, second, third)


async def test_a_retired_key_signs_nothing_more(world: AuditWorld, keys: KeyFile, tmp_path: Path) -> None:
    stolen = KeyFile(tmp_path / "stolen.key")
    (tmp_path / "stolen.key").write_bytes((tmp_path / "audit" / "notary.key").read_bytes())
    (tmp_path / "stolen.key").chmod(0o600)
    assert stolen.key == keys.key
    old, new = await rotated(world, keys)
    newest = world.store.kept[-1]
    forged = sign_checkpoint(
        newest.leaves, sequence=3, previous=newest.digest, time_ms=1, key=stolen.key, sign=stolen.sign
    )
    await world.store.append(forged, sequence=3)

    for trusted in (old, new):
        (found,) = (await world.auditor(trusted).verify()).findings
        assert (found.verdict, found.version) == (Verdict.BAD_SIGNATURE, 3)
        assert "signs checkpoints 1 to 2: a retired key was used" in found.detail
    with pytest.raises(LogCorrupted, match="a retired key was used"):
        await world.notary(keys).checkpoint()


async def test_a_key_that_is_not_yet_in_use_signs_nothing_before_its_time(world: AuditWorld, keys: KeyFile) -> None:
    await rotated(world, keys)
    ring = KeyRing.trusting(keys.key, keys.handovers, check=CHECK)
    forged = sign_checkpoint([], sequence=1, previous=None, time_ms=1, key=keys.key, sign=keys.sign)

    with pytest.raises(LogCorrupted, match="signs checkpoints 3 to the newest"):
        ring.open(forged.note, CHECK)


def _handover(retired: KeyInMemory, successor: KeyInMemory, *, sequence: int) -> str:
    previous = (
        None
        if sequence == 1
        else sign_checkpoint([], sequence=1, previous=None, time_ms=1, key=SIGNER.key, sign=SIGNER.sign).digest
    )
    return sign_checkpoint(
        [],
        sequence=sequence,
        previous=previous,
        time_ms=1,
        key=retired.key,
        sign=retired.sign,
        successor=(successor.key, successor.sign),
    ).note


def test_of_two_handovers_of_one_key_the_later_one_leads_nowhere() -> None:
    real, thief = _handover(SIGNER, OTHER_SIGNER, sequence=4), _handover(SIGNER, THIRD_SIGNER, sequence=5)

    ring = KeyRing.trusting(SIGNER.key, [thief, real], check=CHECK)
    assert ring.keys == (SIGNER.key, OTHER_SIGNER.key)
    with pytest.raises(LogCorrupted, match="not signed by"):
        ring.open(_handover(THIRD_SIGNER, OTHER_SIGNER, sequence=6).rsplit("\n— ", 1)[0] + "\n", CHECK)


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.rsplit("\n— ", 1)[0] + "\n",
        lambda note: note.replace("\nsequence 4\n", "\nsequence 5\n"),
        lambda note: note.replace(OTHER_SIGNER.key.text, THIRD_SIGNER.key.text),
        lambda note: "no note",
    ],
    ids=["signed by one only", "another number", "another successor", "none at all"],
)
def test_a_handover_that_is_not_signed_by_both_leads_nowhere(change: Callable[[str], str]) -> None:
    note = change(_handover(SIGNER, OTHER_SIGNER, sequence=4))

    assert KeyRing.trusting(SIGNER.key, [note], check=CHECK).keys == (SIGNER.key,)
    with pytest.raises((LogCorrupted, InvalidInput)):
        KeyRing.trusting(SIGNER.key, check=CHECK).open(note, CHECK)


def test_keys_that_retire_each_other_end() -> None:
    circle = [_handover(SIGNER, OTHER_SIGNER, sequence=2), _handover(OTHER_SIGNER, SIGNER, sequence=3)]

    assert len(KeyRing.trusting(SIGNER.key, circle, check=CHECK).keys) == 2


def test_a_checkpoint_retires_its_own_key_only_and_not_for_itself() -> None:
    text = note_text(_handover(SIGNER, OTHER_SIGNER, sequence=4))
    for wrong in (
        text.replace(f"retires {SIGNER.key.text}", f"retires {THIRD_SIGNER.key.text}"),
        text.replace(f"successor {OTHER_SIGNER.key.text}", f"successor {SIGNER.key.text}"),
        text.replace(f"successor {OTHER_SIGNER.key.text}\n", ""),
        text.replace(OTHER_SIGNER.key.text, OTHER_SIGNER.key.text[:-4]),
    ):
        with pytest.raises(InvalidInput):
            parse_checkpoint(wrong)


class Dies(RuntimeError):
    """The process ends here."""


@pytest.mark.parametrize("point", ["before the copy", "before the change", "between the two files"])
async def test_a_notary_that_dies_while_it_hands_over_goes_on(
    world: AuditWorld, keys: KeyFile, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    old, new = keys.key, keys.prepare_successor()
    with monkeypatch.context() as dying:
        if point == "before the copy":
            dying.setattr(world.export, "write", _dies)
        elif point == "before the change":
            dying.setattr(keys, "succeed", _dies_now)
        else:
            dying.setattr(Path, "replace", _once(Path.replace))
        with pytest.raises(Dies):
            await world.notary(keys).checkpoint()

    again = KeyFile(keys.public_path.with_suffix(".key"))
    await world.append(ONE, b"3")
    assert (await world.notary(again).checkpoint()).sequence == 3
    assert again.key == new == read_public_key(again.public_path)
    assert again.successor is None
    assert parse_checkpoint(note_text(world.store.kept[-1].note)).origin == new.name
    for trusted in (old, new):
        assert await findings(world, trusted) == []


async def _dies(*_: object, **__: object) -> None:
    raise Dies


def _dies_now(*_: object) -> None:
    raise Dies


def _once(replace: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
    done: list[Path] = []

    def first_only(path: Path, target: Path) -> Path:
        if done:
            raise Dies
        done.append(path)
        return replace(path, target)

    return first_only


async def test_a_handover_that_the_store_refuses_is_tried_again(
    world: AuditWorld, keys: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = keys.key, keys.prepare_successor()

    async def down(*_: object, **__: object) -> None:
        raise StoreUnavailable("down")

    with monkeypatch.context() as outage:
        outage.setattr(world.store, "append", down)
        with pytest.raises(StoreUnavailable):
            await world.notary(keys).checkpoint()
    assert keys.key == old

    await world.notary(keys).checkpoint()
    assert keys.key == new


async def test_a_successor_that_is_gone_is_named(
    world: AuditWorld, keys: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = keys.prepare_successor()
    monkeypatch.setattr(keys, "succeed", lambda _: None)  # pyright: ignore[reportUnknownLambdaType]
    await world.notary(keys).checkpoint()
    keys.public_path.with_name("notary.next.key").unlink()

    with pytest.raises(ConfigError, match="restore the folder `audit` from a backup") as error:
        await world.notary(keys).checkpoint()
    assert new.text in str(error.value.details.values())


async def test_another_process_sees_that_the_key_has_changed(world: AuditWorld, keys: KeyFile) -> None:
    other = KeyFile(keys.public_path.with_suffix(".key"))
    old = other.key
    await rotated(world, keys)

    assert other.key == keys.key != old


async def test_losses_that_a_retired_key_signed_still_excuse(world: AuditWorld, keys: KeyFile) -> None:
    def lost(sequence: int) -> Loss:
        return Loss(
            stream=ONE,
            attested=AttestedHead(version=2, hash="a" * 64),
            kept=AttestedHead(version=0, hash=GENESIS_HASH),
            present=AttestedHead(version=0, hash=GENESIS_HASH),
            sequence=sequence,
            refusal="",
            accepted_by=Principal("user:po"),
            reason="the disk was lost",
            time="2026-01-01T00:00:00.000Z",
        )

    earlier, later = (sign_loss(lost(sequence), keys.key, keys.sign) for sequence in (1, 9))
    old, new = await rotated(world, keys)
    for trusted in (old, new):
        ring = KeyRing.trusting(trusted, keys.handovers, check=CHECK)
        assert ring.open_loss(earlier, CHECK).sequence == 1
        with pytest.raises(LogCorrupted):
            ring.open_loss(later, CHECK)
    await world.store.add_loss(later)
    assert [finding.verdict for finding in (await world.auditor(new).verify()).findings] == [Verdict.BAD_SIGNATURE]


async def test_proofs_hold_by_the_key_before_and_after(world: AuditWorld, keys: KeyFile) -> None:
    before = await world.auditor(keys.key).proof(ONE, version=1)
    old, new = await rotated(world, keys)
    await world.append(ONE, b"3")
    await world.notary(keys).checkpoint()
    after = await world.auditor(new).proof(ONE, version=3)

    for trusted in (old, new):
        ring = KeyRing.trusting(trusted, keys.handovers, check=CHECK)
        assert check_proof(before, ring, CHECK).entry.fields["b"] == b"1"
        assert check_proof(after, ring, CHECK).entry.fields["b"] == b"3"
    with pytest.raises(LogCorrupted, match="not signed by"):
        check_proof(after, KeyRing.trusting(old, check=CHECK), CHECK)


def test_the_same_successor_is_prepared_once(keys: KeyFile) -> None:
    with pytest.raises(ConfigError, match="look whether FLEET_HOME names the right home"):
        keys.prepare_successor()
    assert not keys.public_path.parent.exists(), "a home that was named by mistake gets no key"
    first = keys.key
    prepared = keys.prepare_successor()

    assert keys.prepare_successor() == prepared != first
    assert keys.successor is not None
    keys.succeed("a note")
    keys.succeed("a note")
    assert (keys.key, keys.successor, keys.handovers) == (prepared, None, ("a note",))
