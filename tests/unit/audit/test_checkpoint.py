"""Checkpoints: their one form, what they commit to, and how they relate to each other and to the log."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.audit.attested import (
    Opened,
    StreamState,
    attested_heads,
    check_leaf,
    check_note,
    check_order,
    check_root,
    check_successor,
)
from fleet.audit.checkpoint import (
    MAX_EXPORT_BYTES,
    Checkpoint,
    Leaf,
    LeafMark,
    SignedCheckpoint,
    open_checkpoint,
    parse_checkpoint,
    sign_checkpoint,
)
from fleet.audit.files.ed25519 import Ed25519Verifier
from fleet.audit.finding import LogFinding, Verdict
from fleet.audit.loss import AttestedHead, Loss, excused, open_loss, parse_loss, sign_loss
from fleet.audit.merkle import merkle_root
from fleet.audit.note import note_text, sign_note
from fleet.events.envelope import GENESIS_HASH, Head
from fleet.kernel.errors import InvalidInput, LogCorrupted
from fleet.kernel.ids import Digest, Principal, StreamId
from tests.support.audit import OTHER_SIGNER, SIGNER, KeyInMemory

CHECK = Ed25519Verifier().check
ONE, TWO = StreamId("story:st-one"), StreamId("story:st-two")
A, B = "a" * 64, "b" * 64
PREVIOUS = Digest("sha256:" + "c" * 64)


def leaf(stream: StreamId = ONE, version: int = 5, hash: str = A, mark: LeafMark = LeafMark.LIVE) -> Leaf:
    return Leaf(stream=stream, version=version, hash=hash, mark=mark)


def signed(*leaves: Leaf, sequence: int = 1, signer: KeyInMemory = SIGNER) -> SignedCheckpoint:
    return sign_checkpoint(
        leaves,
        sequence=sequence,
        previous=None if sequence == 1 else PREVIOUS,
        time_ms=1_700_000_000_000,
        key=signer.key,
        sign=signer.sign,
    )


def loss(**changes: object) -> Loss:
    plain: dict[str, object] = {
        "stream": ONE,
        "attested": AttestedHead(version=9, hash=A),
        "kept": AttestedHead(version=4, hash=B),
        "present": AttestedHead(version=5, hash=B),
        "sequence": 3,
        "refusal": "it went back",
        "accepted_by": Principal("user:ana"),
        "reason": "the disk died",
        "time": "2026-01-02T03:04:05.006Z",
    }
    return Loss.model_validate({**plain, **changes})


@pytest.mark.rule("EV-9")
def test_text_has_the_form_of_a_transparency_log_checkpoint() -> None:
    found = signed(leaf(TWO, 3), leaf(ONE, 5))
    lines = note_text(found.note).splitlines()

    assert lines[:2] == ["swe-fleet/log/test", "2"]
    assert lines[3:] == ["sequence 1", "previous none", "time 2023-11-14T22:13:20.000Z", "versions 8"]
    assert [x.stream for x in found.leaves] == [ONE, TWO]
    opened = open_checkpoint(found.note, SIGNER.key, CHECK)
    assert (opened.root, opened.size) == (merkle_root(found.leaf_hashes), 2)
    assert parse_checkpoint(opened.text) == opened


def test_empty_log_has_a_checkpoint() -> None:
    assert open_checkpoint(signed().note, SIGNER.key, CHECK).size == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 10**15), st.integers(0, 10**15), st.binary(min_size=32, max_size=32))
def test_text_of_a_checkpoint_parses_to_it(sequence: int, versions: int, root: bytes) -> None:
    made = Checkpoint(
        origin="a/b",
        size=3,
        root=root,
        sequence=sequence,
        previous=None if sequence == 1 else PREVIOUS,
        time="2026-01-02T03:04:05.006Z",
        versions=versions,
    )
    assert parse_checkpoint(made.text) == made


TEXT = note_text(signed(leaf()).note)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sequence 1", "sequence 01"),
        ("sequence 1", "sequence 0"),
        ("sequence 1", "sequence 2"),
        ("previous none", f"previous {PREVIOUS}"),
        ("\n1\n", "\n01\n"),
        ("\n1\n", "\n-1\n"),
        ("versions 5", "versions 5\nmore"),
        ("time 2023", "time 23"),
        ("=\n", "\n"),
        ("swe-fleet", "swe fleet"),
        (TEXT.splitlines()[2][-3:], "//="),
    ],
)
def test_text_in_any_other_form_is_no_checkpoint(old: str, new: str) -> None:
    assert old in TEXT
    with pytest.raises(InvalidInput):
        parse_checkpoint(TEXT.replace(old, new, 1))


def test_checkpoint_of_another_origin_is_refused() -> None:
    note = sign_note(TEXT.replace("swe-fleet/log/test", "else/where"), SIGNER.key, SIGNER.sign)
    with pytest.raises(InvalidInput, match="not of swe-fleet/log/test"):
        open_checkpoint(note, SIGNER.key, CHECK)


def test_exported_form_is_read_back_and_any_other_is_refused() -> None:
    made = signed(leaf())
    assert SignedCheckpoint.parse(made.model_dump_json().encode()) == made
    for raw in (
        b"",
        b"[]",
        json.dumps({**made.model_dump(mode="json"), "x": 1}).encode(),
        b'{"note":"","leaves":[{}]}',
    ):
        with pytest.raises(InvalidInput, match="no exported checkpoint"):
            SignedCheckpoint.parse(raw)
    with pytest.raises(InvalidInput, match="is not read"):
        SignedCheckpoint.parse(bytes(MAX_EXPORT_BYTES + 1))


@pytest.mark.rule("EV-32")
def test_note_is_judged_by_signature_form_and_number() -> None:
    good = signed(leaf())
    assert isinstance(check_note(good.note, SIGNER.ring, CHECK, sequence=1), Checkpoint)
    assert isinstance(check_note(good.note, SIGNER.ring, CHECK, sequence=None), Checkpoint)
    verdicts = {
        Verdict.BAD_SIGNATURE: (signed(leaf(), signer=OTHER_SIGNER).note, 1),
        Verdict.ALTERED: ("", 1),
        Verdict.REORDERED: (good.note, 2),
    }
    for verdict, (note, sequence) in verdicts.items():
        found = check_note(note, SIGNER.ring, CHECK, sequence=sequence)
        assert isinstance(found, LogFinding)
        assert (found.verdict, found.subject, found.version) == (verdict, "checkpoint", sequence)


@pytest.mark.rule("EV-32")
def test_heads_that_were_not_signed_are_altered() -> None:
    good = signed(leaf(), leaf(TWO))
    opened = open_checkpoint(good.note, SIGNER.key, CHECK)
    assert check_root(opened, good) is None
    for leaves in ((leaf(),), (leaf(version=4), leaf(TWO)), (leaf(TWO), leaf()), (leaf(), leaf(), leaf(TWO))):
        found = check_root(opened, good.model_copy(update={"leaves": leaves}))
        assert found is not None
        assert found.verdict is Verdict.ALTERED


@pytest.mark.rule("EV-32")
def test_checkpoints_that_do_not_follow_each_other_are_named() -> None:
    first = open_checkpoint(signed().note, SIGNER.key, CHECK)
    second = open_checkpoint(signed(sequence=2).note, SIGNER.key, CHECK)
    fourth = open_checkpoint(signed(sequence=4).note, SIGNER.key, CHECK)
    assert check_order(None, first) is None
    assert check_order(Opened(first, PREVIOUS), second) is None
    forked = check_order(Opened(first, signed().digest), second)
    assert forked is not None
    assert (forked.verdict, forked.version) == (Verdict.FORKED, 2)
    for later, detail in ((second, "it is gone"), (fourth, "checkpoints 1 to 3 are gone")):
        gone = check_order(None, later)
        assert gone is not None
        assert (gone.verdict, gone.version, detail in gone.detail) == (Verdict.MISSING, 1, True)


@pytest.mark.rule("EV-32")
def test_heads_never_go_back_from_one_checkpoint_to_the_next_without_an_accepted_loss() -> None:
    before = [leaf(), leaf(TWO)]
    assert check_successor(before, [leaf(), leaf(TWO, 6, B)], [], sequence=3) == []
    found = check_successor(before, [leaf(version=4)], [], sequence=3)
    assert [(f.verdict, f.subject) for f in found] == [(Verdict.ROLLED_BACK, ONE), (Verdict.DELETED, TWO)]
    (forked,) = check_successor(before, [leaf(hash=B), leaf(TWO)], [], sequence=3)
    assert forked.verdict is Verdict.FORKED
    assert check_successor([leaf()], [leaf(version=4)], [loss()], sequence=3) == []
    assert len(check_successor([leaf()], [leaf(version=4)], [loss()], sequence=4)) == 1


def state(end: int = 8, head: int | None = None, tombstone: Head | None = None, **hashes: str) -> StreamState:
    return StreamState(
        Head(end, B),
        None if head == 0 else Head(head or end, B),
        {int(name[1:]): hash for name, hash in hashes.items()},
        tombstone,
    )


@pytest.mark.rule("EV-32")
@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (state(v5=A), None),
        (state(v5=B), Verdict.FORKED),
        (state(end=4), Verdict.ROLLED_BACK),
        (state(end=4, head=8), Verdict.MISSING),
        (state(end=8), Verdict.MISSING),
        (state(end=0, head=0), Verdict.DELETED),
        (state(end=0, head=0, tombstone=Head(5, A)), None),
        (state(end=0, head=0, tombstone=Head(6, B)), None),
        (state(end=0, head=0, tombstone=Head(5, B)), Verdict.DELETED),
        (state(end=0, head=0, tombstone=Head(4, B)), Verdict.DELETED),
        (state(end=3, tombstone=Head(5, A)), Verdict.ROLLED_BACK),
        (None, Verdict.DELETED),
    ],
)
def test_leaf_against_the_log(found: StreamState | None, verdict: Verdict | None) -> None:
    finding = check_leaf(leaf(), found, [], sequence=2)
    assert (finding.verdict if isinstance(finding, LogFinding) else finding) == verdict


def test_archived_leaf_holds_only_with_its_own_tombstone() -> None:
    archived = leaf(mark=LeafMark.ARCHIVED)
    assert check_leaf(archived, state(end=0, head=0, tombstone=Head(5, A)), [], sequence=2) is None
    assert check_leaf(archived, state(end=0, head=0, tombstone=Head(6, A)), [], sequence=2) is not None


@pytest.mark.rule("EV-19")
def test_accepted_loss_excuses_what_older_checkpoints_attest_beyond_it() -> None:
    found = loss()
    assert check_leaf(leaf(), state(end=4), [found], sequence=3) == found
    assert isinstance(check_leaf(leaf(), state(end=4), [found], sequence=4), LogFinding)
    assert isinstance(check_leaf(leaf(version=4), state(end=3), [found], sequence=3), LogFinding)
    assert isinstance(check_leaf(leaf(TWO), state(end=3), [found], sequence=3), LogFinding)
    newer = loss(reason="it died once more")
    assert excused([found, newer], ONE, version=5, sequence=1) is newer


@pytest.mark.rule("EV-19")
def test_witness_knows_heads_without_what_was_lost_or_archived() -> None:
    leaves = [leaf(), leaf(TWO), leaf(StreamId("story:st-old"), mark=LeafMark.ARCHIVED)]
    assert attested_heads(leaves, [], sequence=3) == {ONE: Head(5, A), TWO: Head(5, A)}
    assert attested_heads(leaves, [loss()], sequence=3) == {ONE: Head(4, B), TWO: Head(5, A)}
    nothing = loss(kept=AttestedHead(version=0, hash=GENESIS_HASH))
    assert attested_heads(leaves, [nothing], sequence=3) == {TWO: Head(5, A)}


@pytest.mark.rule("EV-19")
def test_record_of_a_loss_is_signed_and_read_back() -> None:
    made = loss(reason="line\nbreak \u2028 and ümlaut")
    note = sign_loss(made, SIGNER.key, SIGNER.sign)
    assert open_loss(note, SIGNER.key, CHECK) == made == parse_loss(note_text(note))
    with pytest.raises(LogCorrupted):
        open_loss(sign_loss(made, OTHER_SIGNER.key, OTHER_SIGNER.sign), SIGNER.key, CHECK)
    for text in ("else\n{}\n", "swe-fleet accepted loss 1\n{}\n"):
        with pytest.raises(InvalidInput, match="no record of an accepted loss"):
            parse_loss(text)


def test_loss_is_told_in_one_line() -> None:
    assert "4 events, versions 6 to 9" in loss().told()
    assert "after version 4 was replaced" in loss(present=AttestedHead(version=12, hash=B)).told()
    same = AttestedHead(version=9, hash=A)
    assert loss(attested=same, kept=same, present=same).told() == (
        "loss accepted by user:ana: no attested event (the disk died)"
    )
