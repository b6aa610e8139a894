"""Signed notes: a known note of another implementation, our own, and everything that is none."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.audit.files.ed25519 import Ed25519Verifier
from fleet.audit.note import MAX_NOTE_BYTES, NoteKey, note_text, open_note, sign_note
from fleet.kernel.errors import InvalidInput, LogCorrupted
from tests.support.audit import OTHER_SIGNER, SIGNER

CHECK = Ed25519Verifier().check
# The example of Go's package sumdb/note, whose form C2SP signed-note describes.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
NOTE = f"{TEXT}\n— PeterNeumann {SIGNATURE}\n"


@pytest.mark.rule("EV-32")
def test_note_of_another_implementation_opens() -> None:
    key = NoteKey.parse(PETER)
    assert (key.name, key.id.hex(), key.text) == ("PeterNeumann", "c74f20a3", PETER)
    assert open_note(NOTE, key, CHECK) == TEXT
    assert note_text(NOTE) == TEXT


def test_signed_note_opens_and_other_signatures_are_passed_over() -> None:
    note = sign_note(TEXT, SIGNER.key, SIGNER.sign)
    both = note + NOTE.rpartition("\n\n")[2]
    assert open_note(note, SIGNER.key, CHECK) == TEXT
    assert open_note(both, SIGNER.key, CHECK) == open_note(both, NoteKey.parse(PETER), CHECK) == TEXT


def test_good_signature_of_a_key_hides_no_bad_one_of_the_same_key_beside_it() -> None:
    note = sign_note(TEXT, SIGNER.key, SIGNER.sign)
    line = sign_note("Another text.\n", SIGNER.key, SIGNER.sign).rpartition("\n\n")[2]
    for both in (note + line, note.rpartition("\n\n")[0] + "\n\n" + line + note.rpartition("\n\n")[2]):
        with pytest.raises(LogCorrupted, match="is not one over this text"):
            open_note(both, SIGNER.key, CHECK)


@pytest.mark.rule("EV-32")
@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_changed_character_closes_the_note(data: st.DataObject) -> None:
    note = sign_note(TEXT, SIGNER.key, SIGNER.sign)
    at = data.draw(st.integers(0, len(note) - 1))
    new = data.draw(st.characters(codec="utf-8").filter(lambda c: c != note[at]))
    changed = note[:at] + new + note[at + 1 :]
    with pytest.raises((InvalidInput, LogCorrupted)):
        open_note(changed, SIGNER.key, CHECK)


def test_note_of_another_key_is_not_signed_by_this_one() -> None:
    note = sign_note(TEXT, OTHER_SIGNER.key, OTHER_SIGNER.sign)
    with pytest.raises(LogCorrupted, match="not signed by") as refused:
        open_note(note, SIGNER.key, CHECK)
    assert refused.value.details["signed_by"] == [OTHER_SIGNER.key.name]
    short = f"{TEXT}\n— {SIGNER.key.name} {base64.b64encode(SIGNER.key.id + b'short').decode()}\n"
    with pytest.raises(LogCorrupted, match="not one over this text"):
        open_note(short, SIGNER.key, CHECK)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "\n",
        "\n\n",
        "text\n",
        "text\n\n",
        "text\n\n— name\n",
        "text\n\n- name AAAAAAAAAAAA\n",
        "text\n\n— na+me AAAAAAAAAAAA\n",
        "text\n\n— name not,base64\n",
        "te\txt\n\n— name AAAAAAAAAAAA\n",
        "text\n\n— name AAAAAAAAAAAA",
        "text\n\n" + "— name AAAAAAAAAAAA\n" * 65,
        "x" * MAX_NOTE_BYTES + "\n\n— name AAAAAAAAAAAA\n",
    ],
)
def test_text_of_another_form_is_no_note(raw: str) -> None:
    with pytest.raises(InvalidInput, match="no signed note"):
        open_note(raw, SIGNER.key, CHECK)


def test_sixteen_signatures_are_read() -> None:
    note = sign_note(TEXT, SIGNER.key, SIGNER.sign)
    assert open_note(note + "— name AAAAAAAAAAAA\n" * 15, SIGNER.key, CHECK) == TEXT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+c74f20a3",
        PETER.replace("c74f20a3", "c74f20a4"),
        PETER.replace("+ARpc", "+AhPc"),
        PETER[:-1],
        PETER.replace("PeterNeumann", "Peter Neumann"),
        "name+00000000+!",
        "x" * 2000,
    ],
)
def test_other_text_is_no_public_key(text: str) -> None:
    with pytest.raises(InvalidInput):
        NoteKey.parse(text)


def test_check_of_malformed_keys_and_signatures_is_false() -> None:
    assert not CHECK(b"short", b"m", b"s" * 64)
    assert not CHECK(SIGNER.key.public, b"m", b"")
    assert CHECK(SIGNER.key.public, b"m", SIGNER.sign(b"m"))
