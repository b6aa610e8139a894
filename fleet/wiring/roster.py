"""Which actors a fleet has, where each belongs. Pure but for reading the files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from fleet.config.settings import ActorKind, KubernetesBackendSettings, has_node
from fleet.models.engine_config import ActorEngine
from fleet.sandbox.service.spread import on_node
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.models.engines import replica_names, served_engines


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


class Node(Protocol):
    """A node that is alive."""

    @property
    def node_id(self) -> str:
        """Ray's, in hexadecimal."""
        ...

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        ...

    @property
    def cpus(self) -> float:
        """What it has for work."""
        ...


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
        (home_supervisor(endpoints), "sandbox"),
        ("context", "context"),
        ("projector", "projector"),
        ("notary", "notary"),
        *((f"role:{role}:{n}", "role") for role, size in endpoints.pools.items() for n in range(size)),
        *((f"council:{n}", "council") for n in range(endpoints.council_shards)),
    ]
    others = (PlannedActor(name, kind, endpoints.placement.get(kind, {})) for name, kind in named)
    return (*engines, *others)


def home_supervisor(endpoints: Endpoints) -> str:
    """The supervisor that has the staged repositories, the tools and the sessions; Ray says on which node."""
    return f"sandbox:{endpoints.node}"


def spreads_runs(endpoints: Endpoints) -> bool:
    """Whether each node holds runs of its own. Jobs of a cluster are spread by the cluster itself."""
    return not isinstance(endpoints.sandbox_backend, KubernetesBackendSettings)


def node_supervisors(endpoints: Endpoints, nodes: Iterable[Node], *, home: str) -> dict[str, str]:
    """The supervisors beside the home's, one for each further node that is for runs: node id by name.

    That are the nodes with the labels of `placement.sandbox`; without any, those that have CPUs for work.

    Args:
        nodes: those that are alive.
        home: id of the node where the home's supervisor is now, which needs no other.
    """
    if not spreads_runs(endpoints):
        return {}
    labels = endpoints.placement.get("sandbox", {})
    fitting = (n for n in nodes if (has_node(labels, [n.labels]) if labels else n.cpus > 0))
    return {on_node(node.node_id): node.node_id for node in fitting if node.node_id != home}
