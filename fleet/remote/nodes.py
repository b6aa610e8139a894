"""What Ray knows of its nodes, and of the supervisors on them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import ray
from ray.exceptions import RayError

from fleet.remote.resolver import NAMESPACE
from fleet.sandbox.service.spread import node_of

_FRESH_S = 1.0


@dataclass(frozen=True, slots=True)
class RayNode:
    """One node that is alive: its id in hexadecimal, its labels, and the CPUs that it has for work."""

    node_id: str
    labels: Mapping[str, str]
    cpus: float


def alive_nodes() -> list[RayNode]:
    """The nodes of the cluster, those that died left out. Blocks for one call of Ray."""
    rows = cast("list[dict[str, Any]]", ray.nodes())
    return [
        RayNode(str(row["NodeID"]), dict(row["Labels"]), float(row["Resources"].get("CPU", 0)))
        for row in rows
        if row["Alive"]
    ]


def own_node_id() -> str:
    """The node of this process."""
    return str(ray.get_runtime_context().get_node_id())


def supervisors_of_nodes() -> set[str]:
    """The names of the supervisors of single nodes that are not dead, whoever started them. Blocks as above."""
    everywhere: list[Any] = ray.util.list_named_actors(all_namespaces=True)
    return {
        str(actor["name"])
        for actor in everywhere
        if actor["namespace"] == NAMESPACE and node_of(str(actor["name"])) is not None
    }


class NodeView(NamedTuple):
    """What Ray said at one moment: the ids of the nodes that are alive, the supervisors of nodes that are not dead."""

    nodes: tuple[str, ...]
    named: frozenset[str]

    def has(self, name: str, node: str) -> bool:
        """Whether this supervisor is there, on a node whose id begins so."""
        return name in self.named and any(node_id.startswith(node) for node_id in self.nodes)


def look_around() -> NodeView | None:
    """How it is now; None when Ray does not answer. Blocks for two calls of Ray."""
    if not ray.is_initialized():
        return None
    try:
        view = NodeView(tuple(node.node_id for node in alive_nodes()), frozenset(supervisors_of_nodes()))
    except (RayError, OSError, RuntimeError):
        return None
    # Without any node this is a control plane that has lost its memory: we ourselves run on one.
    return view if view.nodes else None


class NodeWatch:
    """Says which supervisors are gone for good. As long as none is, Ray is asked at most once in a second."""

    def __init__(self, look: Callable[[], NodeView | None] = look_around) -> None:
        self._look = look
        self._view: NodeView | None = None
        self._seen = float("-inf")
        self._asking = asyncio.Lock()  # one question at a time; who waits for less than news gets the same answer

    async def is_gone(self, name: str) -> bool:
        """Whether this is the supervisor of a node, and is dead with its node, or was ended.

        Never of the home's supervisor, which Ray starts again wherever it can. False also while Ray does not answer.
        """
        node = node_of(name)
        if node is None:
            return False
        for fresh_s in (_FRESH_S, 0.0):
            # What is not in an older answer may have come since.
            view = await self._viewed(fresh_s)
            if view is None or view.has(name, node):
                return False
        return True

    async def has_several(self) -> bool:
        """Whether more than one node is alive; False while Ray does not answer."""
        view = await self._viewed(_FRESH_S)
        return view is not None and len(view.nodes) > 1

    async def _viewed(self, fresh_s: float) -> NodeView | None:
        now = time.monotonic()
        async with self._asking:
            if self._seen < now - fresh_s:
                asked = time.monotonic()
                self._view = await asyncio.to_thread(self._look)
                self._seen = asked
            return self._view
