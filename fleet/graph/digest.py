"""One digest for one graph (GR-3, GR-7)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from fleet.digest import canonical_json
from fleet.graph.schema import BOOKKEEPING

__all__ = ["graph_digest"]


def graph_digest(
    nodes: Iterable[tuple[str, dict[str, Any]]],
    relations: Iterable[tuple[str, str, str, str, str, dict[str, Any]]],
) -> str:
    """64 hex digits over all nodes and relationships without cursors, in any order.

    Args:
        nodes: (label, properties with `id`).
        relations: (type, from label, from id, to label, to id, properties with keys).
    """
    lines = [canonical_json(["node", label, _present(props)]) for label, props in nodes if label not in BOOKKEEPING]
    lines += [canonical_json(["relation", *ends, _present(props)]) for *ends, props in relations]
    digest = hashlib.sha256()
    for line in sorted(lines):
        digest.update(len(line).to_bytes(8, "big"))
        digest.update(line)
    return digest.hexdigest()


def _present(props: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in props.items() if value is not None}
