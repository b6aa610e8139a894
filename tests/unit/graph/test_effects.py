"""Every event type has a graph effect or a mark that it has none, in names of the schema."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.events.codec import decode
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.registry import EVENT_TYPES
from fleet.events.story import StoryEdited
from fleet.events.task import TaskUpdated
from fleet.graph.batch import NodeKey
from fleet.graph.changes import NodeChange, RelationChange
from fleet.graph.effects.at import MAX_TEXT
from fleet.graph.effects.table import EFFECTS, NONE, effects
from fleet.graph.memory.graph import MemoryGraph
from fleet.graph.schema import NODES, schema_problems
from tests.support.event_samples import digest, samples
from tests.support.graphs import history, project, renamed, sample_history, stored

WITH_EFFECT = sorted(name for name, effect in EFFECTS.items() if effect != NONE)
STREAM = "story:st-cart7"


def with_effect(name: str) -> Payload:
    """The sample of a type, in the form that changes the graph."""
    payload = samples()[name]
    scope = {"scope": "story"} if "scope" in type(payload).model_fields else {}
    kept = {"kept": "new"} if name == "RepairReceived" else {}
    return payload.model_copy(update={**scope, **kept})


@pytest.mark.rule("EV-31")
def test_every_event_type_has_an_effect_or_the_mark_none() -> None:
    assert set(EFFECTS) == set(EVENT_TYPES)


@pytest.mark.rule("GR-1", "EV-31")
@pytest.mark.parametrize("name", WITH_EFFECT)
def test_effect_changes_something_in_names_of_the_schema(name: str) -> None:
    payload = with_effect(name)
    changes = effects(stored(payload, stream=STREAM, version=7), payload)
    assert changes
    assert [problem for change in changes for problem in schema_problems(change)] == []


@pytest.mark.parametrize("name", sorted(set(EFFECTS) - set(WITH_EFFECT)))
def test_type_marked_none_changes_nothing(name: str) -> None:
    payload = samples()[name]
    assert effects(stored(payload, stream=STREAM, version=7), payload) == ()


@pytest.mark.parametrize("name", ["StoryPaused", "StoryResumed"])
def test_pause_of_a_task_changes_nothing(name: str) -> None:
    payload = samples()[name].model_copy(update={"scope": "task"})
    assert effects(stored(payload, stream=STREAM, version=7), payload) == ()


@pytest.mark.rule("GR-2")
@pytest.mark.parametrize("name", WITH_EFFECT)
def test_described_node_names_its_version_and_its_story(name: str) -> None:
    payload = with_effect(name)
    nodes = [c for c in effects(stored(payload, stream=STREAM, version=7), payload) if isinstance(c, NodeChange)]
    shared = {"Actor", "Artifact"}
    for node in nodes:
        assert node.label in NODES
        if node.label not in shared:
            assert (node.props["v"], node.props["story_id"]) == (7, "st-cart7")


def streams() -> list[list[StoredEvent]]:
    return [
        sample_history("story", "a"),
        sample_history("story", "b"),
        sample_history("project"),
        sample_history("platform"),
    ]


async def projected(order: list[int], size: int) -> str:
    """Digest after each number in `order` projected the next `size` events of that stream, and then all the rest."""
    graph, left = MemoryGraph(), streams()
    for number in order:
        await project(graph, left[number][:size])
        left[number] = left[number][size:]
    for rest in left:
        await project(graph, rest)
    return await graph.digest()


@pytest.mark.rule("GR-3", "GR-5", "EV-21")
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(order=st.lists(st.integers(0, 3), max_size=30), size=st.integers(1, 9))
async def test_any_interleaving_of_streams_gives_the_same_graph(order: list[int], size: int) -> None:
    assert await projected(order, size) == await projected([], 200)


@pytest.mark.rule("GR-3")
async def test_node_is_a_stub_until_its_event_describes_it() -> None:
    graph = MemoryGraph()
    story = [samples()["StoryCreated"]]
    await project(graph, history(STREAM, story))
    epic = NodeKey("Epic", "ep-inbox")
    assert graph.nodes[epic] == {"id": "ep-inbox", "stub": True}
    await project(graph, history("project:pr-default", [samples()["EpicCreated"]]))
    assert graph.nodes[epic]["stub"] is False
    assert graph.nodes[epic]["title"] == "inbox"


@pytest.mark.rule("GR-8")
def test_long_text_is_stored_as_digest_and_its_start() -> None:
    payload = samples()["QuestionRaised"].model_copy(update={"text": "x" * (MAX_TEXT + 1)})
    node = effects(stored(payload, stream=STREAM, version=1), payload)[0]
    assert isinstance(node, NodeChange)
    assert len(node.props["text"]) == 500
    assert node.props["text_digest"].startswith("sha256:")


@pytest.mark.rule("GR-41")
async def test_edited_criteria_and_constraints_that_are_gone_keep_the_version_of_their_removal() -> None:
    edited = StoryEdited(
        changes={"acceptance_criteria": [{"ac_id": "ac-two2", "text": "new"}], "constraints": {"offline": True}},
        content_digest=digest("b"),
        previous_content_digest=digest("a"),
    )
    graph = MemoryGraph()
    await project(graph, history(STREAM, [samples()["StoryCreated"], edited]))
    marks = {key.end.id: props.get("removed_v") for key, props in graph.relations.items() if key.type.startswith("HAS")}
    assert marks == {
        "st-cart7/ac-one1": 2,
        "st-cart7/ac-two2": None,
        "st-cart7/max_new_dependencies": 2,
        "st-cart7/offline": None,
        "st-cart7/python": 2,
    }


@pytest.mark.rule("GR-60")
async def test_released_claim_ends_the_open_assignment_alone() -> None:
    claim, release = samples()["TaskClaimed"], samples()["TaskClaimReleased"]
    graph = MemoryGraph()
    await project(graph, history(STREAM, [claim, release, claim]))
    spans = [(p["v"], p.get("to") is None) for key, p in graph.relations.items() if key.type == "ASSIGNED_TO"]
    assert spans == [(1, False), (3, True)]


@pytest.mark.rule("GR-69")
async def test_blocker_is_removed_when_what_was_waited_for_is_done() -> None:
    done = samples()["TaskTransitioned"].model_copy(update={"action": "AUTO_COMPLETE", "to": "done"})
    graph = MemoryGraph()
    await project(graph, history(STREAM, [samples()["PlanStalled"], done]))
    (props,) = [props for key, props in graph.relations.items() if key.type == "BLOCKED_BY"]
    assert props == {"reason": "dependency is cancelled", "removed_v": 2}


@pytest.mark.rule("GR-46")
def test_updated_task_covers_the_criteria_it_now_names() -> None:
    payload = TaskUpdated(
        task_id=samples()["TaskUpdated"].model_dump()["task_id"], changes={"acceptance_refs": ["ac-1"]}
    )
    changes = effects(stored(payload, stream=STREAM, version=1), payload)
    assert [c.to_id for c in changes if isinstance(c, RelationChange)] == ["st-cart7/ac-1"]


@pytest.mark.rule("GR-48", "GR-67")
def test_task_that_serves_a_decision_or_an_incident_is_linked_to_it() -> None:
    added = samples()["TaskAdded"]
    payload = renamed(added, {"ac-one1": "de-one1"})
    other = renamed(added, {"ac-one1": "in-one1"})
    kinds = [
        {c.type for c in effects(stored(p, stream=STREAM, version=1), p) if isinstance(c, RelationChange)}
        for p in (payload, other)
    ]
    assert kinds == [{"HAS_TASK", "AFFECTS"}, {"HAS_TASK", "HANDLED_BY"}]


@pytest.mark.rule("GR-54")
@pytest.mark.parametrize(
    ("kind", "id", "expected"),
    [
        ("artifact", "sha256:" + "0" * 64, ("Artifact", "sha256:" + "0" * 64)),
        ("report", "rn-one1", ("Report", "rn-one1/report")),
        ("report", "rp-one1", ("Report", "rp-one1")),
    ],
)
def test_decision_is_based_on_the_evidence_it_names(kind: str, id: str, expected: tuple[str, str]) -> None:
    proposed = samples()["DecisionProposed"]
    data = proposed.model_dump(mode="json", by_alias=True) | {"based_on": [{"kind": kind, "id": id}]}
    payload = type(proposed).model_validate(data)
    found = effects(stored(payload, stream=STREAM, version=1), decode(stored(payload, stream=STREAM, version=1)))
    based = [c for c in found if isinstance(c, RelationChange) and c.type == "BASED_ON"]
    assert [(c.to_label, c.to_id) for c in based] == [expected]


@pytest.mark.rule("GR-58", "GR-65")
def test_subject_without_a_node_of_its_own_is_the_story() -> None:
    asked = samples()["ApprovalRequested"]
    data = asked.model_dump(mode="json", by_alias=True)
    payload = type(asked).model_validate(data | {"subject": {**data["subject"], "id": "step/1"}})
    (linked,) = [
        c for c in effects(stored(payload, stream=STREAM, version=1), payload) if isinstance(c, RelationChange)
    ]
    assert (linked.to_label, linked.to_id) == ("Story", "st-cart7")
