"""In-memory twins of the ports of notifications."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fleet.kernel.errors import FleetError
from fleet.kernel.ids import StreamId
from fleet.notifications.port import Notification, OwedNotice


@dataclass(slots=True)
class _Page:
    looked: dict[StreamId, int]
    owed: dict[OwedNotice, None] = field(default_factory=dict[OwedNotice, None])


class MemoryNotificationBook:
    """Kept as long as the object. Implements the port NotificationBook."""

    def __init__(self) -> None:
        self._pages: dict[str, _Page] = {}

    async def begin(self, target: str, heads: Mapping[StreamId, int]) -> None:
        """See `NotificationBook.begin`."""
        self._pages.setdefault(target, _Page(dict(heads)))

    async def looked(self, target: str) -> dict[StreamId, int] | None:
        """See `NotificationBook.looked`."""
        page = self._pages.get(target)
        return None if page is None else dict(page.looked)

    async def advance(
        self, target: str, stream: StreamId, *, expected: int, version: int, owed: Sequence[int] = ()
    ) -> bool:
        """See `NotificationBook.advance`."""
        page = self._pages.setdefault(target, _Page({}))
        if page.looked.get(stream, 0) != expected:
            return False
        page.looked[stream] = version
        page.owed.update(dict.fromkeys(OwedNotice(stream, one) for one in owed))
        return True

    async def owed(self, target: str) -> list[OwedNotice]:
        """See `NotificationBook.owed`."""
        page = self._pages.get(target)
        return [] if page is None else list(page.owed)

    async def settle(self, target: str, notice: OwedNotice) -> None:
        """See `NotificationBook.settle`."""
        if (page := self._pages.get(target)) is not None:
            page.owed.pop(notice, None)


class MemoryNotificationTarget:
    """Implements the port NotificationTarget: what was sent is in `received`, repeats included.

    `failures` are raised one after the other before anything is received; while `hangs`, nothing ever returns.
    """

    def __init__(self) -> None:
        self.received: list[Notification] = []
        self.failures: list[FleetError] = []
        self.hangs = False
        self.is_asked = asyncio.Event()

    async def send(self, notification: Notification) -> None:
        """See `NotificationTarget.send`."""
        self.is_asked.set()
        if self.hangs:
            await asyncio.Event().wait()
        if self.failures:
            raise self.failures.pop(0)
        self.received.append(notification)
