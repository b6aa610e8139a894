"""Checkpoints: one signed text that commits to where every stream of the log ends (EV-9, EV-32)."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from fleet.audit.merkle import leaf_hash, merkle_root
from fleet.audit.note import NoteKey, SignCheck, cosign_note, open_note, sign_note
from fleet.events.codec import rfc3339
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Digest, StreamId
from fleet.kernel.types import Frozen

MAX_EXPORT_BYTES = 256 * 1024 * 1024
"""An exported checkpoint that is longer is refused: about a million streams."""

EventHash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class LeafMark(StrEnum):
    """What is special about a stream."""

    LIVE = "live"
    ARCHIVED = "archived"
    """Its bytes were exported and deleted; the tombstone names its last head (EV-25)."""
    REFUSED = "refused"
    """It takes no appends: the log did not hold any more what this leaf attests (EV-19)."""


class Leaf(Frozen):
    """Where one stream ended: its version and the hash of its last event."""

    stream: StreamId
    version: int = Field(ge=1)
    hash: EventHash
    mark: LeafMark = LeafMark.LIVE

    @property
    def encoded(self) -> bytes:
        """The bytes that the tree commits to. No part can hold a space, so that they are read in one way only."""
        return f"swe-fleet/leaf/1 {self.stream} {self.version} {self.hash} {self.mark.value}".encode()


@dataclass(frozen=True, slots=True)
class Handover:
    """The checkpoint is the last one of `retired`; the ones after it are signed by `successor`."""

    retired: NoteKey
    successor: NoteKey


class Checkpoint(Frozen):
    """All heads at one time. `previous` is the digest of the signed note before this one; sequence 1 has none."""

    origin: str
    size: int = Field(ge=0)
    root: bytes = Field(min_length=32, max_length=32)
    sequence: int = Field(ge=1)
    previous: Digest | None
    time: str
    versions: int = Field(ge=0)
    """The number of events under all leaves."""
    handover: Handover | None = None
    """Only in a checkpoint that its key is retired with; both keys have signed it."""

    @property
    def text(self) -> str:
        """Origin, size and root as in C2SP tlog-checkpoint; then extension lines of ours."""
        keys = self.handover
        lines = (
            self.origin,
            str(self.size),
            base64.b64encode(self.root).decode(),
            f"sequence {self.sequence}",
            f"previous {self.previous or 'none'}",
            f"time {self.time}",
            f"versions {self.versions}",
            *((f"retires {keys.retired.text}", f"successor {keys.successor.text}") if keys else ()),
        )
        return "\n".join(lines) + "\n"


class SignedCheckpoint(Frozen):
    """A signed note and the leaves that its root commits to: the form in which checkpoints are exported.

    Nothing in it is verified by being of this form; `open_checkpoint` does that.
    """

    format: Literal["swe-fleet/checkpoint/1"] = "swe-fleet/checkpoint/1"
    note: str
    leaves: tuple[Leaf, ...]

    @property
    def digest(self) -> Digest:
        """What the next checkpoint names as `previous`."""
        return digest_of(self.note.encode())

    @property
    def leaf_hashes(self) -> list[bytes]:
        """The leaves of the tree."""
        return [leaf_hash(leaf.encoded) for leaf in self.leaves]

    @classmethod
    def parse(cls, raw: bytes) -> SignedCheckpoint:
        """The document of an exported file. Raises InvalidInput."""
        if len(raw) > MAX_EXPORT_BYTES:
            raise InvalidInput(f"a checkpoint of {len(raw)} bytes is not read: at most {MAX_EXPORT_BYTES} are")
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the file"
            raise InvalidInput(f"this is no exported checkpoint: {place}: {first['msg']}") from error


def sign_checkpoint(
    leaves: Sequence[Leaf],
    *,
    sequence: int,
    previous: Digest | None,
    time_ms: int,
    key: NoteKey,
    sign: Callable[[bytes], bytes],
    successor: tuple[NoteKey, Callable[[bytes], bytes]] | None = None,
) -> SignedCheckpoint:
    """The signed checkpoint over these leaves, sorted by stream; the origin is the key's name.

    Args:
        successor: the key that signs from the next checkpoint on, and this one beside `key`.
    """
    ordered = tuple(sorted(leaves, key=lambda leaf: leaf.stream))
    checkpoint = Checkpoint(
        origin=key.name,
        size=len(ordered),
        root=merkle_root([leaf_hash(leaf.encoded) for leaf in ordered]),
        sequence=sequence,
        previous=previous,
        time=rfc3339(time_ms),
        versions=sum(leaf.version for leaf in ordered),
        handover=Handover(key, successor[0]) if successor else None,
    )
    note = sign_note(checkpoint.text, key, sign)
    return SignedCheckpoint(note=cosign_note(note, *successor) if successor else note, leaves=ordered)


def open_checkpoint(note: str, key: NoteKey, check: SignCheck) -> Checkpoint:
    """The checkpoint of a signed note. Raises InvalidInput (not of the form), LogCorrupted (not signed by the key)."""
    checkpoint = parse_checkpoint(open_note(note, key, check))
    if checkpoint.origin != key.name:
        raise InvalidInput(f"the checkpoint is one of {checkpoint.origin[:80]!r}, not of {key.name}")
    return checkpoint


_NUMBER = r"0|[1-9][0-9]{0,15}"
_FORM = re.compile(
    r"(?P<origin>[^\s+]{1,200})\n"
    rf"(?P<size>{_NUMBER})\n"
    r"(?P<root>[A-Za-z0-9+/]{43}=)\n"
    rf"sequence (?P<sequence>[1-9][0-9]{{0,15}})\n"
    r"previous (?P<previous>none|sha256:[0-9a-f]{64})\n"
    r"time (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)\n"
    rf"versions (?P<versions>{_NUMBER})\n"
    r"(?:retires (?P<retired>\S{1,400})\nsuccessor (?P<successor>\S{1,400})\n)?",
    re.ASCII,
)


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint that this text says, and no other text says. Raises InvalidInput."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise InvalidInput(f"this is no checkpoint of a fleet's log: {text[:120]!r}")
    previous = match["previous"]
    checkpoint = Checkpoint(
        origin=match["origin"],
        size=int(match["size"]),
        root=base64.b64decode(match["root"]),
        sequence=int(match["sequence"]),
        previous=None if previous == "none" else Digest(previous),
        time=match["time"],
        versions=int(match["versions"]),
        handover=_handover(match["origin"], match["retired"], match["successor"]),
    )
    if checkpoint.text != text or (checkpoint.previous is None) != (checkpoint.sequence == 1):
        raise InvalidInput(
            f"checkpoint {checkpoint.sequence} is not written in its one form, or its previous one is wrong"
        )
    return checkpoint


def _handover(origin: str, retired: str | None, successor: str | None) -> Handover | None:
    if retired is None or successor is None:
        return None
    handover = Handover(NoteKey.parse(retired), NoteKey.parse(successor))
    if handover.retired.name != origin or handover.successor.name == origin:
        raise InvalidInput(f"a checkpoint of {origin} retires {handover.retired.name} for {handover.successor.name}")
    return handover
