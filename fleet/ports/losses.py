"""Port: a person accepts that the end of a stream is lost (EV-19)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fleet.audit import Loss
from fleet.ids import CommandId, Principal, StreamId

__all__ = ["AcceptedLoss", "Losses"]


@dataclass(frozen=True, slots=True)
class AcceptedLoss:
    """The record; `is_new` is False when the same loss was accepted before."""

    loss: Loss
    is_new: bool


class Losses(Protocol):
    """Accepts losses with the notary's key, which stays where the notary is."""

    async def accept(
        self, stream: StreamId, *, by: Principal, reason: str, command_id: CommandId | None = None
    ) -> AcceptedLoss:
        """The stream takes appends again from its present head; checkpoints no longer demand what is gone.

        The record is signed and kept in both places before the stream is opened; a crash in between leaves it refused,
        and asking again goes on. A command that was carried out accepts nothing further, whatever was lost since.

        Raises:
            InvalidInput: the reason is too short or too long.
            InvalidTransition: nothing of the stream was lost.
            LogCorrupted: what is left of the stream is damaged in itself; a backup has to be restored first.
            StoreUnavailable, StoreFull, CommitUnknown: repeat it.
        """
        ...
