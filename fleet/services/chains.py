"""Going along the stored bytes of a stream that may grow meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from fleet.audit import ChainCheck, RawEntry
from fleet.events import Head
from fleet.ports import RawLog

__all__ = ["follow"]

_PAGE = 1000
_LOOKS = 5
"""How often the end of a busy stream is looked at before its head is taken as it is."""


async def follow(
    raw: RawLog, chain: ChainCheck, *, each: Callable[[list[RawEntry]], None] | None = None
) -> Head | None:
    """The chain is checked from where it stands to the end of the stream; returns what the head says of that end.

    Args:
        each: gets every page that was read.
    """
    head = await raw.head(chain.stream)
    for _ in range(_LOOKS):
        await _to_the_end(raw, chain, each)
        now = await raw.head(chain.stream)
        if now == head:
            chain.close(head)
            return head
        head = now
    return head


async def _to_the_end(raw: RawLog, chain: ChainCheck, each: Callable[[list[RawEntry]], None] | None) -> None:
    page = await raw.entries(chain.stream, after=chain.version, limit=_PAGE)
    while page:
        last = page[-1].entry_id
        following = (
            await raw.entries(chain.stream, after=int(last.split("-")[0]), limit=_PAGE) if _is_full(page) else []
        )
        if following and following[-1].entry_id == last:
            # Ids that are no versions (`7-1`, `7-2`, ...) would bring the same page again and again.
            following = []
        chain.take(page, following=following)
        if each is not None:
            each(page)
        page = following


def _is_full(page: list[RawEntry]) -> bool:
    return len(page) == _PAGE
