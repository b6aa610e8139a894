"""Fold of the story tree: its merges, its checkpoints, what was measured of a tree and written about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.plan import CheckpointSaved
from fleet.events.task import RestoreRequested, TreeMerged
from fleet.events.workspace import DimensionWaived, DocsProduced, WorkspaceReported, WorkspaceScored
from fleet.kernel.digest import digest_of_json
from fleet.story.approvals import is_tool_gate
from fleet.story.checkpoints import Restoration, TreeCheckpoint
from fleet.story.state import Approval, Docs, StoryState

_OF_TREES = ("tree", "docs", "report", "tree+environment")


def _merged(s: StoryState, p: TreeMerged, event: StoredEvent) -> StoryState:
    if p.task_id is None and s.base_tree is None:
        based = s.with_(base_tree=p.result_digest, base_commit=p.commit, packages=p.toolchain)
        return based.with_(tree=p.result_digest, commit=p.commit)
    if p.restored_from is not None:
        return _restored(s, p)
    task = s.tasks.get(p.task_id or "")
    author = task.author if task else event.actor
    authors = s.tree_authors if author is None or author in s.tree_authors else (*s.tree_authors, author)
    return s.with_(tree=p.result_digest, commit=p.commit, tree_authors=authors)


def _restored(s: StoryState, p: TreeMerged) -> StoryState:
    """The tree is an earlier one. Nobody became its author; consents to a tree, and requests for them, hold no more."""
    approvals = {k: replace(a, voided=True) if _is_about_a_tree(a) else a for k, a in s.approvals.items()}
    is_done = s.restoration is not None and s.restoration.checkpoint_id == p.restored_from
    restoration = None if is_done else s.restoration
    return s.with_(
        tree=p.result_digest,
        commit=p.commit,
        approvals=approvals,
        restoration=restoration,
        restored=s.restored + 1,
    )


def _is_about_a_tree(approval: Approval) -> bool:
    request = approval.request
    return not is_tool_gate(request.gate) and request.subject.kind in _OF_TREES


def _checkpoint(s: StoryState, p: CheckpointSaved, event: StoredEvent) -> StoryState:
    states: dict[str, str] = {task_id: state for task_id, state in p.task_states.items()}
    saved = TreeCheckpoint(
        checkpoint_id=p.checkpoint_id,
        version=event.version,
        ts_ms=event.ts_ms,
        tree=p.tree_digest,
        task_states=states,
        note=p.note,
    )
    return s.with_(checkpoints={**s.checkpoints, p.checkpoint_id: saved})


def _restore_requested(s: StoryState, p: RestoreRequested, _: StoredEvent) -> StoryState:
    number = s.restorations_asked + 1
    wanted = Restoration(checkpoint_id=p.checkpoint_id, by=p.by, reason=p.reason, number=number)
    return s.with_(restoration=wanted, restorations_asked=number)


def _reported(s: StoryState, p: WorkspaceReported, _: StoredEvent) -> StoryState:
    return s.with_(reports={**s.reports, p.tree_digest: p})


def _workspace_scored(s: StoryState, p: WorkspaceScored, _: StoredEvent) -> StoryState:
    return s.with_(scores={**s.scores, p.tree_digest: p})


def _dimension_waived(s: StoryState, p: DimensionWaived, _: StoredEvent) -> StoryState:
    return s.with_(waived_dimensions={**s.waived_dimensions, p.dimension: p})


def _docs(s: StoryState, p: DocsProduced, event: StoredEvent) -> StoryState:
    digest = digest_of_json([p.tree_digest, [[d.path, d.artifact_digest] for d in p.docs]])
    criteria: dict[str, tuple[str, ...]] = {k: tuple(v) for k, v in p.criteria.items()}
    return s.with_(docs=Docs(digest=digest, tree=p.tree_digest, criteria=criteria, version=event.version))


HANDLERS: Mapping[type[Payload], Callable[[StoryState, Any, StoredEvent], StoryState]] = {
    TreeMerged: _merged,
    CheckpointSaved: _checkpoint,
    RestoreRequested: _restore_requested,
    WorkspaceReported: _reported,
    WorkspaceScored: _workspace_scored,
    DimensionWaived: _dimension_waived,
    DocsProduced: _docs,
}
