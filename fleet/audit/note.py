"""Signed notes: text, an empty line, and lines of signatures (C2SP signed-note, Ed25519)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from fleet.kernel.errors import InvalidInput, LogCorrupted

MAX_NOTE_BYTES = 64 * 1024
"""A note is short; whatever is longer is refused before it is looked at."""

SignCheck = Callable[[bytes, bytes, bytes], bool]
"""(public key, message, signature) -> whether the signature is that key's over the message."""

_MAX_SIGNATURES = 64
_ED25519 = b"\x01"
_NAME = re.compile(r"[^\s+]{1,200}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_SIGNATURE_LINE = re.compile(r"— ([^\s+]{1,200}) ([A-Za-z0-9+/]{8,16384}={0,2})")


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A named public key: 32 bytes of Ed25519, known by name and 4 bytes of its digest."""

    name: str
    public: bytes

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.public) != 32:
            raise InvalidInput(f"{self.name[:80]!r} is no name of a key, or its key has not 32 bytes")

    @property
    def id(self) -> bytes:
        """The first 4 bytes of SHA-256 over name, newline, type and key."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    @property
    def text(self) -> str:
        """The one line in which a verifier's key is handed on: `<name>+<id in hex>+<type and key in base64>`."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> NoteKey:
        """The key of such a line. Raises InvalidInput."""
        match text.strip().split("+", 2) if len(text) < 1000 else ():
            case [name, key_id, encoded]:
                raw = _decoded(encoded)
                key = cls(name, raw[1:]) if raw[:1] == _ED25519 else None
                if key is not None and key.id.hex() == key_id:
                    return key
            case _:
                pass
        raise InvalidInput(
            f"{text[:80]!r} is no public key of a notary: it has the form NAME+ID+KEY, as in the file notary.pub"
        )


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""


def sign_note(text: str, key: NoteKey, sign: Callable[[bytes], bytes]) -> str:
    """The text with the key's signature below it.

    Args:
        text: ends with a newline and has no other control character.
        sign: the Ed25519 signature (64 bytes) of the key over a message.
    """
    assert text.endswith("\n")
    assert not _CONTROL.search(text)
    return f"{text}\n{_signature(text, key, sign)}"


def cosign_note(note: str, key: NoteKey, sign: Callable[[bytes], bytes]) -> str:
    """The note with one more signature over the same text."""
    return note + _signature(_parts(note)[0], key, sign)


def _signature(text: str, key: NoteKey, sign: Callable[[bytes], bytes]) -> str:
    return f"— {key.name} {base64.b64encode(key.id + sign(text.encode())).decode()}\n"


def open_note(raw: str, key: NoteKey, check: SignCheck) -> str:
    """The text of the note, which the key has signed. Signatures of other keys are passed over.

    Raises:
        InvalidInput: it has not the form of a signed note, or is too long.
        LogCorrupted: this key has not signed it, or what stands as its signature is not one.
    """
    text, lines = _parts(raw)
    own = [
        signature[4:] for name, encoded in lines if name == key.name and (signature := _decoded(encoded))[:4] == key.id
    ]
    if not own:
        raise LogCorrupted(
            f"the note is not signed by {key.name} (key {key.id.hex()}): compare the key with the one that the fleet "
            "published",
            signed_by=[name for name, _ in lines],
        )
    if not all(len(signature) == 64 and check(key.public, text.encode(), signature) for signature in own):
        raise LogCorrupted(f"the signature of {key.name} is not one over this text: the text or it was changed")
    return text


def note_text(raw: str) -> str:
    """The text of the note, whoever signed it: for readers that trust the place it comes from. Raises InvalidInput."""
    return _parts(raw)[0]


def _parts(raw: str) -> tuple[str, list[tuple[str, str]]]:
    if len(raw) > MAX_NOTE_BYTES or not raw.endswith("\n") or _CONTROL.search(raw):
        raise _no_note(f"longer than {MAX_NOTE_BYTES} bytes, without a last newline, or with control characters")
    text, separator, below = raw.rpartition("\n\n")
    lines = below[:-1].split("\n") if below else []
    if not separator or not 1 <= len(lines) <= _MAX_SIGNATURES:
        raise _no_note(f"text, an empty line and 1 to {_MAX_SIGNATURES} signatures are expected")
    signatures: list[tuple[str, str]] = []
    for line in lines:
        match = _SIGNATURE_LINE.fullmatch(line)
        if match is None:
            raise _no_note(f"{line[:80]!r} is no line of a signature")
        signatures.append((match[1], match[2]))
    return text + "\n", signatures


def _no_note(why: str) -> InvalidInput:
    return InvalidInput(f"this is no signed note: {why}")
