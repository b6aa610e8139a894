"""Which actors a fleet has, where each belongs. Pure but for reading the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fleet.config import ActorKind
from fleet.models import ActorEngine
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.engines import replica_names, served_engines

__all__ = ["PlannedActor", "roster"]


@dataclass(frozen=True, slots=True)
class PlannedActor:
    """An actor that the settings ask for."""

    name: str
    kind: ActorKind
    labels: Mapping[str, str]
    """What the labels of its node have to be; empty for any node."""
    engine: ActorEngine | None = None
    """The engine of an actor of kind `engine`."""

    @property
    def wanted(self) -> str:
        """What a node must have for it, in words."""
        amounts = [] if self.engine is None else [f"{self.engine.gpus} GPUs and {self.engine.cpus:g} CPUs"]
        return ", ".join([*amounts, *(f"label {key}={value}" for key, value in sorted(self.labels.items()))])

    @property
    def waiting(self) -> str:
        """Its state while there is no such node."""
        return f"waiting for a node with {self.wanted}"


def roster(endpoints: Endpoints) -> tuple[PlannedActor, ...]:
    """All actors of this fleet, in the order in which they start: what takes longest comes first.

    Raises:
        ConfigError: `models.serve` names an engine that this fleet cannot run.
    """
    engines = [
        PlannedActor(name, "engine", {**endpoints.placement.get("engine", {}), **engine.node_labels}, engine)
        for engine in served_engines(endpoints)
        for name in replica_names(engine)
    ]
    named: list[tuple[str, ActorKind]] = [
        (f"sandbox:{endpoints.node}", "sandbox"),
        ("context", "context"),
        ("projector", "projector"),
        ("notary", "notary"),
        *((f"role:{role}:{n}", "role") for role, size in endpoints.pools.items() for n in range(size)),
        *((f"council:{n}", "council") for n in range(endpoints.council_shards)),
    ]
    others = (PlannedActor(name, kind, endpoints.placement.get(kind, {})) for name, kind in named)
    return (*engines, *others)
