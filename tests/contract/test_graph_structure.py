"""How decisions, tasks and files hang together: the named queries, on the twin in memory and over real Bolt."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from fleet.graph.changes import NodeChange
from fleet.graph.memory.graph import MemoryGraph
from fleet.graph.port import DecisionGraph
from fleet.kernel.errors import NotFound
from tests.support.drawn_graphs import Drawn
from tests.support.graphs import canonical, fresh, open_graph, project, sample_history
from tests.support.services import Neo4jAddress


@pytest.fixture(params=["memory", "bolt"])
def address(request: pytest.FixtureRequest) -> Neo4jAddress | None:
    return request.getfixturevalue("neo4j_address") if request.param == "bolt" else None


@pytest.fixture
async def graph(address: Neo4jAddress | None) -> AsyncGenerator[DecisionGraph]:
    async with open_graph(address) as opened:
        yield opened


@pytest.mark.rule("GR-81", "GR-97")
async def test_critical_decisions_are_those_of_the_adopted_plan_by_what_hangs_on_them(graph: DecisionGraph) -> None:
    drawn = Drawn()
    drawn.node("Story", "st")
    for plan, current in (("pv-old", False), ("pv-new", True)):
        drawn.node("PlanVersion", plan, status="adopted" if current else "superseded")
        drawn.link("HAS_PLAN", ("Story", "st"), ("PlanVersion", plan), current=current)
    for name, plan in (("tk-a", "pv-new"), ("tk-b", "pv-new"), ("tk-c", "pv-old")):
        drawn.node("Task", name)
        drawn.link("HAS_TASK", ("PlanVersion", plan), ("Task", name))
    drawn.decision("de-once", "pv-old", created_at=1)
    for n in range(4):
        drawn.decision(f"de-was{n}", "pv-old", needs=["de-once", "de-few"], created_at=1)
    drawn.decision("de-few", "pv-new", created_at=9)
    drawn.decision("de-many", "pv-new", created_at=9)
    drawn.decision("de-none", "pv-new", created_at=3)
    drawn.decision("de-last", "pv-new", created_at=3, needs=["de-many"])
    for task in ("tk-a", "tk-b", "tk-c"):
        drawn.link("AFFECTS", ("Decision", "de-few"), ("Task", task))
        drawn.link("AFFECTS", ("Decision", "de-many"), ("Task", task))
    drawn.link("GOVERNS", ("Decision", "de-none"), ("Decision", "de-many"))
    drawn.link("CONTAINS_DECISION", ("PlanVersion", "pv-new"), ("Decision", "de-stub"))
    twin = await drawn.into(graph)
    rows = await drawn.ask(graph, twin, "critical_decisions", story_id=drawn.story)
    assert [(drawn.short(r["id"]), r["dependents"], r["governed_by"], r["affects"]) for r in rows] == [
        ("de-many", 1, 1, 2),
        ("de-few", 0, 0, 2),
        ("de-last", 0, 0, 0),
        ("de-none", 0, 0, 0),
    ]
    assert [r["degree"] for r in rows] == [4, 2, 0, 0]
    assert len(await drawn.ask(graph, twin, "critical_decisions", story_id=drawn.story, limit=1)) == 1


@pytest.mark.rule("GR-83")
async def test_decision_cycles_are_found_each_once_from_its_smallest_id(graph: DecisionGraph) -> None:
    drawn = Drawn()
    drawn.node("Story", "st")
    needs = {"a": "b", "b": "cd", "c": "a", "d": "d", "e": "ab", "p": "q", "q": "r", "r": "s", "s": "t", "t": "u"}
    needs |= {"u": "vp", "v": "p"}
    for name, others in needs.items():
        drawn.decision(f"de-{name}", "pv-one", needs=[f"de-{other}" for other in others])
    twin = await drawn.into(graph)
    rows = await drawn.ask(graph, twin, "decision_cycles", story_id=drawn.story)
    cycles = ["".join(drawn.short(d)[-1] for d in row["decisions"]) for row in rows]
    assert cycles == ["d", "abc", "pqrstu"], "the one of seven is longer than those that are looked for"
    assert [row["length"] for row in rows] == [1, 3, 6]
    assert len(await drawn.ask(graph, twin, "decision_cycles", story_id=drawn.story, limit=2)) == 2


@pytest.mark.rule("GR-84")
async def test_plan_layers_are_what_can_run_side_by_side_and_last_what_is_on_a_cycle(graph: DecisionGraph) -> None:
    drawn = Drawn()
    plan = drawn.node("PlanVersion", "pv-one")
    wanted = {"tk-a": (2, ""), "tk-b": (1, ""), "tk-c": (1, "ab"), "tk-x": (1, "y"), "tk-y": (1, "x"), "tk-z": (1, "x")}
    for name, (priority, needs) in wanted.items():
        drawn.node("Task", name, title=name, role="developer", state="todo", priority=priority, estimated_hours=2)
        drawn.link("HAS_TASK", ("PlanVersion", "pv-one"), ("Task", name), layer=None, position=0)
        for other in needs:
            drawn.link("DEPENDS_ON", ("Task", name), ("Task", f"tk-{other}"), plan_id=plan, inferred=False)
    drawn.link("DEPENDS_ON", ("Task", "tk-a"), ("Task", "tk-b"), plan_id="pv-another", inferred=False)
    drawn.link("HAS_TASK", ("PlanVersion", "pv-one"), ("Task", "tk-stub"), layer=0, position=9)
    twin = await drawn.into(graph)
    rows = await drawn.ask(graph, twin, "plan_layers", plan_id=plan)
    found = [(row["layer"], row["is_cyclic"], [drawn.short(t["id"]) for t in row["tasks"]]) for row in rows]
    assert found == [
        (0, False, ["tk-b", "tk-a", "tk-stub"]),
        (1, False, ["tk-c"]),
        (2, True, ["tk-x", "tk-y", "tk-z"]),
    ]
    assert rows[1]["tasks"][0]["needs"] == [drawn.id("tk-a"), drawn.id("tk-b")]


@pytest.mark.rule("GR-92")
async def test_path_history_is_what_touched_the_file_the_newest_first(graph: DecisionGraph) -> None:
    drawn = Drawn()
    path = f"shop/{drawn.part}.py"
    drawn.node("File", "fi", path=path)
    drawn.node("Task", "tk-a", title="Save", state="done", created_at=1, done_at=8)
    drawn.node("Task", "tk-b", title="Load", state="todo", created_at=3)
    drawn.node("Task", "tk-c", title="Other", state="todo", created_at=9)
    drawn.node("Run", "rn-a", tool="tests", outcome="passed", started_at=4)
    for task, v in (("tk-a", 1), ("tk-a", 2), ("tk-b", 3)):
        drawn.link("TOUCHED", ("Task", task), ("File", "fi"), v=v, change="modified")
    drawn.link("PART_OF", ("Run", "rn-a"), ("Task", "tk-a"))
    drawn.decision("de-a", "pv-one", decided_at=6)
    drawn.link("AFFECTS", ("Decision", "de-a"), ("Task", "tk-a"))
    drawn.link("AFFECTS", ("Decision", "de-a"), ("Task", "tk-b"))
    twin = await drawn.into(graph)
    rows = await drawn.ask(graph, twin, "path_history", path=path)
    assert [(row["kind"], drawn.short(row["id"]), row["state"], row["at"]) for row in rows] == [
        ("Task", "tk-a", "done", 8),
        ("Decision", "de-a", "ACCEPTED", 6),
        ("Run", "rn-a", "passed", 4),
        ("Task", "tk-b", "todo", 3),
    ]
    assert [row["at"] for row in await drawn.ask(graph, twin, "path_history", path=path, limit=1)] == [8]
    assert await graph.query("path_history", {"path": "no/such/path.py"}) == []


@pytest.mark.rule("GR-94")
async def test_similar_decisions_are_accepted_ones_by_how_many_keywords_they_hold(graph: DecisionGraph) -> None:
    drawn = Drawn()
    where = {"project_id": drawn.id("pr"), "alternatives": ["files"]}
    drawn.decision("de-redis", "pv-one", rationale="Carts expire in Redis", decided_at=1, **where)
    drawn.decision("de-other", "pv-one", rationale="Carts are rows", decided_at=5, **where)
    drawn.decision("de-older", "pv-one", rationale="A cart is a row", decided_at=4, **where)
    drawn.decision("de-price", "pv-one", rationale="Prices are integers", decided_at=9, **where)
    drawn.changes.append(NodeChange("Decision", drawn.id("de-price"), {"status": "PROPOSED"}))
    twin = await drawn.into(graph)
    asked = {"category": "ARCHITECTURE", "project_id": drawn.id("pr")}
    rows = await drawn.ask(graph, twin, "similar_decisions", keywords="expiring carts", **asked)
    assert [(drawn.short(row["id"]), row["matches"]) for row in rows] == [
        ("de-redis", 2),
        ("de-other", 1),
        ("de-older", 1),
    ]
    every = await drawn.ask(graph, twin, "similar_decisions", **asked)
    assert [drawn.short(row["id"]) for row in every] == ["de-other", "de-older", "de-redis"]
    in_texts = await drawn.ask(graph, twin, "similar_decisions", keywords="file", limit=2, **asked)
    assert [row["matches"] for row in in_texts] == [1, 1]
    elsewhere = {**asked, "project_id": drawn.id("pr-elsewhere")}
    assert await drawn.ask(graph, twin, "similar_decisions", **elsewhere) == []


@pytest.mark.rule("GR-1", "GR-81", "GR-83", "GR-84", "GR-92", "GR-94")
async def test_structure_of_projected_events_is_answered_as_the_twin_does(graph: DecisionGraph) -> None:
    twin, part = MemoryGraph(), fresh()
    for where in (graph, twin):
        await project(where, sample_history("story", part))
    story = f"st-{part}cart7"
    plan = next(key.id for key in twin.nodes if key.label == "PlanVersion")
    asked: list[tuple[str, dict[str, Any]]] = [
        ("critical_decisions", {"story_id": story}),
        ("decision_cycles", {"story_id": story}),
        ("plan_layers", {"plan_id": plan}),
    ]
    for name, params in asked:
        assert canonical(await graph.query(name, params)) == canonical(await twin.query(name, params)), name
    assert await twin.query("plan_layers", {"plan_id": plan})
    touched = await graph.query("path_history", {"path": "shop/cart/store.py"})
    wanted = await twin.query("path_history", {"path": "shop/cart/store.py"})
    assert {row["id"] for row in wanted} <= {row["id"] for row in touched}


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("critical_decisions", {"story_id": "st-nobody"}),
        ("decision_cycles", {"story_id": "st-nobody"}),
        ("plan_layers", {"plan_id": "pv-nobody"}),
    ],
)
async def test_structure_of_unknown_id_is_not_found(graph: DecisionGraph, name: str, params: dict[str, Any]) -> None:
    with pytest.raises(NotFound):
        await graph.query(name, params)
