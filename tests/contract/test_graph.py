"""The suite of the port DecisionGraph, on the twin in memory and over real Bolt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from fleet.events.codec import decode
from fleet.events.envelope import GENESIS_HASH, StoredEvent
from fleet.graph.changes import Cursor, NodeChange, RelationChange, RelationsClosed
from fleet.graph.digest import graph_digest
from fleet.graph.effects.table import EFFECTS, NONE, effects
from fleet.graph.memory.graph import MemoryGraph
from fleet.graph.port import DecisionGraph
from fleet.graph.projection import Comparison, ProjectionState, Spare
from fleet.kernel.errors import InvalidInput, NotFound
from fleet.kernel.ids import StreamId
from tests.support.graphs import (
    T0,
    canonical,
    empty_graph,
    fresh,
    golden_graph,
    history,
    open_graph,
    project,
    sample_history,
    shortest_history,
)
from tests.support.projection import Projections, append
from tests.support.services import Neo4jAddress


@pytest.fixture(params=["memory", "bolt"])
def address(request: pytest.FixtureRequest) -> Neo4jAddress | None:
    return request.getfixturevalue("neo4j_address") if request.param == "bolt" else None


@pytest.fixture
async def graph(address: Neo4jAddress | None) -> AsyncGenerator[DecisionGraph]:
    async with open_graph(address) as opened:
        yield opened


@pytest.fixture
async def empty(address: Neo4jAddress | None) -> AsyncGenerator[DecisionGraph]:
    """A graph that holds nothing else, for comparisons of digests."""
    if address is not None:
        empty_graph(address)
    async with open_graph(address) as opened:
        yield opened


def at(version: int, text: str = "") -> Cursor:
    return Cursor(version, (text or f"{version:x}").rjust(64, "0") if version else GENESIS_HASH)


@pytest.mark.rule("GR-4")
async def test_cursor_of_unknown_stream_is_genesis(graph: DecisionGraph) -> None:
    assert await graph.cursor(StreamId(f"story:st-{fresh()}")) == Cursor(0, GENESIS_HASH)


@pytest.mark.rule("GR-4")
async def test_apply_moves_the_cursor_and_repeating_it_changes_nothing(empty: DecisionGraph) -> None:
    stream = StreamId(f"story:st-{fresh()}")
    first = [NodeChange("Task", "tk-a", {"title": "one", "stub": False})]
    assert await empty.apply(stream, first, expected=at(0), reached=at(2))
    before = await empty.digest()
    assert not await empty.apply(stream, first, expected=at(0), reached=at(2))
    assert not await empty.apply(
        stream, [NodeChange("Task", "tk-a", {"title": "stale"})], expected=at(1), reached=at(3)
    )
    assert not await empty.apply(
        stream, [NodeChange("Task", "tk-a", {"title": "forked"})], expected=at(2, "f"), reached=at(3)
    )
    assert not await empty.apply(stream, [NodeChange("Task", "tk-b", {})], expected=at(5), reached=at(6))
    assert await empty.digest() == before
    assert await empty.cursor(stream) == at(2)


@pytest.mark.rule("GR-4")
async def test_apply_without_changes_moves_the_cursor(graph: DecisionGraph) -> None:
    stream = StreamId(f"story:st-{fresh()}")
    assert await graph.apply(stream, [], expected=at(0), reached=at(1))
    assert await graph.cursor(stream) == at(1)


@pytest.mark.rule("GR-4")
async def test_apply_by_racing_writers_is_done_once(graph: DecisionGraph) -> None:
    stream, name = StreamId(f"story:st-{fresh()}"), fresh()
    changes = [
        NodeChange("Task", f"tk-{name}", {"stub": False}),
        RelationChange("DEPENDS_ON", "Task", f"tk-{name}", "Task", f"tk-{name}-b", key={"plan_id": "pv-1"}),
    ]

    async def write() -> bool:
        return await graph.apply(stream, changes, expected=at(0), reached=at(1))

    done = await asyncio.gather(*(write() for _ in range(4)))
    assert sorted(done) == [False, False, False, True]


@pytest.mark.rule("GR-3")
async def test_relation_to_unknown_node_leaves_a_stub_that_its_event_fills(empty: DecisionGraph) -> None:
    one, two = StreamId(f"story:st-{fresh()}"), StreamId(f"project:pr-{fresh()}")
    story, epic = f"st-{fresh()}", f"ep-{fresh()}"
    relation = RelationChange("CONTAINS", "Epic", epic, "Story", story)
    described = NodeChange("Epic", epic, {"title": "inbox", "stub": False})

    await empty.apply(one, [relation], expected=at(0), reached=at(1))
    as_stub = await empty.digest()
    await empty.apply(two, [described], expected=at(0), reached=at(1))
    filled = await empty.digest()

    twin = MemoryGraph()
    await twin.apply(two, [described], expected=at(0), reached=at(1))
    await twin.apply(one, [relation], expected=at(0), reached=at(1))
    assert filled == await twin.digest()
    assert as_stub != filled


@pytest.mark.rule("GR-41")
async def test_closing_marks_open_relations_but_those_to_keep(empty: DecisionGraph) -> None:
    stream, story = StreamId(f"story:st-{fresh()}"), f"st-{fresh()}"
    twin = MemoryGraph()

    def has(criterion: str) -> RelationChange:
        return RelationChange("HAS_CRITERION", "Story", story, "Criterion", criterion, props={"removed_v": None})

    def only(*kept: str, v: int) -> RelationsClosed:
        return RelationsClosed("HAS_CRITERION", "Story", story, mark="removed_v", value=v, keep=kept)

    gone = RelationsClosed("HAS_CRITERION", "Criterion", "c2", mark="removed_v", value=5, incoming=True, only=(story,))
    batches = [[has("c1"), has("c2"), only("c1", v=1)], [only("c3", v=2), has("c3")], [has("c1"), has("c2"), gone]]
    for version, batch in enumerate(batches):
        for where in (empty, twin):
            assert await where.apply(stream, batch, expected=at(version), reached=at(version + 1))
        assert await empty.digest() == await twin.digest()
    marks = {key.end.id: props.get("removed_v") for key, props in twin.relations.items()}
    assert marks == {"c1": None, "c2": 5, "c3": None}


@pytest.mark.rule("GR-1", "GR-3")
async def test_projection_of_every_event_type_equals_the_twin(empty: DecisionGraph) -> None:
    twin = MemoryGraph()
    for kind in ("story", "project", "platform"):
        events = sample_history(kind)
        await project(empty, events, batch=17)
        await project(twin, events, batch=1)
    assert await empty.digest() == await twin.digest()


@pytest.mark.rule("GR-1", "GR-80", "GR-82", "GR-87", "GR-88", "GR-89")
async def test_queries_read_back_what_events_wrote_as_the_twin_does(graph: DecisionGraph) -> None:
    twin, part = MemoryGraph(), fresh()
    for where in (graph, twin):
        await project(where, sample_history("story", part))
    story = f"st-{part}cart7"
    asked: list[tuple[str, dict[str, Any], int]] = [
        ("decision_trail", {"story_id": story}, 1),
        ("decision_trail", {"story_id": story, "status": "SUPERSEDED", "from": T0, "to": T0 + 10_000}, 1),
        ("decision_trail", {"story_id": story, "status": "ACCEPTED"}, 0),
        ("decision_trail", {"story_id": story, "from": T0 + 10_000}, 0),
        ("decision_trail", {"story_id": story, "to": T0}, 0),
        ("decision_trail", {"story_id": story, "skip": 1}, 0),
        ("decision_trail", {"task_id": f"tk-{part}save1"}, 1),
        ("who_approved", {"story_id": story}, 1),
        ("who_approved", {"story_id": story, "gate": "approve_scope"}, 0),
        ("council_record", {"council_id": f"co-{part}pick1"}, 1),
        ("unanswered_questions", {"story_id": story, "now_ms": T0}, 0),
        ("decision_impact", {"decision_id": f"de-{part}store1"}, 6),
        ("decision_impact", {"decision_id": f"de-{part}base1", "depth": 1}, 7),
        ("decision_impact", {"decision_id": f"de-{part}base1", "limit": 2}, 2),
    ]
    for name, params, rows in asked:
        found = await graph.query(name, params)
        assert len(found) == rows, (name, params, found)
        assert canonical(found) == canonical(await twin.query(name, params)), (name, params)


@pytest.mark.rule("GR-80")
async def test_decision_trail_says_who_decided_in_which_role_on_which_evidence(graph: DecisionGraph) -> None:
    part = fresh()
    wanted = ("StoryCreated", "DecisionProposed", "DecisionAccepted", "StepStarted")
    await project(graph, story_of(part, *wanted))
    (row,) = await graph.query("decision_trail", {"story_id": f"st-{part}cart7"})
    assert row["id"] == f"de-{part}store1"
    assert row["status"] == "ACCEPTED"
    assert row["alternatives"] == ["Redis", "JSON files"]
    assert row["author"] == "user:bo"
    assert row["decided_by"] == [
        {"principal": "user:ana", "as_role": "po", "verdict": "accepted", "at": row["decided_at"]}
    ]
    assert [e["kind"] for e in row["evidence"]] == ["Run"]
    assert (row["council_id"], row["approval_id"]) == (f"co-{part}pick1", f"ap-{part}scope1")


def story_of(part: str, *types: str) -> list[StoredEvent]:
    chosen = {event.type: event for event in sample_history("story", part)}
    return history(f"story:st-{part}cart7", [decode(chosen[name]) for name in types])


@pytest.mark.rule("GR-80")
async def test_decision_trail_of_a_path_finds_decisions_of_its_tasks(graph: DecisionGraph) -> None:
    part = fresh()
    await project(graph, sample_history("story", part))
    rows = await graph.query("decision_trail", {"path": "shop/cart/store.py"})
    assert f"de-{part}store1" in [row["id"] for row in rows]
    assert await graph.query("decision_trail", {"path": "no/such/path.py"}) == []


@pytest.mark.rule("GR-87")
async def test_unanswered_questions_lists_open_ones_with_what_they_block(graph: DecisionGraph) -> None:
    part = fresh()
    events = story_of(part, "StoryCreated", "QuestionRaised")
    await project(graph, events)
    asked_at, story = events[-1].ts_ms, f"st-{part}cart7"
    blocked = RelationChange(
        "BLOCKED_BY", "Task", f"tk-{part}", "Question", f"qu-{part}days1", props={"reason": "days", "removed_v": None}
    )
    stream = events[0].stream
    reached = Cursor(events[-1].version, events[-1].hash)
    assert await graph.apply(stream, [blocked], expected=reached, reached=at(3))
    (row,) = await graph.query("unanswered_questions", {"story_id": story, "now_ms": asked_at + 5000})
    assert (row["age_ms"], row["blocking"], row["asked_by"]) == (5000, [f"tk-{part}"], ["agent:developer-001"])
    aged = {"story_id": story, "now_ms": asked_at + 5000, "older_than_s": 6}
    assert await graph.query("unanswered_questions", aged) == []
    everywhere = await graph.query("unanswered_questions", {"severity": "blocking", "now_ms": asked_at})
    assert row["id"] in [r["id"] for r in everywhere]
    assert await graph.query("unanswered_questions", {"story_id": story, "severity": "normal", "now_ms": T0}) == []


@pytest.mark.rule("GR-89")
async def test_council_record_holds_candidates_ballots_and_counterfactuals(graph: DecisionGraph) -> None:
    part = fresh()
    wanted = ("CouncilOpened", "DraftReceived", "EvidenceRecorded", "BallotCast", "CouncilDecided")
    await project(graph, story_of(part, *wanted))
    (row,) = await graph.query("council_record", {"council_id": f"co-{part}pick1"})
    (candidate,) = row["candidates"]
    assert (candidate["id"], candidate["winner"], candidate["author"]) == (
        f"cd-{part}aaa1",
        True,
        "agent:developer-001",
    )
    assert (candidate["trusted_passed"], candidate["failed_gates"]) == (6, [])
    (ballot,) = row["ballots"]
    assert ballot["ranking"] == [f"cd-{part}aaa1", f"cd-{part}bbb2"]
    assert "best_of_n" in row["counterfactuals"]
    assert row["tokens_total"] == 7500
    assert row["decisions"] == [f"de-{part}store1"]


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("decision_trail", {"story_id": "st-nobody"}),
        ("decision_trail", {"task_id": "tk-nobody"}),
        ("who_approved", {"story_id": "st-nobody"}),
        ("council_record", {"council_id": "co-nobody"}),
        ("unanswered_questions", {"story_id": "st-nobody", "now_ms": 0}),
        ("decision_impact", {"decision_id": "de-nobody"}),
    ],
)
async def test_query_of_unknown_id_is_not_found(graph: DecisionGraph, name: str, params: dict[str, Any]) -> None:
    with pytest.raises(NotFound):
        await graph.query(name, params)


@pytest.mark.rule("GR-98")
async def test_query_with_bad_bound_or_name_is_invalid_input(graph: DecisionGraph) -> None:
    with pytest.raises(InvalidInput):
        await graph.query("decision_impact", {"decision_id": "de-a", "depth": 7})
    with pytest.raises(InvalidInput):
        await graph.query("MATCH (n) DETACH DELETE n", {})


BUILDING = ProjectionState(active=1, wanted=2, spare=Spare.BUILDING)


async def building(graph: DecisionGraph) -> ProjectionState:
    """Projection 2 is built beside projection 1."""
    assert await graph.move_projection(ProjectionState(), BUILDING)
    return await graph.projection()


@pytest.mark.rule("GR-7", "GR-32")
async def test_projection_moves_only_from_the_state_that_was_seen(empty: DecisionGraph) -> None:
    first = await empty.projection()
    assert first == ProjectionState()
    assert await empty.move_projection(first, first.asked())
    assert not await empty.move_projection(first, first.asked().begun(1))
    asked = first.asked()
    done = await asyncio.gather(*(empty.move_projection(asked, asked.begun(version)) for version in range(2, 6)))
    assert sorted(done) == [False, False, False, True]
    assert (await empty.projection()).spare is Spare.BUILDING


@pytest.mark.rule("GR-7")
async def test_projections_have_nodes_and_cursors_of_their_own(empty: DecisionGraph) -> None:
    stream = StreamId(f"story:st-{fresh()}")
    assert not await empty.apply(stream, [], expected=at(0), reached=at(1), projection=2)
    await building(empty)
    for number, title in ((1, "live"), (2, "new")):
        change = NodeChange("Task", "tk-a", {"title": title, "stub": False})
        assert await empty.apply(stream, [change], expected=at(0), reached=at(number), projection=number)
    assert await empty.cursor(stream) == at(1)
    assert await empty.cursor(stream, projection=2) == at(2)
    assert await empty.cursors() == {stream: at(1)}
    assert await empty.cursors(projection=2) == {stream: at(2)}
    assert await empty.digest() != await empty.digest(projection=2)
    assert await empty.move_projection(BUILDING, BUILDING.switched(Comparison.DIFFERENT))
    twin = MemoryGraph()
    await twin.apply(
        stream, [NodeChange("Task", "tk-a", {"title": "new", "stub": False})], expected=at(0), reached=at(2)
    )
    assert await empty.digest() == await twin.digest()
    assert await empty.cursor(stream) == at(2)


@pytest.mark.rule("GR-7")
async def test_apply_to_a_projection_that_is_not_written_any_more_does_nothing(empty: DecisionGraph) -> None:
    old, new = StreamId(f"story:st-{fresh()}"), StreamId(f"story:st-{fresh()}")
    change = [NodeChange("Task", "tk-late", {"title": "late"})]
    assert not await empty.apply(new, change, expected=at(0), reached=at(1), projection=2)
    assert await empty.apply(old, [], expected=at(0), reached=at(1))
    state = await building(empty)
    state = state.switched(Comparison.EQUAL)
    assert await empty.move_projection(BUILDING, state)
    while await empty.clear_spare(limit=10):
        pass
    assert not await empty.apply(old, change, expected=at(1), reached=at(2), projection=1)
    assert not await empty.apply(new, change, expected=at(0), reached=at(1), projection=1)
    assert await empty.digest(projection=1) == await MemoryGraph().digest()


@pytest.mark.rule("GR-7")
async def test_clear_removes_the_other_projection_in_pieces_and_only_while_it_is_dirty(empty: DecisionGraph) -> None:
    events = sample_history("story", fresh())
    await project(empty, events)
    live = await empty.digest()
    await building(empty)
    changes = [change for event in events for change in effects(event, decode(event))]
    reached = Cursor(events[-1].version, events[-1].hash)
    assert await empty.apply(events[0].stream, changes, expected=at(0), reached=reached, projection=2)
    assert await empty.digest(projection=2) == live
    assert await empty.clear_spare(limit=10) == 0, "what is being built is not dirty"
    assert await empty.move_projection(BUILDING, BUILDING.abandoned())
    pieces: list[int] = []
    while gone := await empty.clear_spare(limit=10):
        pieces.append(gone)
    assert max(pieces) <= 10
    assert len(pieces) > 2
    assert await empty.digest(projection=2) == await MemoryGraph().digest()
    assert await empty.cursors(projection=2) == {}
    assert await empty.digest() == live


@pytest.mark.rule("GR-6")
async def test_hold_keeps_the_first_reason_until_another_projection_is_active(empty: DecisionGraph) -> None:
    held, other = StreamId(f"story:st-{fresh()}"), StreamId(f"story:st-{fresh()}")
    for stream in (held, other):
        assert await empty.apply(stream, [], expected=at(0), reached=at(3))
    await empty.hold(held, reason="the log went back")
    await empty.hold(held, reason="something else")
    assert await empty.held() == {held: "the log went back"}
    await building(empty)
    await empty.move_projection(BUILDING, BUILDING.switched(Comparison.IMPOSSIBLE))
    assert await empty.held() == {}


@pytest.mark.rule("GR-7", "GR-80", "GR-82", "GR-88", "GR-89")
async def test_rebuilt_graph_equals_the_live_one_and_answers_alike_meanwhile_and_after(empty: DecisionGraph) -> None:
    world, part = Projections(empty), fresh()
    for kind in ("story", "project", "platform"):
        for event in sample_history(kind, part):
            await append(world.log, event.stream, decode(event))
    projector = world.projector()
    await projector.sweep()
    before, live = await answers(empty, part), await empty.digest()
    await projector.ask_for_rebuild()
    steps = 0
    while await projector.rebuild_step():
        steps += 1
        assert await answers(empty, part) == before
    assert steps >= 4
    state = await empty.projection()
    assert (state.active, state.spare, state.comparison) == (2, Spare.EMPTY, Comparison.EQUAL)
    assert await empty.digest() == live
    assert await answers(empty, part) == before


@pytest.mark.rule("GR-7")
async def test_query_during_a_rebuild_reads_from_one_projection(empty: DecisionGraph) -> None:
    world, part = Projections(empty), fresh()
    for event in sample_history("story", part):
        await append(world.log, event.stream, decode(event))
    projector = world.projector()
    await projector.sweep()
    before = await answers(empty, part)
    seen: list[str] = []
    rebuilding = asyncio.create_task(_rebuild_twice(world))
    while not rebuilding.done():
        seen.append(await answers(empty, part))
    await rebuilding
    assert (await empty.projection()).active == 3
    assert set(seen) == {before}


async def _rebuild_twice(world: Projections) -> None:
    for _ in range(2):
        await world.projector().ask_for_rebuild()
        await world.rebuilt()


async def answers(graph: DecisionGraph, part: str) -> str:
    """What the named queries say about the sample story."""
    asked: list[tuple[str, dict[str, Any]]] = [
        ("decision_trail", {"story_id": f"st-{part}cart7"}),
        ("decision_trail", {"path": "shop/cart/store.py"}),
        ("who_approved", {"story_id": f"st-{part}cart7"}),
        ("council_record", {"council_id": f"co-{part}pick1"}),
        ("decision_impact", {"decision_id": f"de-{part}base1"}),
    ]
    found = [await graph.query(name, params) for name, params in asked]
    assert all(found)
    return "\n".join(canonical(rows) for rows in found)


@pytest.mark.rule("GR-1", "EV-31")
@pytest.mark.parametrize("name", sorted(EFFECTS))
async def test_event_is_read_back_as_exactly_the_nodes_it_stands_for(empty: DecisionGraph, name: str) -> None:
    await project(empty, shortest_history(name))
    expected = golden_graph(name)
    assert (EFFECTS[name] == NONE) == (expected is None)
    nodes, relations = expected or ([], [])
    assert await empty.digest() == graph_digest(nodes, relations)
