"""What one process says of the models that it calls or runs: as metrics, and on the board of the status page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from fleet.kernel.clock import Clock
from fleet.kernel.errors import FleetError
from fleet.models.figures import ModelFigures
from fleet.models.port import EngineInfo, ModelBoard
from fleet.models.service.queued_model import QueueStats
from fleet.models.service.routed_model import RouterStats

EVERY_S = 5.0
TTL_S = 30
"""What a process that is gone said last is shown no longer than this."""


def figures_of_routers(stats: Iterable[RouterStats]) -> tuple[ModelFigures, ...]:
    """One row for each replica that the routers of this process ask."""
    return tuple(
        _queued(
            ModelFigures(
                source="router",
                engine=router.engine,
                replica=replica.name,
                circuit=replica.circuit,
                running=replica.in_flight,
                calls=replica.calls,
                failures=replica.failures,
                tokens_in=replica.tokens_in,
                tokens_out=replica.tokens_out,
                tokens_cached=replica.tokens_cached,
            ),
            replica.queue,
        )
        for router in stats
        for replica in router.replicas
    )


def figures_of_engine(replica: str, info: EngineInfo, queue: QueueStats) -> ModelFigures:
    """What the process says in which the engine runs."""
    row = ModelFigures(
        source="engine",
        engine=info.engine,
        replica=replica,
        tokens_in=info.tokens_in,
        tokens_out=info.tokens_out,
        tokens_cached=info.tokens_cached,
    )
    return _queued(row, queue)


def _queued(row: ModelFigures, queue: QueueStats | None) -> ModelFigures:
    if queue is None:
        return row
    waits = {"waiting": queue.waiting, "served": queue.served, "wait_ms": queue.queue_ms, "rejected": queue.rejected}
    return row.model_copy(update={"running": queue.running, **waits})


@dataclass(frozen=True)
class ModelReporter:
    """Says it again and again.

    Args:
        look: the figures of this process now.
        show: takes them as metrics.
    """

    reporter: str
    look: Callable[[], Awaitable[Sequence[ModelFigures]]]
    board: ModelBoard
    show: Callable[[str, Sequence[ModelFigures]], None]
    clock: Clock

    async def run(self) -> None:
        """Runs until it is cancelled. While the store is away the metrics go on and the board falls silent."""
        while True:
            await self.report()
            await self.clock.sleep(EVERY_S)

    async def report(self) -> None:
        """The figures of this moment are told."""
        try:
            figures = await self.look()
            self.show(self.reporter, figures)
            await self.board.post(self.reporter, figures, ttl_s=TTL_S)
        except FleetError:
            return  # the next report says it all again
