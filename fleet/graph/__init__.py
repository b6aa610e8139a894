"""The decision graph as data: its schema, what each event changes in it, and its digest."""

from fleet.graph.batch import Batch, NodeKey, RelationKey, fold
from fleet.graph.changes import Cursor, GraphChange, NodeChange, RelationChange, RelationsClosed
from fleet.graph.digest import GraphDigest, graph_digest
from fleet.graph.effects import EFFECTS, NONE, Effect, effects
from fleet.graph.projection import Comparison, ProjectionState, Spare
from fleet.graph.queries import QUERIES, Query, QueryPlan, plan_query
from fleet.graph.schema import (
    BOOKKEEPING,
    COMMON,
    INDEXES,
    NODES,
    PROJECTION_VERSION,
    RELATIONS,
    Index,
    Label,
    Rel,
    RelationType,
    constraint_name,
    schema_problems,
)
from fleet.graph.story_graph import GraphEdge, GraphNode, StoryGraph, nodes_of, story_graph

__all__ = [
    "BOOKKEEPING",
    "COMMON",
    "EFFECTS",
    "INDEXES",
    "NODES",
    "NONE",
    "PROJECTION_VERSION",
    "QUERIES",
    "RELATIONS",
    "Batch",
    "Comparison",
    "Cursor",
    "Effect",
    "GraphChange",
    "GraphDigest",
    "GraphEdge",
    "GraphNode",
    "Index",
    "Label",
    "NodeChange",
    "NodeKey",
    "ProjectionState",
    "Query",
    "QueryPlan",
    "Rel",
    "RelationChange",
    "RelationKey",
    "RelationType",
    "RelationsClosed",
    "Spare",
    "StoryGraph",
    "constraint_name",
    "effects",
    "fold",
    "graph_digest",
    "plan_query",
    "schema_problems",
    "nodes_of",
    "story_graph",
]
