"""What the named queries in memory look at, and how they pick from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from fleet.graph.batch import NodeKey

Row = dict[str, Any]
Params = dict[str, Any]


class GraphView(Protocol):
    """What the answers look at."""

    nodes: dict[NodeKey, dict[str, Any]]

    def outgoing(self, start: NodeKey, kind: str) -> Iterator[tuple[NodeKey, dict[str, Any]]]:
        """Ends and properties of the relationships of this type that start here."""
        ...

    def incoming(self, end: NodeKey, kind: str) -> Iterator[tuple[NodeKey, dict[str, Any]]]:
        """Starts and properties of the relationships of this type that end here."""
        ...


def ids_of(ends: Iterable[tuple[NodeKey, dict[str, Any]]]) -> list[str]:
    """The ids of the ends."""
    return [key.id for key, _ in ends]


def picked(node: Mapping[str, Any], names: Iterable[str]) -> Row:
    """These properties; None for those that are not there."""
    return {name: node.get(name) for name in names}


def ends_of(ends: Iterable[tuple[NodeKey, dict[str, Any]]]) -> set[NodeKey]:
    """The ends themselves."""
    return {key for key, _ in ends}
