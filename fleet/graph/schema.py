"""The one schema of the decision graph: labels, properties, relationships, indexes (GR-1, GR-10..GR-69)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from fleet.graph.changes import GraphChange, NodeChange, RelationChange

PROJECTION_VERSION = 4
"""Version of the rules by which events become a graph; a graph of an older one is rebuilt (GR-7)."""


class Label(StrEnum):
    """Every node label (GR-10..GR-32)."""

    PROJECT = "Project"
    EPIC = "Epic"
    STORY = "Story"
    CRITERION = "Criterion"
    CONSTRAINT = "Constraint"
    PLAN_VERSION = "PlanVersion"
    TASK = "Task"
    DECISION = "Decision"
    COUNCIL = "Council"
    CANDIDATE = "Candidate"
    BALLOT = "Ballot"
    ACTOR = "Actor"
    APPROVAL = "Approval"
    RUN = "Run"
    REPORT = "Report"
    ARTIFACT = "Artifact"
    FILE = "File"
    QUESTION = "Question"
    MILESTONE = "Milestone"
    DEPLOYMENT = "Deployment"
    INCIDENT = "Incident"
    CEREMONY = "Ceremony"
    CURSOR = "Cursor"
    PROJECTION = "Projection"


class Rel(StrEnum):
    """Every relationship type (GR-40..GR-69)."""

    CONTAINS = "CONTAINS"
    HAS_CRITERION = "HAS_CRITERION"
    HAS_CONSTRAINT = "HAS_CONSTRAINT"
    HAS_PLAN = "HAS_PLAN"
    SUPERSEDES = "SUPERSEDES"
    HAS_TASK = "HAS_TASK"
    DEPENDS_ON = "DEPENDS_ON"
    COVERS = "COVERS"
    CONTAINS_DECISION = "CONTAINS_DECISION"
    HAS_DECISION = "HAS_DECISION"
    AFFECTS = "AFFECTS"
    GOVERNS = "GOVERNS"
    RELATES_TO = "RELATES_TO"
    AUTHORED_BY = "AUTHORED_BY"
    DECIDED_BY = "DECIDED_BY"
    RESULT_OF = "RESULT_OF"
    BASED_ON = "BASED_ON"
    CONSIDERED = "CONSIDERED"
    HAS_BALLOT = "HAS_BALLOT"
    CAST_BY = "CAST_BY"
    ABOUT = "ABOUT"
    RETRY_OF = "RETRY_OF"
    FOR = "FOR"
    REACHED = "REACHED"
    ASSIGNED_TO = "ASSIGNED_TO"
    REVIEWED_BY = "REVIEWED_BY"
    PART_OF = "PART_OF"
    EXECUTED_BY = "EXECUTED_BY"
    PRODUCED = "PRODUCED"
    ALLOWED_BY = "ALLOWED_BY"
    REPORTED = "REPORTED"
    EVIDENCE_FOR = "EVIDENCE_FOR"
    TOUCHED = "TOUCHED"
    ASKED_BY = "ASKED_BY"
    ANSWERED_BY = "ANSWERED_BY"
    DEPLOYED_AS = "DEPLOYED_AS"
    BY = "BY"
    IN = "IN"
    HANDLED_BY = "HANDLED_BY"
    REVIEWED = "REVIEWED"
    BLOCKED_BY = "BLOCKED_BY"


BOOKKEEPING = frozenset({Label.CURSOR, Label.PROJECTION})
"""Labels that the digest leaves out."""

COMMON = frozenset({"id", "project_id", "story_id", "v", "stub"})
"""Properties of every node (GR-2)."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Beside the properties of section 2 there are those that the named queries of section 4 return, and `x_digest` for a
# text `x` that is too long to be stored whole (GR-8).
NODES: Mapping[Label, frozenset[str]] = MappingProxyType(
    {
        Label.PROJECT: _names("name status default_rigor created_at"),
        Label.EPIC: _names("title status priority"),
        Label.STORY: _names(
            "title state disposition rigor lifecycle content_digest version created_at closed_at tree_digest"
        ),
        Label.CRITERION: _names("text text_digest position status waived_by waived_at"),
        Label.CONSTRAINT: _names("key value value_digest"),
        Label.PLAN_VERSION: _names(
            "version status author_id rationale rationale_digest digest content_digest created_at"
        ),
        Label.TASK: _names("title role kind state priority estimated_hours points risk created_at done_at tree_digest"),
        Label.DECISION: _names(
            "title rationale rationale_digest category status origin alternatives created_at decided_at decision_hash"
            " approval_id council_id"
        ),
        Label.COUNCIL: _names(
            "kind status outcome reason rule_version seed quorum tokens_total decided_in"
            " winner verdict estimate tally tally_digest counterfactuals counterfactuals_digest"
            " minority_report_digest decision_hash approval_id"
        ),
        Label.CANDIDATE: _names(
            "digest rank gates_ok trusted_passed trusted_total cluster_size diff_lines removed round lint_errors"
            " tree_digest failed_gates"
        ),
        Label.BALLOT: _names("round voter valid votes votes_digest ranking"),
        Label.ACTOR: _names("kind name model"),
        Label.APPROVAL: _names(
            "gate role status subject_kind subject_id subject_digest requested_at decided_at delegated"
            " notes notes_digest"
        ),
        Label.RUN: _names(
            "tool op kind outcome exit_code effect started_at finished_at tree_in tree_out rule_id as_role"
        ),
        Label.REPORT: _names("kind digest score verdict rigor tree_digest created_at"),
        Label.ARTIFACT: _names("digest size_bytes"),
        Label.FILE: _names("path last_tree"),
        Label.QUESTION: _names(
            "kind text text_digest severity status asked_at answered_at answer answer_digest about_kind about_id"
        ),
        Label.MILESTONE: _names("name ts ref"),
        Label.DEPLOYMENT: _names("environment status revision tree_digest at"),
        Label.INCIDENT: _names("severity summary summary_digest status opened_at closed_at"),
        Label.CEREMONY: _names("status opened_at completed_at"),
        Label.CURSOR: _names("stream h projection_version lock held"),
        Label.PROJECTION: _names("active wanted spare version spare_version comparison lock"),
    }
)
"""Properties of each label beyond COMMON."""


class RelationType(NamedTuple):
    """Which labels a relationship joins, and its properties (keys among them)."""

    ends: frozenset[tuple[Label, Label]]
    props: frozenset[str]


def _relation(ends: str, props: str = "") -> RelationType:
    """`A|B>C|D` joins each of A, B with each of C, D; several such groups are separated by spaces."""
    joined = [group.split(">") for group in ends.split()]
    pairs = frozenset((Label(a), Label(b)) for left, right in joined for a in left.split("|") for b in right.split("|"))
    return RelationType(pairs, _names(props))


RELATIONS: Mapping[Rel, RelationType] = MappingProxyType(
    {
        Rel.CONTAINS: _relation("Project>Epic Epic>Story"),
        Rel.HAS_CRITERION: _relation("Story>Criterion", "position removed_v"),
        Rel.HAS_CONSTRAINT: _relation("Story>Constraint", "position removed_v"),
        Rel.HAS_PLAN: _relation("Story>PlanVersion", "current"),
        Rel.SUPERSEDES: _relation("PlanVersion>PlanVersion Decision>Decision", "at"),
        Rel.HAS_TASK: _relation("PlanVersion>Task", "layer position"),
        Rel.DEPENDS_ON: _relation("Task>Task Decision>Decision", "plan_id inferred"),
        Rel.COVERS: _relation("Task>Criterion"),
        Rel.CONTAINS_DECISION: _relation("PlanVersion>Decision"),
        Rel.HAS_DECISION: _relation("Story>Decision"),
        Rel.AFFECTS: _relation("Decision>Task"),
        Rel.GOVERNS: _relation("Decision>Decision"),
        Rel.RELATES_TO: _relation("Decision>Decision"),
        Rel.AUTHORED_BY: _relation("Decision|Candidate>Actor", "at"),
        Rel.DECIDED_BY: _relation("Decision|Approval>Actor", "at as_role verdict"),
        Rel.RESULT_OF: _relation("Decision>Council"),
        Rel.BASED_ON: _relation("Decision>Report|Run|Artifact"),
        Rel.CONSIDERED: _relation("Council>Candidate", "winner"),
        Rel.HAS_BALLOT: _relation("Council>Ballot", "round"),
        Rel.CAST_BY: _relation("Ballot>Actor", "round"),
        Rel.ABOUT: _relation("Council>Story|Task Question>Story|Task|Decision"),
        Rel.RETRY_OF: _relation("Council>Council"),
        Rel.FOR: _relation("Approval>Story|Task|PlanVersion|Run|Council"),
        Rel.REACHED: _relation("Story>Milestone", "v"),
        Rel.ASSIGNED_TO: _relation("Task>Actor", "v from to"),
        Rel.REVIEWED_BY: _relation("Task>Actor", "v stage verdict at feedback_digest"),
        Rel.PART_OF: _relation("Run>Task"),
        Rel.EXECUTED_BY: _relation("Run>Actor"),
        Rel.PRODUCED: _relation("Run>Artifact", "path"),
        Rel.ALLOWED_BY: _relation("Run>Approval"),
        Rel.REPORTED: _relation("Run>Report"),
        Rel.EVIDENCE_FOR: _relation("Report>Criterion", "tests"),
        Rel.TOUCHED: _relation("Task>File", "v run_id change"),
        Rel.ASKED_BY: _relation("Question>Actor", "at"),
        Rel.ANSWERED_BY: _relation("Question>Actor", "at"),
        Rel.DEPLOYED_AS: _relation("Story>Deployment"),
        Rel.BY: _relation("Deployment>Run"),
        Rel.IN: _relation("Incident>Deployment"),
        Rel.HANDLED_BY: _relation("Incident>Task"),
        Rel.REVIEWED: _relation("Ceremony>Story", "as_role result po_notes_digest review_digest failed"),
        Rel.BLOCKED_BY: _relation("Task>Task|Question|Approval", "reason removed_v"),
    }
)
"""Every relationship type with its ends and properties."""


class Index(NamedTuple):
    """A range index over one or more properties of a label."""

    label: Label
    props: tuple[str, ...]

    @property
    def name(self) -> str:
        """`<label>_<properties>` in lower case."""
        return "_".join((self.label.lower(), *self.props))


INDEXES: tuple[Index, ...] = (
    Index(Label.STORY, ("state",)),
    Index(Label.STORY, ("project_id",)),
    Index(Label.TASK, ("story_id", "state")),
    Index(Label.DECISION, ("story_id", "status")),
    Index(Label.DECISION, ("category",)),
    Index(Label.DECISION, ("decided_at",)),
    Index(Label.QUESTION, ("story_id", "status")),
    Index(Label.APPROVAL, ("status",)),
    Index(Label.RUN, ("story_id", "started_at")),
    Index(Label.ACTOR, ("kind",)),
    Index(Label.FILE, ("path",)),
    # Beyond GR-33: what GR-87 and GR-88 start from.
    Index(Label.QUESTION, ("status",)),
    Index(Label.APPROVAL, ("story_id",)),
    # GR-86 and GR-93 list the councils of a story.
    Index(Label.COUNCIL, ("story_id",)),
)
"""Indexes beside the unique id of each label (GR-33)."""


def constraint_name(label: Label) -> str:
    """Name of the constraint that makes `id` unique within the label (GR-33)."""
    return f"{label.lower()}_id"


def schema_problems(change: GraphChange) -> list[str]:
    """What in this change the schema does not know; empty when it fits (GR-1)."""
    match change:
        case NodeChange():
            return _node_problems(change)
        case RelationChange():
            return _relation_problems(change)
        case _:
            is_in_schema = change.mark in RELATIONS[Rel(change.type)].props and change.label in NODES
            return [] if is_in_schema else [f"{change.type} of {change.label} has no {change.mark}"]


def _node_problems(change: NodeChange) -> list[str]:
    if change.label not in NODES:
        return [f"label {change.label}"]
    properties = NODES[Label(change.label)] | COMMON
    return [f"{change.label}.{name}" for name in sorted(change.props.keys() - properties)]


def _relation_problems(change: RelationChange) -> list[str]:
    if change.type not in RELATIONS:
        return [f"relationship {change.type}"]
    relation = RELATIONS[Rel(change.type)]
    problems = [f"{change.type}.{name}" for name in sorted((change.key.keys() | change.props.keys()) - relation.props)]
    if (change.from_label, change.to_label) not in relation.ends:
        problems.append(f"({change.from_label})-[:{change.type}]->({change.to_label})")
    return problems
