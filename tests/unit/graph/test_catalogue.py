"""Labels and relationships of the graph are written with the properties that the catalogue names (GR-10..GR-68)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fleet.events.payload import Payload
from fleet.graph.changes import GraphChange, NodeChange, RelationChange
from fleet.graph.effects.table import EFFECTS, NONE, effects
from tests.support.event_samples import samples
from tests.support.graphs import stored

STREAM = "story:st-cart7"
LABELS = (
    ("GR-10", "Project", "name status default_rigor created_at"),
    ("GR-11", "Epic", "title status priority"),
    (
        "GR-12",
        "Story",
        "title state disposition rigor lifecycle content_digest version created_at closed_at tree_digest",
    ),
    ("GR-13", "Criterion", "text position status waived_by waived_at"),
    ("GR-14", "Constraint", "key value"),
    ("GR-15", "PlanVersion", "version status author_id rationale digest content_digest created_at"),
    ("GR-16", "Task", "title role kind state priority estimated_hours points risk created_at done_at tree_digest"),
    (
        "GR-17",
        "Decision",
        "title rationale category status origin alternatives created_at decided_at decision_hash",
    ),
    ("GR-18", "Council", "kind status outcome reason rule_version seed quorum tokens_total decided_in"),
    ("GR-19", "Candidate", "digest rank gates_ok trusted_passed trusted_total cluster_size diff_lines removed"),
    ("GR-20", "Ballot", "round voter valid votes ranking"),
    ("GR-21", "Actor", "kind name model"),
    ("GR-22", "Approval", "gate role status subject_digest requested_at decided_at delegated notes"),
    ("GR-23", "Run", "tool op kind outcome exit_code effect started_at finished_at tree_in tree_out rule_id"),
    ("GR-24", "Report", "kind digest score verdict rigor tree_digest created_at"),
    ("GR-26", "File", "path last_tree"),
    ("GR-27", "Question", "kind text severity status asked_at answered_at answer"),
    ("GR-28", "Milestone", "name ts ref"),
    ("GR-29", "Deployment", "environment status revision tree_digest at"),
    ("GR-30", "Incident", "severity summary status opened_at closed_at"),
    ("GR-31", "Ceremony", "status opened_at completed_at"),
)
RELATIONS = (
    ("GR-40", "EpicCreated", "Project CONTAINS Epic", ""),
    ("GR-40", "StoryCreated", "Epic CONTAINS Story", ""),
    ("GR-42", "PlanProposed", "Story HAS_PLAN PlanVersion", "current"),
    ("GR-42", "PlanAdopted", "Story HAS_PLAN PlanVersion", "current"),
    ("GR-43", "PlanAdopted", "PlanVersion SUPERSEDES PlanVersion", ""),
    ("GR-44", "PlanProposed", "PlanVersion HAS_TASK Task", "layer position"),
    ("GR-44", "TaskAdded", "PlanVersion HAS_TASK Task", ""),
    ("GR-45", "PlanProposed", "Task DEPENDS_ON Task", "plan_id inferred"),
    ("GR-47", "DecisionProposed", "PlanVersion CONTAINS_DECISION Decision", ""),
    ("GR-47", "DecisionProposed", "Story HAS_DECISION Decision", ""),
    ("GR-51", "DecisionProposed", "Decision AUTHORED_BY Actor", "at"),
    ("GR-52", "DecisionAccepted", "Decision DECIDED_BY Actor", "at as_role verdict"),
    ("GR-52", "DecisionRejected", "Decision DECIDED_BY Actor", "at as_role verdict"),
    ("GR-53", "CouncilDecided", "Decision RESULT_OF Council", ""),
    ("GR-55", "EvidenceRecorded", "Council CONSIDERED Candidate", ""),
    ("GR-55", "CouncilDecided", "Council CONSIDERED Candidate", "winner"),
    ("GR-55", "DraftReceived", "Candidate AUTHORED_BY Actor", ""),
    ("GR-56", "BallotCast", "Council HAS_BALLOT Ballot", "round"),
    ("GR-56", "BallotCast", "Ballot CAST_BY Actor", ""),
    ("GR-57", "CouncilOpened", "Council ABOUT Task", ""),
    ("GR-57", "CouncilOpened", "Council RETRY_OF Council", ""),
    ("GR-57", "CouncilOpened of a story", "Council ABOUT Story", ""),
    ("GR-59", "StoryTransitioned", "Story REACHED Milestone", "v"),
    ("GR-59", "PlanAdopted", "Story REACHED Milestone", "v"),
    ("GR-59", "ApprovalGranted", "Story REACHED Milestone", "v"),
    ("GR-59", "DeploymentRecorded", "Story REACHED Milestone", "v"),
    ("GR-61", "TaskTransitioned", "Task REVIEWED_BY Actor", "stage verdict at feedback_digest"),
    ("GR-62", "StepStarted", "Run PART_OF Task", ""),
    ("GR-62", "StepStarted", "Run EXECUTED_BY Actor", ""),
    ("GR-62", "StepFinished", "Run PRODUCED Artifact", ""),
    ("GR-62", "StepStarted", "Run ALLOWED_BY Approval", ""),
    ("GR-63", "WorkspaceReported", "Run REPORTED Report", ""),
    ("GR-63", "DocsProduced", "Report EVIDENCE_FOR Criterion", "tests"),
    ("GR-66", "DeploymentRecorded", "Story DEPLOYED_AS Deployment", ""),
    ("GR-66", "DeploymentRecorded", "Deployment BY Run", ""),
    ("GR-68", "CeremonyStoryReviewed", "Ceremony REVIEWED Story", ""),
    ("GR-68", "CeremonyStoryDecided", "Ceremony REVIEWED Story", "result po_notes_digest"),
)


TALLY = {"ranking": ["cd-aaa1", "cd-bbb2"], "removed": [{"candidate_id": "cd-ccc3", "why": "vetoed"}]}


def changes_of(payload: Payload) -> tuple[GraphChange, ...]:
    return effects(stored(payload, stream=STREAM, version=7), payload)


def variants(name: str) -> Iterator[Payload]:
    """The sample of a type, and the forms of it that change something else in the graph."""
    payload = samples()[name]
    yield payload.model_copy(update={"scope": "story"}) if "scope" in type(payload).model_fields else payload
    if name == "TaskTransitioned":
        yield payload.model_copy(update={"to": "done"})
    if name == "CouncilDecided":
        yield payload.model_copy(update={"tally": TALLY})


@pytest.mark.parametrize(
    ("label", "props"), [pytest.param(*row[1:], marks=pytest.mark.rule(row[0]), id=row[1]) for row in LABELS]
)
def test_events_write_every_property_of_a_label(label: str, props: str) -> None:
    written = {
        prop
        for name, effect in EFFECTS.items()
        if effect != NONE
        for payload in variants(name)
        for change in changes_of(payload)
        if isinstance(change, NodeChange) and change.label == label
        for prop in change.props
    }
    assert set(props.split()) <= written


@pytest.mark.parametrize(
    ("event", "joined", "props"),
    [pytest.param(*row[1:], marks=pytest.mark.rule(row[0]), id=f"{row[1]}: {row[2]}") for row in RELATIONS],
)
def test_event_joins_these_labels(event: str, joined: str, props: str) -> None:
    name, _, about_story = event.partition(" ")
    payload = samples()[name].model_copy(update={"task_id": None} if about_story else {})
    start, kind, end = joined.split()
    found = [
        {*change.key, *change.props}
        for change in changes_of(payload)
        if isinstance(change, RelationChange)
        and (change.from_label, change.type, change.to_label) == (start, kind, end)
    ]
    assert found
    assert all(set(props.split()) <= one for one in found)


@pytest.mark.rule("GR-49")
@pytest.mark.parametrize("name", ["DecisionProposed", "DecisionLinked"])
@pytest.mark.parametrize("rel", ["DEPENDS_ON", "GOVERNS", "RELATES_TO"])
def test_link_between_decisions_is_an_edge_of_its_kind(name: str, rel: str) -> None:
    payload = samples()[name]
    (first, *_) = payload.links  # type: ignore[attr-defined]
    linked = payload.model_copy(update={"links": (first.model_copy(update={"rel": rel}),)})
    edges = [
        (c.type, c.to_id)
        for c in changes_of(linked)
        if isinstance(c, RelationChange) and (c.from_label, c.to_label) == ("Decision", "Decision")
    ]
    assert edges == [(rel, first.decision_id)]


@pytest.mark.rule("GR-19")
def test_decided_council_says_where_each_candidate_came_and_which_were_taken_out() -> None:
    payload = samples()["CouncilDecided"].model_copy(update={"tally": TALLY})
    found = {
        change.id: {name: change.props.get(name) for name in ("rank", "removed")}
        for change in changes_of(payload)
        if isinstance(change, NodeChange) and change.label == "Candidate"
    }
    assert found == {
        "cd-aaa1": {"rank": 1, "removed": None},
        "cd-bbb2": {"rank": 2, "removed": None},
        "cd-ccc3": {"rank": None, "removed": "vetoed"},
    }


@pytest.mark.rule("GR-19")
@pytest.mark.parametrize("tally", [{}, {"ranking": 3, "removed": "x"}, {"removed": [7, {"why": "vetoed"}]}])
def test_tally_without_places_says_nothing_of_candidates(tally: dict[str, object]) -> None:
    payload = samples()["CouncilDecided"].model_copy(update={"tally": tally})
    assert not [c for c in changes_of(payload) if isinstance(c, NodeChange) and c.label == "Candidate"]


@pytest.mark.rule("GR-25")
def test_artifact_is_its_digest_and_size_and_each_run_says_what_it_is_to_it() -> None:
    changes = changes_of(samples()["StepFinished"])
    (node,) = (c for c in changes if isinstance(c, NodeChange) and c.label == "Artifact")
    (edge,) = (c for c in changes if isinstance(c, RelationChange) and c.to_label == "Artifact")
    assert (node.id, node.props["digest"]) == (edge.to_id, node.id)
    assert isinstance(node.props["size_bytes"], int)
    assert "path" in {*edge.props, *edge.key}


@pytest.mark.rule("GR-64")
def test_merge_says_which_files_its_task_touched_and_how() -> None:
    payload = samples()["TreeMerged"]
    edges = [c for c in changes_of(payload) if isinstance(c, RelationChange) and c.type == "TOUCHED"]
    assert [c.props["change"] for c in edges] == [file.change for file in payload.files]  # type: ignore[attr-defined]
    assert {(c.from_label, c.to_label) for c in edges} == {("Task", "File")}
    assert {c.key["v"] for c in edges} == {7}
    run = payload.step_id  # type: ignore[attr-defined]
    assert {c.props["run_id"] for c in edges} == {f"st-cart7/{run}"}
    old = changes_of(payload.model_copy(update={"step_id": None}))
    touched = [c for c in old if isinstance(c, RelationChange) and c.type == "TOUCHED"]
    assert touched
    assert not any("run_id" in c.props for c in touched), "a history from before does not name it"
