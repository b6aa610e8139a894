"""What lies around a story in the decision graph, from its events alone (AP-70)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.graph.batch import Batch, NodeKey, fold
from fleet.graph.effects.table import effects
from fleet.graph.schema import Label
from fleet.kernel.types import Frozen

_MAX_TEXT = 300
_TITLES = ("title", "name", "text", "gate", "path", "summary", "type")


class GraphNode(Frozen):
    """One node; `distance` counts relationships from the story, `props` holds short values alone."""

    label: str
    id: str
    title: str
    distance: int
    props: dict[str, str | int | bool | None]


class GraphEdge(Frozen):
    """One relationship between nodes of the answer."""

    type: str
    from_id: str
    from_label: str
    to_id: str
    to_label: str


class StoryGraph(Frozen):
    """Nodes by (distance, label, id) and the relationships among them; `left_out` counts nodes over the bound."""

    story_id: str
    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]
    left_out: int


def story_graph(
    events: Iterable[tuple[StoredEvent, Payload]],
    *,
    story_id: str,
    depth: int,
    max_nodes: int,
    shows: Callable[[str, Mapping[str, Any]], bool] | None = None,
) -> StoryGraph:
    """Nodes at most `depth` relationships away from the story, in either direction; the nearest ones first.

    Args:
        shows: whether a node is shown, by id and properties; no way leads over one that is not.
    """
    batch = fold(change for event, payload in events for change in effects(event, payload))
    if shows is not None:
        batch = _shown(batch, shows)
    distances = _distances(batch, NodeKey(Label.STORY, story_id), depth)
    ranked = sorted(distances, key=lambda key: (distances[key], key.label, key.id))
    kept = set(ranked[:max_nodes])
    edges = sorted(
        {
            (key.type, key.start, key.end)
            for key in batch.relations
            if key.start in kept and key.end in kept and key.start != key.end
        }
    )
    return StoryGraph(
        story_id=story_id,
        nodes=tuple(_node(key, batch.nodes.get(key, {}), distances[key]) for key in ranked[:max_nodes]),
        edges=tuple(
            GraphEdge(type=kind, from_id=a.id, from_label=a.label, to_id=b.id, to_label=b.label) for kind, a, b in edges
        ),
        left_out=len(ranked) - len(kept),
    )


def nodes_of(events: Iterable[tuple[StoredEvent, Payload]]) -> frozenset[str]:
    """The ids of the nodes that these events bring or change."""
    batch = fold(change for event, payload in events for change in effects(event, payload))
    ends = (node.id for key in batch.relations for node in (key.start, key.end))
    return frozenset({*(key.id for key in batch.nodes), *ends})


def _shown(batch: Batch, shows: Callable[[str, Mapping[str, Any]], bool]) -> Batch:
    ends = {node for key in batch.relations for node in (key.start, key.end)}
    kept = {key for key in ends | batch.nodes.keys() if shows(key.id, batch.nodes.get(key, {}))}
    nodes = {key: props for key, props in batch.nodes.items() if key in kept}
    relations = {key: props for key, props in batch.relations.items() if key.start in kept and key.end in kept}
    return replace(batch, nodes=nodes, relations=relations)


def _distances(batch: Batch, root: NodeKey, depth: int) -> dict[NodeKey, int]:
    near: defaultdict[NodeKey, set[NodeKey]] = defaultdict(set)
    for key in batch.relations:
        near[key.start].add(key.end)
        near[key.end].add(key.start)
    distances, ring = {root: 0}, {root}
    for distance in range(1, depth + 1):
        ring = {other for node in ring for other in near[node]} - distances.keys()
        distances |= dict.fromkeys(ring, distance)
    return distances


def _node(key: NodeKey, props: dict[str, Any], distance: int) -> GraphNode:
    short = {
        name: value[:_MAX_TEXT] if isinstance(value, str) else value
        for name, value in sorted(props.items())
        if isinstance(value, str | int | bool) or value is None
    }
    title = next((str(short[name]) for name in _TITLES if short.get(name)), key.id)
    return GraphNode(label=key.label, id=key.id, title=title, distance=distance, props=short)
