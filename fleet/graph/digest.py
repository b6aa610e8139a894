"""One digest for one graph (GR-3, GR-7)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from fleet.graph.schema import BOOKKEEPING
from fleet.kernel.digest import canonical_json


class GraphDigest:
    """Takes the nodes and relationships of a graph in any order, 32 bytes each, so that a large graph fits."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []

    def node(self, label: str, props: dict[str, Any]) -> None:
        """One node; those that keep the books are left out."""
        if label not in BOOKKEEPING:
            self._add(["node", label, _present(props)])

    def relation(self, *ends: str, props: dict[str, Any]) -> None:
        """One relationship: type, from label, from id, to label, to id, and its properties with keys."""
        self._add(["relation", *ends, _present(props)])

    def _add(self, line: list[Any]) -> None:
        self._lines.append(hashlib.sha256(canonical_json(line)).digest())

    def hexdigest(self) -> str:
        """64 hex digits over everything that was taken."""
        return hashlib.sha256(b"".join(sorted(self._lines))).hexdigest()


def graph_digest(
    nodes: Iterable[tuple[str, dict[str, Any]]],
    relations: Iterable[tuple[str, str, str, str, str, dict[str, Any]]],
) -> str:
    """64 hex digits over all nodes and relationships without cursors, in any order.

    Args:
        nodes: (label, properties with `id`).
        relations: (type, from label, from id, to label, to id, properties with keys).
    """
    digest = GraphDigest()
    for label, props in nodes:
        digest.node(label, props)
    for *ends, props in relations:
        digest.relation(*ends, props=props)
    return digest.hexdigest()


def _present(props: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in props.items() if value is not None}
