"""Gates that wait for people: one inbox over all stories, each with what its decider needs (AP-74, LC-79)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fleet.desk.planning import PlanningDesk
from fleet.desk.shown_text import shown_name
from fleet.events.codec import decode
from fleet.events.story import Finding
from fleet.events.workspace import WorkspaceReported, WorkspaceScored
from fleet.kernel.errors import ArtifactNotFound, NotFound
from fleet.kernel.ids import Digest, StoryId
from fleet.redaction.redact_json import redact_json
from fleet.report.councils import CouncilSummary, council_summaries
from fleet.story.approvals import deployment_digest
from fleet.story.state import Approval, StoryState
from fleet.trees.port import BlobStore
from fleet.trees.service import read_changes
from fleet.trees.tree import PathChange, changed_paths

MAX_FILES = 500


@dataclass(frozen=True, slots=True)
class StoryCost:
    """What the story has used so far; `cost_microusd` covers the calls that have a price."""

    tokens: int
    calls: int
    gpu_ms: int
    cost_microusd: int
    unpriced_tokens: int


@dataclass(frozen=True, slots=True)
class GateCouncil:
    """A council behind the subject, and what its losing side said."""

    summary: CouncilSummary
    minority: Any


# Source: LC-79.
@dataclass(frozen=True, slots=True)
class GateCard:
    """One approval with everything that its decider needs."""

    approval: Approval
    state: StoryState
    requested_ms: int
    status: str
    """As recorded; `voided` when its subject changed, `expired` also for a request that nobody answered in time."""
    card: dict[str, Any]
    """The card as it was recorded with the request."""
    task_title: str | None
    tree: Digest | None
    """What is decided about, for subjects that are or have a tree."""
    base: Digest | None
    """What it is to be compared with: the last tree of this gate that somebody decided about, else the base."""
    commit: str | None
    files: tuple[PathChange, ...]
    report: WorkspaceReported | None
    score: WorkspaceScored | None
    findings: tuple[Finding, ...]
    """Of the readiness score, at a gate about the story's text."""
    councils: tuple[GateCouncil, ...]
    feedback: tuple[str, ...]
    cost: StoryCost


class GateDesk:
    """Reads approvals from the log; deciding one is a command to the owner of its story."""

    def __init__(self, *, planning: PlanningDesk, blobs: BlobStore) -> None:
        self.planning, self._blobs = planning, blobs

    async def find(
        self, *, status: str | None = None, role: str | None = None, story_id: StoryId | None = None
    ) -> list[tuple[StoryState, Approval]]:
        """The approvals with this status and role, those that end first at the front."""
        states = await self.planning.states() if story_id is None else [await self.planning.state(story_id)]
        approvals = [(state, approval) for state in states for approval in state.approvals.values()]
        chosen = [
            (state, approval)
            for state, approval in approvals
            if (status is None or status_of(state, approval) == status)
            and (role is None or approval.request.role == role)
        ]
        return sorted(chosen, key=lambda pair: (pair[1].request.expires_at, pair[1].request.approval_id))

    async def story_of(self, approval_id: str) -> tuple[StoryState, Approval]:
        """The approval and its story. NotFound when no story has it."""
        for state in await self.planning.states():
            approval = state.approvals.get(approval_id)
            if approval is not None:
                return state, approval
        raise NotFound(f"there is no approval {approval_id!r}", approval_id=approval_id)

    async def card(self, state: StoryState, approval: Approval) -> GateCard:
        """Everything that the decider of this approval needs."""
        request = approval.request
        task = state.tasks.get(request.subject.id)
        tree = _tree_of(state, approval)
        base = _base_of(state, approval)
        score = state.scores.get(tree) if tree else None
        report = state.reports.get(tree) if tree else None
        text = request.subject.kind == "content" and state.score is not None
        asked = await self.planning.events(state.story_id, after=approval.requested_version - 1, limit=1)
        return GateCard(
            approval=approval,
            state=state,
            requested_ms=asked[0].ts_ms if asked else state.updated_ms,
            status=status_of(state, approval),
            card=await self._recorded(request.card_digest),
            task_title=task.task.title if task else None,
            tree=tree,
            base=base,
            commit=state.commit,
            files=await self._files(base, tree),
            report=report,
            score=score,
            findings=state.score.findings if text and state.score else (),
            councils=await self._councils(state, approval),
            feedback=task.feedback if task else (),
            cost=_cost(state),
        )

    async def _recorded(self, digest: Digest) -> dict[str, Any]:
        try:
            document: Any = redact_json(json.loads(await self._blobs.get(digest)))
        except (ArtifactNotFound, ValueError):
            return {}
        return document if isinstance(document, dict) else {}  # pyright: ignore[reportUnknownVariableType]

    async def _files(self, old: Digest | None, new: Digest | None) -> tuple[PathChange, ...]:
        if old is None or new is None or old == new:
            return ()
        try:
            before, after = await read_changes(self._blobs, old, new)
        except ArtifactNotFound:
            return ()
        changes = changed_paths(before, after)[:MAX_FILES]
        return tuple(PathChange(path=shown_name(one.path), change=one.change) for one in changes)

    async def _councils(self, state: StoryState, approval: Approval) -> tuple[GateCouncil, ...]:
        if not state.councils or approval.request.subject.kind == "content":
            return ()
        events = [(event, decode(event)) for event in await self.planning.events(state.story_id)]
        about = [c for c in council_summaries(events) if _concerns(c, approval)]
        return tuple([GateCouncil(c, await self._minority(c)) for c in about[-3:]])

    async def _minority(self, summary: CouncilSummary) -> Any:
        if summary.minority_report is None:
            return None
        return await self._recorded(Digest(summary.minority_report)) or None


def status_of(state: StoryState, approval: Approval) -> str:
    """As people read it: what a loop-back or the end of its story left behind has no effect; a no stays a no."""
    match approval.status:
        case "requested" if approval.voided or state.is_over:
            return "voided"
        case "granted" if approval.voided:
            return "voided"
        case status:
            return status


def _tree_of(state: StoryState, approval: Approval) -> Digest | None:
    subject = approval.request.subject
    match subject.kind:
        case "tree":
            return subject.digest
        case "docs" if state.docs is not None:
            return state.docs.tree
        case "report":
            return state.tree
        case "tree+environment" if state.tree and deployment_digest(subject.id, state.tree) == subject.digest:
            return state.tree
        case _:
            return None


def _base_of(state: StoryState, approval: Approval) -> Digest | None:
    if approval.request.gate == "task_acceptance":
        return state.tree
    before = [
        a
        for a in state.approvals.values()
        if a.request.gate == approval.request.gate
        and a.requested_version < approval.requested_version
        and a.status in ("granted", "rejected")
        and a.request.subject.kind == "tree"
    ]
    return before[-1].request.subject.digest if before else state.base_tree


def _concerns(council: CouncilSummary, approval: Approval) -> bool:
    subject = approval.request.subject
    if council.requested_by is not None:
        # Advice is about its question; it stands behind a gate only where it asks for one itself.
        return subject.kind == "object" and council.council_id == subject.id
    if approval.request.gate == "task_acceptance":
        return council.task_id == subject.id
    if subject.kind == "plan":
        return council.output_kind == "design"
    return subject.kind != "object" or council.council_id == subject.id


def _cost(state: StoryState) -> StoryCost:
    costs: Sequence[Any] = [step.finished.cost for step in state.steps.values() if step.finished is not None]
    return StoryCost(
        tokens=state.tokens,
        calls=state.calls,
        gpu_ms=sum(cost.gpu_ms for cost in costs),
        cost_microusd=sum(cost.cost_microusd or 0 for cost in costs),
        unpriced_tokens=sum(cost.tokens_in + cost.tokens_out for cost in costs if not cost.priced),
    )
