"""How the models of a fleet are doing. Each process that calls or runs them says it, and this adds it up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from fleet.kernel.types import Frozen
from fleet.models.routing.circuit import CircuitState


class ModelFigures(Frozen):
    """What one process knows of one replica of an engine, since the process began."""

    source: Literal["router", "engine"]
    """A process that calls the replica, or the one that it runs in: both may count the same call."""
    engine: str
    """Engine id of config/models.yaml."""
    replica: str
    circuit: CircuitState = "closed"
    """How this process finds the replica."""
    running: int = 0
    waiting: int = 0
    served: int = 0
    """Calls that got their turn in the queue of this process."""
    wait_ms: int = 0
    """Sum of their waits."""
    rejected: int = 0
    """Calls that were told to come later: no room, no time left, or a rate cap."""
    calls: int = 0
    failures: int = 0
    """Of `calls`, those that the replica did not answer."""
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    """Of `tokens_in`, those that a prefix cache held."""

    @property
    def hit_rate(self) -> float:
        """Share of the prompt tokens that a prefix cache held."""
        return _share(self.tokens_cached, self.tokens_in)


class EngineFigures(Frozen):
    """One engine: everything that its callers and its replicas say."""

    engine: str
    running: int
    waiting: int
    served: int
    mean_wait_ms: int
    rejected: int
    calls: int
    failures: int
    open_circuits: tuple[str, ...]
    """Replicas that at least one caller does not ask at present."""
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    hit_rate: float

    @property
    def line(self) -> str:
        """For people, in one line."""
        parts = [
            f"{self.running} running, {self.waiting} waiting",
            f"{self.calls} calls ({self.failures} failed, {self.rejected} told to come later)",
            f"mean wait {self.mean_wait_ms} ms",
            f"{self.tokens_in} tokens in, {self.tokens_out} out, {self.hit_rate:.0%} from cache",
        ]
        if self.open_circuits:
            parts.append(f"not asked at present: {', '.join(self.open_circuits)}")
        return "; ".join(parts)


def sum_figures(rows: Iterable[ModelFigures]) -> tuple[EngineFigures, ...]:
    """The engines by id. Tokens are as the replicas counted them, where they do: a caller sees only its own."""
    groups: dict[str, list[ModelFigures]] = {}
    for row in rows:
        groups.setdefault(row.engine, []).append(row)
    return tuple(_sum(engine, groups[engine]) for engine in sorted(groups))


def _sum(engine: str, rows: list[ModelFigures]) -> EngineFigures:
    routers = [row for row in rows if row.source == "router"]
    counted = [row for row in rows if row.source == "engine"] or routers
    served, wait_ms = sum(r.served for r in rows), sum(r.wait_ms for r in rows)
    tokens_in, tokens_cached = sum(r.tokens_in for r in counted), sum(r.tokens_cached for r in counted)
    return EngineFigures(
        engine=engine,
        running=sum(r.running for r in counted),
        waiting=sum(r.waiting for r in rows),
        served=served,
        mean_wait_ms=round(wait_ms / served) if served else 0,
        rejected=sum(r.rejected for r in rows),
        calls=sum(r.calls for r in routers),
        failures=sum(r.failures for r in routers),
        open_circuits=tuple(sorted({r.replica for r in routers if r.circuit != "closed"})),
        tokens_in=tokens_in,
        tokens_out=sum(r.tokens_out for r in counted),
        tokens_cached=tokens_cached,
        hit_rate=_share(tokens_cached, tokens_in),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
