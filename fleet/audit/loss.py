"""Losses that a person has accepted: signed records that excuse what older checkpoints attest (EV-19)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from fleet.audit.note import NoteKey, SignCheck, open_note, sign_note
from fleet.kernel.digest import canonical_json, digest_of
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import CommandId, Digest, Principal, StreamId
from fleet.kernel.types import Frozen

_FIRST_LINE = "swe-fleet accepted loss 1"


class AttestedHead(Frozen):
    """A version of a stream and the hash of its event; version 0 has the genesis hash."""

    version: int = Field(ge=0)
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Loss(Frozen):
    """Who accepted that a stream went back from `attested` to `present`, and why.

    `kept` is the newest attested version that the log still holds; what checkpoints up to `sequence` attest beyond it
    is excused.
    """

    stream: StreamId
    attested: AttestedHead
    kept: AttestedHead
    present: AttestedHead
    sequence: int = Field(ge=0)
    """The newest checkpoint when the loss was accepted; 0 when there was none."""
    refusal: str
    """Why the stream took no appends, as recorded."""
    accepted_by: Principal
    reason: str = Field(min_length=1, max_length=4000)
    time: str
    command_id: CommandId | None = None
    """The command that accepted it; None when no front was asked."""
    kind: Literal["accepted_loss"] = "accepted_loss"

    @property
    def lost(self) -> int:
        """The number of attested events that are gone; 0 when as many or more stand in their place."""
        return max(0, self.attested.version - self.present.version)

    def told(self) -> str:
        """The loss in one line."""
        if self.lost:
            gone = f"{self.lost} events, versions {self.present.version + 1} to {self.attested.version}"
        elif self.kept.version < self.attested.version:
            gone = f"the attested history after version {self.kept.version} was replaced"
        else:
            gone = "no attested event"
        return f"loss accepted by {self.accepted_by}: {gone} ({self.reason})"


def sign_loss(loss: Loss, key: NoteKey, sign: Callable[[bytes], bytes]) -> str:
    """The record as a signed note."""
    # Escaped to ASCII, so that no character of the reason can end a line.
    said = canonical_json(loss.model_dump(mode="json", exclude_none=True))
    body = json.dumps(json.loads(said), sort_keys=True, separators=(",", ":"))
    return sign_note(f"{_FIRST_LINE}\n{body}\n", key, sign)


def open_loss(note: str, key: NoteKey, check: SignCheck) -> Loss:
    """The record of a signed note. Raises InvalidInput (not of the form) or LogCorrupted (not signed by the key)."""
    return parse_loss(open_note(note, key, check))


def parse_loss(text: str) -> Loss:
    """The record that this text says. Raises InvalidInput."""
    first, _, body = text.partition("\n")
    if first != _FIRST_LINE:
        raise InvalidInput(f"this is no record of an accepted loss: it begins with {first[:80]!r}")
    try:
        return Loss.model_validate_json(body)
    except ValidationError as error:
        raise InvalidInput("this is no record of an accepted loss: its second line is not one") from error


def loss_id(note: str) -> Digest:
    """What tells one record from another."""
    return digest_of(note.encode())


def excused(losses: Iterable[Loss], stream: StreamId, *, version: int, sequence: int) -> Loss | None:
    """The last loss by which checkpoint `sequence` may attest a `version` that the log does not hold any more."""
    matching = [x for x in losses if x.stream == stream and sequence <= x.sequence and version > x.kept.version]
    return matching[-1] if matching else None
