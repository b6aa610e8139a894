"""The decision graph of a whole story: who decided what, and why (GR-80), from the embedded Bolt server."""

from __future__ import annotations

import pytest

from fleet.graph.memory.graph import MemoryGraph
from fleet.graph.neo4j.graph import Neo4jGraph
from fleet.graph.port import DecisionGraph
from fleet.graph.service.projector import Projector
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import StreamId
from fleet.log.memory import MemoryDeadLetters, MemoryFeedGroup
from fleet.log.port import EventLog
from tests.support.demo_run import DemoRun
from tests.support.services import Neo4jAddress


def over(log: EventLog, graph: DecisionGraph) -> Projector:
    """A projector of this log."""
    return Projector(log, graph, feed=MemoryFeedGroup(log), letters=MemoryDeadLetters(), clock=SystemClock())


@pytest.mark.rule("GR-80", "GR-3", "GR-4", "GR-88")
@pytest.mark.timeout(600)
async def test_graph_of_a_delivered_story_says_who_decided_what_and_why(
    demo: DemoRun, neo4j_address: Neo4jAddress
) -> None:
    story_id, state = demo.story_id, demo.state
    assert state.closed, state.park
    graph = Neo4jGraph.connect(
        neo4j_address.uri, user=neo4j_address.user, password=neo4j_address.password, database="neo4j"
    )
    stream = StreamId.of_story(story_id)
    try:
        await over(demo.log, graph).catch_up(stream)
        assert (await graph.cursor(stream)).version == state.version
        trail = await graph.query("decision_trail", {"story_id": story_id})
        approvals = await graph.query("who_approved", {"story_id": story_id})
        twin = MemoryGraph()
        await over(demo.log, twin).catch_up(stream)
        assert len(await twin.query("decision_trail", {"story_id": story_id})) == len(trail)
    finally:
        await graph.close()
    assert [row["category"] for row in trail] == ["ARCHITECTURE", "IMPLEMENTATION"]
    for row in trail:
        assert [by["principal"] for by in row["decided_by"]] == ["system:council"]
        assert row["rationale"]
        assert row["status"] == "ACCEPTED"
    granted = {row["gate"]: row for row in approvals if row["status"] == "granted"}
    assert set(granted) == {"approve_scope", "approve_design", "task_acceptance", "qa_passed", "docs_ready"}
    assert all(row["delegated"] for row in granted.values())
