"""No named query of the decision graph walks through all nodes of a label: its plan starts from an index (GR-96)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from typing import Any, LiteralString, cast

import neo4j
import pytest

from fleet.graph.neo4j.queries import cypher_of
from fleet.graph.queries import plan_query
from tests.support.graphs import fresh, open_graph, project, sample_history
from tests.support.services import Neo4jAddress

ASKED: list[tuple[str, dict[str, Any]]] = [
    ("decision_trail", {"story_id": "st-cart7"}),
    ("decision_trail", {"task_id": "tk-save1"}),
    ("decision_trail", {"path": "shop/cart/store.py"}),
    ("decision_impact", {"decision_id": "de-base1"}),
    ("unanswered_questions", {"now_ms": 1}),
    ("unanswered_questions", {"now_ms": 1, "story_id": "st-cart7"}),
    ("who_approved", {"story_id": "st-cart7"}),
    ("council_record", {"council_id": "co-pick1"}),
    ("critical_decisions", {"story_id": "st-cart7"}),
    ("decision_cycles", {"story_id": "st-cart7"}),
    ("plan_layers", {"plan_id": "pv-k3v"}),
    ("path_history", {"path": "shop/cart/store.py"}),
    ("similar_decisions", {"category": "DATA"}),
    ("rehydration_pack", {"story_id": "st-cart7", "role": "developer"}),
    ("report_data", {"story_id": "st-cart7"}),
    ("task_blockers", {"story_id": "st-cart7"}),
    ("actor_activity", {"actor_id": "user:ana"}),
    ("orphans", {"story_id": "st-cart7"}),
    ("open_work", {"project_id": "pr-shop"}),
]
# A server says how it will go (EXPLAIN) or how it went (PROFILE), and either may leave the index out.
_SCAN = re.compile(r"AllNodesScan|NodeByLabelScan|MATCH NODE \(\w*:\w+\)(?! \[index)")
_INDEX = re.compile(r"\[index[:=]|Index(?:Seek|Scan)")


def plan_text(session: neo4j.Session, statement: str, params: dict[str, Any]) -> str:
    """What the server says of the run: operators of Neo4j, or the lines of ArcadeDB."""
    result = session.run(cast(LiteralString, f"PROFILE {statement}"), params)
    return "\n".join(lines_of(cast("dict[str, Any]", result.consume().profile or {})))


def lines_of(plan: dict[str, Any]) -> Iterator[str]:
    yield str(plan.get("operatorType", ""))
    yield str(plan.get("args", {}).get("string-representation", ""))
    for child in plan.get("children", []):
        yield from lines_of(child)


@pytest.fixture
async def filled(neo4j_address: Neo4jAddress) -> tuple[Neo4jAddress, str]:
    """A graph with one of everything, and the part that its ids have."""
    part = fresh()
    async with open_graph(neo4j_address) as graph:
        await project(graph, sample_history("story", part))
        await graph.query("decision_cycles", {"story_id": f"st-{part}cart7"})
    return neo4j_address, part


@pytest.mark.rule("GR-96")
async def test_every_named_query_starts_from_an_index(filled: tuple[Neo4jAddress, str]) -> None:
    address, part = filled
    scans: dict[str, str] = {}
    seen: set[str] = set()
    auth = (address.user, address.password)
    with neo4j.GraphDatabase.driver(address.uri, auth=auth) as driver, driver.session(database="neo4j") as session:
        for name, given in ASKED:
            params = {k: v.replace("-", f"-{part}", 1) if str(v)[2:3] == "-" else v for k, v in given.items()}
            plan = plan_query(name, params)
            for statement in plan.statements:
                text = plan_text(session, cypher_of(statement), plan.params)
                seen.add(statement)
                if _SCAN.search(text) or not _INDEX.search(text):
                    scans[statement] = text
    assert scans == {}, "\n".join(scans.values())
    assert len(seen) == 39


@pytest.mark.rule("GR-96")
def test_every_comprehension_starts_from_a_node_that_is_known() -> None:
    """A server may begin at the left end of its pattern: at every node of a label, once for each row."""
    statements = sorted(path.name for path in resources.files("fleet.graph.neo4j.queries").iterdir())
    found = [name for name in statements if name.endswith(".cypher")]
    assert len(found) == 39
    assert [name for name in found if re.search(r"\[\(\w*:\w+", cypher_of(name.removesuffix(".cypher")))] == []
