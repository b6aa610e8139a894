"""What is known of an environment beyond this process: what is to run there, and what a rollback goes back to."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter

from fleet.ids import RunKey
from fleet.ports import Ended, Placed, Standing

__all__ = ["KEPT", "Kept", "key_of", "standing_of"]


@dataclass(frozen=True)
class Kept:
    """One environment. It is replaced as a whole, once what runs there has changed."""

    current: Placed | None = None
    previous: Placed | None = None
    since_ms: int = 0
    """When the current one became ready."""
    ended: Ended | None = None
    """What a person ended there last."""

    def ended_by(self, told: str) -> Ended | None:
        """What is kept of who ended what runs there; what was kept before, when nobody says anything."""
        return Ended(self.current.key, told) if told and self.current is not None else self.ended


KEPT = TypeAdapter(Kept)


def key_of(placed: Placed | None) -> RunKey | None:
    """Of what runs; None where nothing does."""
    return placed.key if placed else None


def standing_of(kept: Kept) -> Standing:
    """How the environment stands."""
    if kept.current is None:
        return Standing("nothing")
    return Standing("running", key=kept.current.key, previous=key_of(kept.previous))
