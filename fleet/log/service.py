"""One reader of the feed for everybody in a process who waits for it: five hundred streams ask the store once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import StreamId
from fleet.log.port import Feed, FeedHint

_TURN_S = 1.0
_STREAMS = 10_000
_AWAY_S = 30.0


class SharedFeed:
    """Port Feed over another one, for readers that live in this process: a cursor means nothing outside of it.

    Of several hints of one stream a reader gets the newest. The store is asked only while somebody waits, and for a
    second at a time, so that nothing is to be closed.

    Args:
        streams: of so many the newest hint is kept; a reader that is further behind loses the older ones (EV-20).
        away_s: a reader that waits no more for so long has gone, and what comes then is read by nobody.
    """

    def __init__(self, feed: Feed, *, streams: int = _STREAMS, away_s: float = _AWAY_S) -> None:
        self._feed, self._streams, self._away_s = feed, streams, away_s
        self._newest: OrderedDict[StreamId, tuple[int, FeedHint]] = OrderedDict()
        """Each with its number, in the order of those."""
        self._number = 0
        self._cursor: str | None = None
        self._turn: asyncio.Task[None] | None = None
        self._waiting, self._left_at = 0, float("-inf")

    async def position(self) -> str:
        """The cursor after every hint so far."""
        if not self._is_read:
            # What came while nobody was there is of no interest to anybody.
            end = await self._feed.position()
            if not self._is_read:
                self._cursor = end
        return str(self._number)

    async def wait(self, cursor: str, *, timeout_s: float) -> tuple[list[FeedHint], str]:
        """Hints after `cursor` and the next cursor; empty when the time is over. InvalidInput for a foreign cursor."""
        after, loop = self._after(cursor), asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        self._waiting += 1
        try:
            while not (hints := self._since(after)) and (left_s := deadline - loop.time()) > 0:
                turn = self._turn or self._begin()
                await asyncio.wait({turn}, timeout=left_s)
                if turn.done():
                    turn.result()
            return hints, str(self._number) if hints else cursor
        finally:
            self._waiting -= 1
            self._left_at = loop.time()

    @property
    def _is_read(self) -> bool:
        # Between two waits a reader is at work on what it was told, and must miss nothing of what comes meanwhile.
        is_between = asyncio.get_running_loop().time() - self._left_at < self._away_s
        return self._waiting > 0 or self._turn is not None or is_between

    def _after(self, cursor: str) -> int:
        if cursor.isascii() and cursor.isdecimal() and len(cursor) < 19 and int(cursor) <= self._number:
            return int(cursor)
        raise InvalidInput(f"{cursor[:100]!r} is no cursor of this feed: start from `position`", value=cursor[:100])

    def _since(self, after: int) -> list[FeedHint]:
        hints: list[FeedHint] = []
        for number, hint in reversed(self._newest.values()):
            if number <= after:
                break
            hints.append(hint)
        return hints[::-1]

    def _begin(self) -> asyncio.Task[None]:
        self._turn = asyncio.create_task(self._read(), name="shared feed")
        self._turn.add_done_callback(self._ended)
        return self._turn

    def _ended(self, turn: asyncio.Task[None]) -> None:
        self._turn = None
        if not turn.cancelled():
            # Nobody may be left who waits for it, and then nobody else looks at what went wrong.
            turn.exception()

    async def _read(self) -> None:
        if self._cursor is None:
            self._cursor = await self._feed.position()
        hints, self._cursor = await self._feed.wait(self._cursor, timeout_s=_TURN_S)
        for hint in hints:
            self._number += 1
            self._newest.pop(hint.stream, None)
            self._newest[hint.stream] = (self._number, hint)
        while len(self._newest) > self._streams:
            self._newest.popitem(last=False)
