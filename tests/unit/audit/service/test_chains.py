"""Going along a stream that grows, and along one with ids that are no versions."""

from __future__ import annotations

import pytest

from fleet.audit.chain import ChainCheck, RawEntry
from fleet.audit.memory import MemoryRawLog
from fleet.audit.service.auditor import follow
from fleet.events.envelope import Head
from fleet.kernel.ids import StreamId
from fleet.log.memory import MemoryEventLog
from tests.support.audit import AuditWorld, entries_of

ONE = StreamId("story:st-one")


class Growing(MemoryRawLog):
    """One more event is appended after each look at the head, so many times."""

    def __init__(self, world: AuditWorld, times: int) -> None:
        super().__init__(world.log)
        self.world, self.times = world, times

    async def head(self, stream: StreamId) -> Head | None:
        found = await super().head(stream)
        if self.times:
            self.times -= 1
            await self.world.append(stream, b"more")
        return found


@pytest.mark.parametrize(("times", "version"), [(0, 1), (3, 4), (100, 6)])
async def test_stream_that_grows_meanwhile_verifies(times: int, version: int) -> None:
    world = AuditWorld()
    await world.append(ONE, b"1")
    chain = ChainCheck(ONE)
    seen: list[RawEntry] = []
    head = await follow(Growing(world, times), chain, each=seen.extend)
    assert (chain.findings, chain.version, len(seen)) == ([], version, version)
    assert head is not None


async def test_long_stream_is_read_in_pages() -> None:
    raw = MemoryRawLog(MemoryEventLog())
    raw.tampered[ONE] = entries_of(ONE, *(b"%d" % n for n in range(2500)))
    raw.heads[ONE] = Head(2500, raw.tampered[ONE][-1].fields["h"].decode())
    swapped = ChainCheck(ONE)
    await follow(raw, swapped)
    assert (swapped.findings, swapped.version) == ([], 2500)
    last, first = raw.tampered[ONE][999], raw.tampered[ONE][1000]
    raw.tampered[ONE][999:1001] = [RawEntry("1000-0", first.fields), RawEntry("1001-0", last.fields)]
    chain = ChainCheck(ONE)
    await follow(raw, chain)
    assert [(f.verdict, f.version) for f in chain.findings] == [("reordered", 1000), ("reordered", 1001)]


async def test_ids_that_are_no_versions_end() -> None:
    good = entries_of(ONE, b"1", b"2", b"3")

    class Strange(MemoryRawLog):
        async def entries(self, stream: StreamId, *, after: int = 0, limit: int) -> list[RawEntry]:
            # As XRANGE does it: `2-1` stands after `2-0`.
            above = [e for e in self.tampered[stream] if _id(e) > (after, 0)]
            return above[:limit]

    strange = Strange(MemoryEventLog())
    strange.tampered[ONE] = [*good[:2], *(RawEntry(f"2-{n}", good[1].fields) for n in range(1, 1500)), good[2]]
    strange.heads[ONE] = Head(3, good[2].fields["h"].decode())
    chain = ChainCheck(ONE)
    await follow(strange, chain)
    assert {f.verdict for f in chain.findings} >= {"altered"}


def _id(entry: RawEntry) -> tuple[int, int]:
    first, second = entry.entry_id.split("-")
    return int(first), int(second)
