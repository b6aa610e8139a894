"""Hints that are lost, repeated and shuffled on their way to several projectors (F11)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import pytest

from fleet.events.envelope import NewEvent
from fleet.graph.changes import Cursor, GraphChange
from fleet.graph.memory.graph import MemoryGraph
from fleet.graph.service.projector import Projector
from fleet.kernel.ids import CommandId, StreamId
from fleet.log.memory import MemoryDeadLetters, MemoryEventLog, MemoryFeedGroup
from fleet.log.port import AppendRequest
from tests.support.faulty_ports import Wire, faulty_feed
from tests.support.histories import recorded
from tests.support.oracle import graph_is_the_log
from tests.support.sim_faults import OneFault
from tests.support.simulation import Process, SimClock, SimLoop, simulated

STORIES = 4
SWEEP_S = 10.0
RECORDED = next(history.export.events for history in recorded() if history.name == "simulated")[:80]
_DERIVED_ID = re.compile(rb"(\b[a-z]{2}-[a-z0-9]{12})[a-z0-9]\b")


class WatchedGraph(MemoryGraph):
    """Remembers which versions of each stream were applied, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.applied: dict[StreamId, list[tuple[int, int]]] = {}
        self.races_lost = 0

    async def apply(
        self,
        stream: StreamId,
        changes: Sequence[GraphChange],
        *,
        expected: Cursor,
        reached: Cursor,
        projection: int | None = None,
    ) -> bool:
        """See `DecisionGraph.apply`."""
        # Two projectors are between their look at the cursor and this call at the same time.
        await asyncio.sleep(0.05)
        is_first = await super().apply(stream, changes, expected=expected, reached=reached, projection=projection)
        if is_first:
            self.applied.setdefault(stream, []).append((expected.version, reached.version))
        self.races_lost += not is_first
        return is_first


async def _run(loop: SimLoop, *, lose: float) -> tuple[WatchedGraph, OneFault, MemoryEventLog]:
    """Four stories are written side by side while three projectors follow; one sweep after the end it is over."""
    log, graph, clock, calm = MemoryEventLog(), WatchedGraph(), SimClock(loop), OneFault(loop, -1, None)
    hints = MemoryFeedGroup(log, clock, abandoned_after_s=30.0)
    for number in range(3):
        wire = Wire(Process(loop, f"projector:{number}"), calm)
        projector = Projector(
            log,
            graph,
            feed=faulty_feed(hints, wire, loop.random, lose=lose, repeat=0.3),
            letters=MemoryDeadLetters(clock),
            clock=clock,
            consumer=f"projector:{number}",
            sweep_s=SWEEP_S,
            seed=number,
        )
        wire.process.spawn(projector.run())
    await asyncio.gather(*(_write(loop, log, n) for n in range(STORIES)))
    await asyncio.sleep(SWEEP_S + 3.0)
    return graph, calm, log


async def _write(loop: SimLoop, log: MemoryEventLog, number: int) -> None:
    """A recorded story under ids of its own, one event after the other."""
    stream = StreamId(f"story:st-hint{number}")
    for event in RECORDED:
        await asyncio.sleep(loop.random.uniform(0, 0.2))
        body = _DERIVED_ID.sub(rb"\g<1>%d" % number, event.body.replace(b"st-sim1", stream.entity.encode()))
        request = AppendRequest(
            stream=stream,
            events=[NewEvent(type=event.type, schema=event.schema, body=body, causation=event.causation)],
            expected=await log.head(stream),
            command_id=CommandId(f"{stream.entity}/{event.version}"),
            actor=event.actor,
            ts_ms=event.ts_ms,
        )
        await log.append(request)


@pytest.mark.rule("EV-20", "GR-4", "GR-6")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lose", [0.2, 1.0], ids=["a-fifth-lost", "all-lost"])
def test_hints_lost_repeated_and_shuffled_leave_nothing_behind_after_one_sweep(seed: int, lose: float) -> None:
    with simulated(f"hints/{seed}") as loop:
        graph, calm, log = loop.run_until_complete(_run(loop, lose=lose))
        events = {s: loop.run_until_complete(log.read(s)) for s in loop.run_until_complete(log.streams())}
        assert len(events) == STORIES
        loop.run_until_complete(graph_is_the_log(graph, events))
    for stream, spans in graph.applied.items():
        starts, ends = [start for start, _ in spans], [end for _, end in spans]
        assert starts == [0, *ends[:-1]], f"{stream} was applied out of order or twice: {spans}"
        assert ends[-1] == len(events[stream])
    assert calm.seen["hint lost"] > 0
    if lose < 1:
        assert graph.races_lost > 0
        assert calm.seen["hint repeated"] > 0
        assert calm.seen["hints reordered"] > 0
