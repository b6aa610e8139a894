"""A decision graph as large as the one of a busy company: stories of more than 100 nodes and 300 relationships each."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fleet.events.envelope import GENESIS_HASH
from fleet.graph.changes import Cursor, GraphChange, NodeChange, RelationChange
from fleet.graph.port import DecisionGraph
from fleet.kernel.ids import StreamId

_AT_ONCE = 5
"""Stories that are written in one transaction."""
_ACTORS, _FILES = 100, 2_000
_CATEGORIES = ("ARCHITECTURE", "SECURITY", "QUALITY", "DATA", "IMPLEMENTATION")
_STATES = ("BUILD", "TEST", "DONE", "DONE", "DESIGN")


@dataclass(frozen=True, slots=True)
class LargeGraph:
    """How much was written, and ids that may be asked for."""

    nodes: int
    relations: int
    stories: tuple[str, ...]

    def params(self, number: int) -> dict[str, Any]:
        """The ids of one story and of things in it."""
        part = f"bench{number % len(self.stories)}"
        return {
            "story_id": f"st-{part}",
            "plan_id": f"pv-{part}",
            "decision_id": f"de-{part}-0",
            "task_id": f"tk-{part}-1",
            "path": f"src/module{number * 25 % _FILES}.py",
            "council_id": f"co-{part}",
            "role": "developer",
            "now_ms": 1_000,
        }


async def fill(graph: DecisionGraph, *, stories: int) -> LargeGraph:
    """The graph holds so many stories more."""
    nodes, relations = set[tuple[str, str]](), 0
    for start in range(0, stories, _AT_ONCE):
        changes = [change for n in range(start, min(start + _AT_ONCE, stories)) for change in _story(n)]
        nodes |= {(c.label, c.id) for c in changes if isinstance(c, NodeChange)}
        relations += sum(isinstance(c, RelationChange) for c in changes)
        reached = Cursor(1, "1" * 64)
        await graph.apply(
            StreamId.of_story(f"st-bench{start}"), changes, expected=Cursor(0, GENESIS_HASH), reached=reached
        )
        if start % 100 == 0:
            print(f"\r  {start} of {stories} stories in the graph ", end="", file=sys.stderr, flush=True)
        await asyncio.sleep(0)
    print(file=sys.stderr)
    return LargeGraph(len(nodes), relations, tuple(f"st-bench{n}" for n in range(stories)))


def _story(number: int) -> Sequence[GraphChange]:
    drawn = _Drawn(number)
    story, part = drawn.story, drawn.part
    drawn.node("Story", story, title=f"Story {number}", state=_STATES[number % 5], disposition="active", created_at=1)
    plan = drawn.node("PlanVersion", f"pv-{part}", version=1, status="adopted", created_at=2)
    drawn.link("HAS_PLAN", ("Story", story), ("PlanVersion", plan), current=True)
    for n in range(4):
        drawn.node("Criterion", f"ac-{part}-{n}", text=f"Criterion {n}", position=n, status="open")
        drawn.link("HAS_CRITERION", ("Story", story), ("Criterion", f"ac-{part}-{n}"), position=n)
    for n in range(25):
        _task(drawn, plan, n)
    for n in range(20):
        _decision(drawn, plan, n)
    for n in range(30):
        run = drawn.node("Run", f"rn-{part}-{n}", tool="tests", kind="run", outcome="succeeded", started_at=n)
        drawn.link("PART_OF", ("Run", run), ("Task", f"tk-{part}-{n % 25}"))
        drawn.link("EXECUTED_BY", ("Run", run), drawn.actor(n))
    for n in range(9):
        question = drawn.node(
            "Question", f"qu-{part}-{n}", text="What is meant?", kind="question", severity="normal",
            status="answered" if (number + n) % 50 else "open", asked_at=n,
        )  # fmt: skip
        drawn.link("ABOUT", ("Question", question), ("Story", story))
        drawn.link("ASKED_BY", ("Question", question), drawn.actor(n))
    for n in range(8):
        approval = drawn.node(
            "Approval", f"ap-{part}-{n}", gate="approve_design", role="po", requested_at=n, decided_at=n + 1,
            status="granted" if (number + n) % 50 else "requested",
        )  # fmt: skip
        drawn.link("FOR", ("Approval", approval), ("Story", story))
        drawn.link("DECIDED_BY", ("Approval", approval), drawn.actor(n), as_role="po", at=n)
    _council(drawn)
    return drawn.changes


def _council(drawn: _Drawn) -> None:
    part = drawn.part
    council = drawn.node("Council", f"co-{part}", kind="selection", status="DECIDED", rule_version="1", opened_at=1)
    drawn.link("ABOUT", ("Council", council), ("Story", drawn.story))
    for n in range(3):
        candidate = drawn.node("Candidate", f"cd-{part}-{n}", round=1, gates_ok=True, cluster_size=1)
        drawn.link("CONSIDERED", ("Council", council), ("Candidate", candidate), winner=n == 0)
        ballot = drawn.node("Ballot", f"ba-{part}-{n}", round=1, valid=True, votes="{}")
        drawn.link("HAS_BALLOT", ("Council", council), ("Ballot", ballot), round=1)


def _task(drawn: _Drawn, plan: str, n: int) -> None:
    part = drawn.part
    task = drawn.node(
        "Task", f"tk-{part}-{n}", title=f"Task {n}", role="developer", kind="code", priority=n, created_at=n,
        state="done" if n < 20 else "todo",
    )  # fmt: skip
    drawn.link("HAS_TASK", ("PlanVersion", plan), ("Task", task), layer=n // 5, position=n)
    drawn.link("COVERS", ("Task", task), ("Criterion", f"ac-{part}-{n % 4}"))
    if n:
        drawn.link("DEPENDS_ON", ("Task", task), ("Task", f"tk-{part}-{n // 2}"), plan_id=plan)
    path = f"src/module{(drawn.number * 25 + n) % _FILES}.py"
    drawn.changes.append(NodeChange("File", f"fi-{path}", {"stub": False, "path": path}))
    drawn.link("TOUCHED", ("Task", task), ("File", f"fi-{path}"), v=n, change="modified")


def _decision(drawn: _Drawn, plan: str, n: int) -> None:
    part = drawn.part
    decision = drawn.node(
        "Decision", f"de-{part}-{n}", title=f"Decision {n}", rationale="Because it is simpler to read and to change.",
        category=_CATEGORIES[n % 5], status="ACCEPTED", origin="agent", created_at=n, decided_at=n + 1,
    )  # fmt: skip
    drawn.link("HAS_DECISION", ("Story", drawn.story), ("Decision", decision))
    drawn.link("CONTAINS_DECISION", ("PlanVersion", plan), ("Decision", decision))
    drawn.link("AUTHORED_BY", ("Decision", decision), drawn.actor(n), at=n)
    drawn.link("DECIDED_BY", ("Decision", decision), drawn.actor(n + 1), at=n + 1, as_role="po", verdict="accepted")
    drawn.link("AFFECTS", ("Decision", decision), ("Task", f"tk-{part}-{n}"))
    drawn.link("BASED_ON", ("Decision", decision), ("Run", f"rn-{part}-{n}"))
    if n:
        drawn.link("DEPENDS_ON", ("Decision", decision), ("Decision", f"de-{part}-{n // 3}"))


class _Drawn:
    """The changes of one story."""

    def __init__(self, number: int) -> None:
        self.number, self.part = number, f"bench{number}"
        self.story = f"st-{self.part}"
        self.changes: list[GraphChange] = []

    def node(self, label: str, id: str, **props: Any) -> str:
        common = {"stub": False, "story_id": self.story, "project_id": f"pr-bench{self.number % 10}", "v": 1}
        self.changes.append(NodeChange(label, id, {**common, **props}))
        return id

    def link(self, kind: str, start: tuple[str, str], end: tuple[str, str], **props: Any) -> None:
        key = {name: props.pop(name) for name in ("plan_id", "v") if name in props}
        self.changes.append(RelationChange(kind, *start, *end, key=key, props=props))

    def actor(self, n: int) -> tuple[str, str]:
        """One of the people and agents that all stories share."""
        name = f"agent:developer-{(self.number + n) % _ACTORS:03d}"
        self.changes.append(NodeChange("Actor", name, {"stub": False, "kind": "agent", "name": name}))
        return "Actor", name
