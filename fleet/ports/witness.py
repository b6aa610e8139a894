"""Port: what was attested about the log outside of the log's own server (EV-19, EV-32)."""

from __future__ import annotations

from typing import Protocol

from fleet.events import Head
from fleet.ids import StreamId

__all__ = ["Witness"]


class Witness(Protocol):
    """The heads that the newest exported checkpoint commits to. A log below them went back in time."""

    async def attested(self, stream: StreamId) -> Head | None:
        """Version and hash that the stream is known to have reached (epoch 0); None when no checkpoint names it."""
        ...
