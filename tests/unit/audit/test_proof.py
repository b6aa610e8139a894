"""Proofs: what they show, and that no changed one shows anything."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from fleet.audit.checkpoint import Leaf, sign_checkpoint
from fleet.audit.files.ed25519 import Ed25519Verifier
from fleet.audit.proof import MAX_PROOF_BYTES, Proof, check_proof, make_proof
from fleet.kernel.errors import FleetError, InvalidInput, LogCorrupted
from fleet.kernel.ids import StreamId
from tests.support.audit import OTHER_SIGNER, SIGNER, entries_of

CHECK = Ed25519Verifier().check
STREAMS = [StreamId(f"story:st-{name}") for name in "abcde"]
ENTRIES = entries_of(STREAMS[2], b"one", b"two", b"three", b"four", b"after the checkpoint")
HEADS = {stream: entries_of(stream, b"only")[0].fields["h"].decode() for stream in STREAMS}
LEAVES = [
    Leaf(stream=s, version=4, hash=ENTRIES[3].fields["h"].decode())
    if s == STREAMS[2]
    else Leaf(stream=s, version=1, hash=h)
    for s, h in HEADS.items()
]
SIGNED = sign_checkpoint(LEAVES, sequence=1, previous=None, time_ms=1, key=SIGNER.key, sign=SIGNER.sign)
PROOF = make_proof(SIGNED, LEAVES[2], ENTRIES, version=2)


def changed(*path: str | int, to: Any) -> Proof:
    document: Any = json.loads(PROOF.model_dump_json())
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return Proof.parse(json.dumps(document).encode())


@pytest.mark.rule("EV-32")
def test_proof_shows_its_event_to_whoever_has_the_key() -> None:
    proven = check_proof(Proof.parse(PROOF.model_dump_json().encode()), SIGNER.ring, CHECK)
    assert (proven.entry.fields["b"], proven.leaf, proven.checkpoint.sequence) == (b"two", LEAVES[2], 1)
    assert len(PROOF.entries) == 4


@pytest.mark.rule("EV-32")
@pytest.mark.parametrize(
    ("proof", "says"),
    [
        (changed("entries", 1, "fields", "b", to=base64.b64encode(b"zwei").decode()), "altered"),
        (changed("entries", 3, "id", to="5-0"), "missing"),
        (changed("entries", to=json.loads(PROOF.model_dump_json())["entries"][:3]), "missing"),
        (changed("entries", to=[]), "deleted"),
        (changed("leaf", "version", to=3), "does not hold this head"),
        (changed("leaf", "stream", to="story:st-z"), "does not hold this head"),
        (changed("index", to=1), "does not hold this head"),
        (changed("path", to=[]), "does not hold this head"),
        (changed("version", to=5), "ends at version 4"),
    ],
)
def test_changed_proof_does_not_hold(proof: Proof, says: str) -> None:
    with pytest.raises(LogCorrupted, match=says):
        check_proof(proof, SIGNER.ring, CHECK)


@pytest.mark.rule("EV-32")
def test_proof_with_another_checkpoint_does_not_hold() -> None:
    with pytest.raises(LogCorrupted, match="not signed by"):
        check_proof(PROOF, OTHER_SIGNER.ring, CHECK)
    with pytest.raises(FleetError):
        check_proof(changed("checkpoint", to=SIGNED.note.replace("\n5\n", "\n6\n")), SIGNER.ring, CHECK)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", PROOF.model_dump_json().replace('"version"', '"v"').encode()])
def test_other_documents_are_no_proof(raw: bytes) -> None:
    with pytest.raises(InvalidInput, match="no proof of an event"):
        Proof.parse(raw)


def test_document_that_is_too_long_is_not_read() -> None:
    class Long(bytes):
        def __len__(self) -> int:
            return MAX_PROOF_BYTES + 1

    with pytest.raises(InvalidInput, match="is not read"):
        Proof.parse(Long())
