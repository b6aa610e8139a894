"""What lies around a story in its graph: by distance, bounded, with edges among what is shown alone (AP-70)."""

from __future__ import annotations

import pytest

from fleet.events.codec import decode
from fleet.graph.story_graph import story_graph
from tests.support.story_events import DECISION, STORY, TASK, story


def _events():
    return [(event, decode(event)) for event in story().events]


@pytest.mark.rule("AP-70")
def test_nodes_come_by_distance_and_the_story_is_first():
    found = story_graph(_events(), story_id=STORY, depth=3, max_nodes=400)
    assert (found.nodes[0].id, found.nodes[0].distance) == (STORY, 0)
    assert [n.distance for n in found.nodes] == sorted(n.distance for n in found.nodes)
    assert {TASK, DECISION} <= {n.id for n in found.nodes}
    assert found.left_out == 0


def test_edges_join_nodes_of_the_answer_alone():
    found = story_graph(_events(), story_id=STORY, depth=3, max_nodes=10)
    kept = {(n.label, n.id) for n in found.nodes}
    assert len(kept) == 10
    assert found.left_out > 0
    assert all({(e.from_label, e.from_id), (e.to_label, e.to_id)} <= kept for e in found.edges)


def test_depth_bounds_the_distance():
    for depth in (0, 1, 2):
        found = story_graph(_events(), story_id=STORY, depth=depth, max_nodes=400)
        assert max(n.distance for n in found.nodes) == depth


def test_same_events_give_the_same_graph():
    one, two = (story_graph(_events(), story_id=STORY, depth=2, max_nodes=50) for _ in range(2))
    assert one == two
