"""Whole stories, projects and actors: the named queries, on the twin in memory and over real Bolt."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from fleet.graph.changes import NodeChange, RelationChange
from fleet.graph.memory.graph import MemoryGraph
from fleet.graph.port import DecisionGraph
from fleet.kernel.errors import InvalidInput, NotFound
from tests.support.drawn_graphs import Drawn
from tests.support.graphs import canonical, fresh, open_graph, project, sample_history
from tests.support.services import Neo4jAddress

DAY_MS = 86_400_000


@pytest.fixture(params=["memory", "bolt"])
def address(request: pytest.FixtureRequest) -> Neo4jAddress | None:
    return request.getfixturevalue("neo4j_address") if request.param == "bolt" else None


@pytest.fixture
async def graph(address: Neo4jAddress | None) -> AsyncGenerator[DecisionGraph]:
    async with open_graph(address) as opened:
        yield opened


def planned(*, adopted: bool = True) -> Drawn:
    """A story with two plans; in the later one b waits for a, c for b and a question, and x and y for each other."""
    drawn = Drawn()
    drawn.node("Story", "st", title="Cart", state="BUILD", disposition="active", created_at=1, version=9)
    for number, plan in enumerate(("pv-old", "pv-new"), start=1):
        is_new = plan == "pv-new"
        status = ("adopted" if adopted else "proposed") if is_new else "superseded"
        drawn.node("PlanVersion", plan, version=number, status=status, rationale=f"plan {number}")
        drawn.link("HAS_PLAN", ("Story", "st"), ("PlanVersion", plan), current=is_new and adopted)
    tasks = {"tk-a": "todo", "tk-b": "todo", "tk-c": "todo", "tk-d": "done", "tk-x": "todo", "tk-y": "todo"}
    for number, (name, state) in enumerate(tasks.items()):
        role = "qa" if name == "tk-c" else "developer"
        drawn.node("Task", name, title=name, state=state, role=role, priority=number % 3 + 1)
        drawn.link("HAS_TASK", ("PlanVersion", "pv-new"), ("Task", name), layer=0, position=number)
    for start, ends in {"tk-b": "a", "tk-c": "b", "tk-a": "d", "tk-x": "y", "tk-y": "x"}.items():
        drawn.link("DEPENDS_ON", ("Task", start), ("Task", f"tk-{ends}"), plan_id=drawn.id("pv-new"), inferred=False)
    drawn.node("Question", "qu-open", status="open", text="Which?", severity="blocking", asked_at=4)
    drawn.node("Question", "qu-old", status="answered", text="When?", severity="normal", asked_at=3)
    drawn.link("BLOCKED_BY", ("Task", "tk-c"), ("Question", "qu-open"), reason="unanswered")
    drawn.link("BLOCKED_BY", ("Task", "tk-a"), ("Question", "qu-old"), reason="unanswered", removed_v=7)
    return drawn


@pytest.mark.rule("GR-90")
@pytest.mark.parametrize("adopted", [True, False])
async def test_task_blockers_follow_what_is_waited_for(graph: DecisionGraph, adopted: bool) -> None:
    drawn = planned(adopted=adopted)
    twin = await drawn.into(graph)
    rows = await drawn.ask(graph, twin, "task_blockers", story_id=drawn.story)
    told = {
        drawn.short(row["id"]): [(drawn.short(w["id"]), w["kind"], w["distance"]) for w in row["waits_for"]]
        for row in rows
    }
    assert told == {
        "tk-a": [],
        "tk-b": [("tk-a", "Task", 1)],
        "tk-c": [("tk-b", "Task", 1), ("qu-open", "Question", 1), ("tk-a", "Task", 2)],
        "tk-x": [("tk-y", "Task", 1)],
        "tk-y": [("tk-x", "Task", 1)],
    }
    assert [(row["priority"], drawn.short(row["id"])) for row in rows] == [
        (1, "tk-a"),
        (2, "tk-b"),
        (2, "tk-x"),
        (3, "tk-c"),
        (3, "tk-y"),
    ]
    assert len(await drawn.ask(graph, twin, "task_blockers", story_id=drawn.story, limit=2)) == 2


@pytest.mark.rule("GR-85", "CX-41", "CX-42")
async def test_rehydration_pack_tells_a_role_what_it_needs_in_one_row(graph: DecisionGraph) -> None:
    drawn = planned()
    drawn.node("Criterion", "ac-a", text="It adds up.", position=0, status="open")
    drawn.link("HAS_CRITERION", ("Story", "st"), ("Criterion", "ac-a"), position=0)
    drawn.node("Criterion", "ac-b", text="Was taken out.", position=1, status="open")
    drawn.link("HAS_CRITERION", ("Story", "st"), ("Criterion", "ac-b"), position=1, removed_v=3)
    drawn.node("Constraint", "co-a", key="python", value='">=3.11"')
    drawn.link("HAS_CONSTRAINT", ("Story", "st"), ("Constraint", "co-a"), position=0)
    drawn.decision("de-qa", "pv-new", created_at=2, rationale="For tests")
    drawn.decision("de-dev", "pv-new", created_at=1, rationale="For code", needs=["de-qa"])
    drawn.decision("de-gone", "pv-new", created_at=1, rationale="Rejected")
    drawn.changes.append(NodeChange("Decision", drawn.id("de-gone"), {"status": "REJECTED"}))
    for decision, task in (("de-qa", "tk-c"), ("de-dev", "tk-a"), ("de-gone", "tk-c")):
        drawn.link("AFFECTS", ("Decision", decision), ("Task", task))
    for number in range(12):
        drawn.node("Milestone", f"mi-{number}", name=f"state {number}", ts=number, ref="")
        drawn.link("REACHED", ("Story", "st"), ("Milestone", f"mi-{number}"), v=number)
    twin = await drawn.into(graph)
    (row,) = await drawn.ask(graph, twin, "rehydration_pack", story_id=drawn.story, role="qa")
    assert row["case_header"]["title"] == "Cart"
    assert [c["text"] for c in row["case_header"]["criteria"]] == ["It adds up."]
    assert row["case_header"]["constraints"] == [{"key": "python", "value": '">=3.11"'}]
    assert (row["plan_header"]["status"], row["plan_header"]["version"]) == ("adopted", 2)
    assert [drawn.short(task["id"]) for task in row["role_tasks"]] == ["tk-c"]
    assert [drawn.short(d["id"]) for d in row["decisions_relevant"]] == ["de-qa"]
    assert [(drawn.short(i["decision_id"]), i["title"]) for i in row["impacted_tasks"]] == [("de-qa", "tk-c")]
    assert [m["ts"] for m in row["recent_milestones"]] == list(range(2, 12)), "the newest, in chronological order"
    assert [drawn.short(q["id"]) for q in row["open_questions"]] == ["qu-open"]
    (other,) = await drawn.ask(graph, twin, "rehydration_pack", story_id=drawn.story, role="developer")
    assert [(drawn.short(e["src"]), e["rel"], drawn.short(e["dst"])) for e in other["decision_dependencies"]] == [
        ("de-dev", "DEPENDS_ON", "de-qa")
    ]
    (nobody,) = await drawn.ask(graph, twin, "rehydration_pack", story_id=drawn.story, role="data")
    assert nobody["role_tasks"] == []
    assert [drawn.short(d["id"]) for d in nobody["decisions_relevant"]] == ["de-dev", "de-qa"], "the first ones"


@pytest.mark.rule("GR-85", "CX-42")
async def test_story_without_a_plan_has_no_header_of_one_and_no_tasks(graph: DecisionGraph) -> None:
    drawn = Drawn()
    drawn.node("Story", "st", title="Cart", state="DRAFT", created_at=1)
    twin = await drawn.into(graph)
    (row,) = await drawn.ask(graph, twin, "rehydration_pack", story_id=drawn.story, role="qa")
    assert (row["plan_header"], row["role_tasks"], row["decisions_relevant"]) == (None, [], [])
    assert await drawn.ask(graph, twin, "task_blockers", story_id=drawn.story) == []


@pytest.mark.rule("GR-86", "RP-10", "RP-29")
async def test_report_data_tells_the_story_and_its_numbers(graph: DecisionGraph) -> None:
    drawn = planned()
    for number, status in enumerate(("granted", "requested", "granted")):
        drawn.node("Approval", f"ap-{number}", gate="approve_plan", role="po", status=status, requested_at=number)
    for number, outcome in enumerate(("succeeded", "failed", None)):
        known = {} if outcome is None else {"outcome": outcome}
        drawn.node("Run", f"rn-{number}", tool="tests", started_at=number, **known)
    drawn.node("Council", "co-one", kind="selection", status="DECIDED", tokens_total=12)
    drawn.decision("de-one", "pv-new", created_at=1)
    twin = await drawn.into(graph)
    (row,) = await drawn.ask(graph, twin, "report_data", story_id=drawn.story)
    assert (row["state"], row["plan"]["version"], row["plan_versions"]) == ("BUILD", 2, 2)
    assert row["tasks_by_state"] == {"done": 1, "todo": 5}
    assert row["tasks_by_role"] == {"developer": 5, "qa": 1}
    assert row["approvals_by_status"] == {"granted": 2, "requested": 1}
    assert row["runs_by_outcome"] == {"failed": 1, "running": 1, "succeeded": 1}
    assert row["councils_by_status"] == {"DECIDED": 1}
    assert row["decisions_by_status"] == {"ACCEPTED": 1}
    assert len(row["approvals"]) == 3


@pytest.mark.rule("GR-91")
async def test_actor_activity_counts_by_day(graph: DecisionGraph) -> None:
    drawn = Drawn()
    drawn.node("Story", "st", title="Cart", created_at=1)
    who = f"user:{drawn.part}"
    drawn.changes.append(NodeChange("Actor", who, {"stub": False, "kind": "human", "name": drawn.part}))

    def by(kind: str, label: str, name: str, **props: Any) -> None:
        key = {"v": props.pop("v")} if "v" in props else {}
        drawn.changes.append(RelationChange(kind, label, drawn.id(name), "Actor", who, key=key, props=props))

    for number, at in enumerate((5, 2 * DAY_MS - 1, 2 * DAY_MS)):
        drawn.decision(f"de-{number}", "pv-one", created_at=at)
        by("DECIDED_BY", "Decision", f"de-{number}", at=at, as_role="po", verdict="accepted")
    drawn.node("Approval", "ap-a", gate="g", status="granted", requested_at=1)
    by("DECIDED_BY", "Approval", "ap-a", at=2 * DAY_MS + 7, as_role="po")
    drawn.node("Task", "tk-a", title="A", state="done")
    by("REVIEWED_BY", "Task", "tk-a", v=1, at=DAY_MS, stage="review", verdict="approve")
    by("REVIEWED_BY", "Task", "tk-a", v=2, at=DAY_MS, stage="review", verdict="reject")
    drawn.node("Run", "rn-a", tool="tests", started_at=2 * DAY_MS + 1)
    by("EXECUTED_BY", "Run", "rn-a")
    twin = await drawn.into(graph)
    rows = await drawn.ask(graph, twin, "actor_activity", actor_id=who)
    assert rows == [
        {"day": "1970-01-01", "decisions": 1, "approvals": 0, "reviews": 0, "runs": 0},
        {"day": "1970-01-02", "decisions": 1, "approvals": 0, "reviews": 2, "runs": 0},
        {"day": "1970-01-03", "decisions": 1, "approvals": 1, "reviews": 0, "runs": 1},
    ]
    within = await drawn.ask(graph, twin, "actor_activity", actor_id=who, **{"from": DAY_MS, "to": 2 * DAY_MS - 1})
    assert [row["day"] for row in within] == ["1970-01-02"]


@pytest.mark.rule("GR-93", "RP-21", "RP-30", "RP-31", "RP-32", "RP-33", "RP-34", "RP-35", "RP-38")
async def test_orphans_are_told_with_exactly_the_links_they_lack(graph: DecisionGraph) -> None:
    drawn = Drawn()
    drawn.node("Story", "st", title="Cart", created_at=1, closed_at=9)
    drawn.node("PlanVersion", "pv-one", version=1, status="adopted")
    for name in ("ac-whole", "ac-bare"):
        drawn.node("Criterion", name, text=name, position=0, status="open")
        drawn.link("HAS_CRITERION", ("Story", "st"), ("Criterion", name), position=0)
    for name in ("tk-whole", "tk-bare", "tk-todo"):
        drawn.node("Task", name, title=name, state="todo" if name == "tk-todo" else "done")
    for name in ("tk-whole", "tk-todo"):
        drawn.link("HAS_TASK", ("PlanVersion", "pv-one"), ("Task", name), layer=0, position=0)
        drawn.link("COVERS", ("Task", name), ("Criterion", "ac-whole"))
    drawn.node("Report", "re-a", kind="docs")
    drawn.link("EVIDENCE_FOR", ("Report", "re-a"), ("Criterion", "ac-whole"), tests=["t"])
    drawn.node("Actor", "agent", kind="agent", name="a")
    drawn.link("REVIEWED_BY", ("Task", "tk-whole"), ("Actor", "agent"), v=1, at=1)
    known = {"tool": "tests", "rule_id": "r", "effect": "PURE", "outcome": "passed", "finished_at": 3}
    drawn.node("Run", "rn-whole", started_at=1, **known)
    drawn.link("PART_OF", ("Run", "rn-whole"), ("Task", "tk-whole"))
    drawn.link("EXECUTED_BY", ("Run", "rn-whole"), ("Actor", "agent"))
    drawn.node("Run", "rn-bare", started_at=1, tool="tests", finished_at=3)
    drawn.decision("de-whole", "pv-one", created_at=1, decided_at=2, rationale="Because")
    drawn.link("AUTHORED_BY", ("Decision", "de-whole"), ("Actor", "agent"), at=1)
    drawn.link("DECIDED_BY", ("Decision", "de-whole"), ("Actor", "agent"), at=2)
    drawn.decision("de-bare", "pv-one")
    drawn.node("Council", "co-whole", status="DECIDED", tally="{}", decision_hash="h", tokens_total=1)
    drawn.node("Candidate", "cd-a", digest="d")
    drawn.link("CONSIDERED", ("Council", "co-whole"), ("Candidate", "cd-a"), winner=True)
    drawn.node("Council", "co-bare", status="DECIDED")
    drawn.node("Approval", "ap-whole", gate="g", status="granted", subject_digest="d", requested_at=1)
    drawn.link("FOR", ("Approval", "ap-whole"), ("Story", "st"))
    drawn.link("DECIDED_BY", ("Approval", "ap-whole"), ("Actor", "agent"), at=2)
    drawn.node("Approval", "ap-bare", status="granted", requested_at=1)
    drawn.node("Deployment", "dp-bare", environment="prod")
    drawn.link("DEPLOYED_AS", ("Story", "st"), ("Deployment", "dp-bare"))
    twin = await drawn.into(graph)
    rows = await drawn.ask(graph, twin, "orphans", story_id=drawn.story)
    assert [(row["rule"], drawn.short(row["id"]), row["missing"]) for row in rows] == [
        ("RP-30", "ac-bare", ["evidence", "task"]),
        ("RP-31", "tk-bare", ["plan", "reviewer", "run", "served"]),
        ("RP-32", "de-bare", ["author", "decider", "rationale", "time"]),
        ("RP-33", "co-bare", ["ballots", "candidates", "decision_hash", "tokens"]),
        ("RP-34", "rn-bare", ["effect", "outcome", "principal", "rule"]),
        ("RP-35", "ap-bare", ["decider", "gate", "subject"]),
        ("RP-38", "dp-bare", ["outcome", "run", "tree"]),
    ]
    assert len(await drawn.ask(graph, twin, "orphans", story_id=drawn.story, limit=3)) == 3


@pytest.mark.rule("GR-95")
async def test_open_work_tells_where_stories_stand_and_what_they_wait_for(graph: DecisionGraph) -> None:
    drawn = Drawn()
    where = {"project_id": drawn.node("Project", "pr", name="Shop"), "created_at": 1}
    drawn.node("Story", "st-b", title="B", state="BUILD", disposition="parked:budget", **where)
    drawn.node("Story", "st-a", title="A", state="BUILD", disposition="active", **where)
    drawn.node("Story", "st-d", title="D", state="DESIGN", disposition="active", **where)
    drawn.node("Story", "st-closed", title="C", state="DONE", disposition="closed", closed_at=5, **where)
    drawn.node("Story", "st-else", title="E", state="BUILD", disposition="active", project_id="pr-else", created_at=1)
    for name, status in (("ap-late", "requested"), ("ap-early", "requested"), ("ap-done", "granted")):
        asked = {"gate": "approve_plan", "role": "po", "status": status, "requested_at": 9 if name == "ap-late" else 2}
        drawn.node("Approval", name, **asked)
        drawn.changes.append(NodeChange("Approval", drawn.id(name), {"story_id": drawn.id("st-a")}))
    twin = await drawn.into(graph)
    rows = await graph.query("open_work", {"project_id": drawn.id("pr")})
    assert canonical(rows) == canonical(await twin.query("open_work", {"project_id": drawn.id("pr")}))
    assert [(drawn.short(row["id"]), row["parked"]) for row in rows] == [
        ("st-a", None),
        ("st-b", "budget"),
        ("st-d", None),
    ]
    assert [drawn.short(a["id"]) for a in rows[0]["pending"]] == ["ap-early", "ap-late"]
    assert [row["pending"] for row in rows[1:]] == [[], []]


@pytest.mark.rule("GR-1", "GR-85", "GR-86", "GR-90", "GR-93")
async def test_projected_events_are_answered_as_the_twin_does(graph: DecisionGraph) -> None:
    twin, part = MemoryGraph(), fresh()
    for where in (graph, twin):
        await project(where, sample_history("story", part))
    story = {"story_id": f"st-{part}cart7"}
    for name, params in (
        ("rehydration_pack", {**story, "role": "developer"}),
        ("report_data", story),
        ("task_blockers", story),
        ("orphans", story),
    ):
        assert canonical(await graph.query(name, params)) == canonical(await twin.query(name, params)), name


@pytest.mark.parametrize(
    ("name", "params", "error"),
    [
        ("rehydration_pack", {"story_id": "st-nobody", "role": "qa"}, NotFound),
        ("report_data", {"story_id": "st-nobody"}, NotFound),
        ("task_blockers", {"story_id": "st-nobody"}, NotFound),
        ("orphans", {"story_id": "st-nobody"}, NotFound),
        ("actor_activity", {"actor_id": "user:nobody"}, NotFound),
        ("open_work", {"project_id": "pr-nobody"}, NotFound),
        ("orphans", {"story_id": "st-nobody", "limit": 501}, InvalidInput),
        ("task_blockers", {"story_id": "st-nobody", "limit": 0}, InvalidInput),
        ("rehydration_pack", {"story_id": "st-nobody"}, InvalidInput),
    ],
)
async def test_wrong_id_or_bound_is_refused(
    graph: DecisionGraph, name: str, params: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await graph.query(name, params)
