"""Topological layers of a plan (PL-31)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Layers(NamedTuple):
    """Layers from first to last; with `has_cycle` the last one holds what stands on or behind a cycle."""

    layers: tuple[tuple[str, ...], ...]
    has_cycle: bool


def layers(order: Iterable[str], edges: Iterable[tuple[str, str]]) -> Layers:
    """Kahn's algorithm over `(node, what it needs)`; never fails and never loops.

    Args:
        order: all nodes; those of one layer keep this order.
    """
    left: dict[str, None] = dict.fromkeys(order)
    needs = {node: {b for a, b in edges if a == node and b in left} for node in left}
    layered = list[tuple[str, ...]]()
    while left:
        ready = tuple(node for node in left if not needs[node] & left.keys())
        if not ready:
            return Layers((*layered, tuple(left)), has_cycle=True)
        layered.append(ready)
        left = {node: None for node in left if node not in ready}
    return Layers(tuple(layered), has_cycle=False)
