"""Calls of tools and runs that people and agents asked for within a story: which steps they are, what they need."""

from __future__ import annotations

from typing import Literal

from fleet.kernel.ids import Digest, EntityId, Principal
from fleet.story.state import Step, StoryState

_PREFIXES = ("tool/", "run/")
Due = Literal["carry_out", "declare_unknown", "conclude"]


def asked_steps(state: StoryState) -> tuple[Step, ...]:
    """Every step that somebody asked for, oldest first; the others are those of the story's own procedures."""
    return tuple(step for name, step in state.steps.items() if name.startswith(_PREFIXES))


def open_asked_steps(state: StoryState) -> tuple[Step, ...]:
    """Those of them that have no result."""
    return tuple(step for step in asked_steps(state) if step.finished is None)


def due_of(step: Step, *, epoch: int, is_dispatched: bool) -> Due | None:
    """What the owner of this epoch has to do about an asked step. None when nothing, or when a person has to.

    PURE and KEYED ones are carried out, again if need be, under their one key. An UNSAFE one of an earlier epoch was
    perhaps sent: it is never repeated, and somebody has to say what came of it (RC-52).

    Args:
        is_dispatched: this owner has begun to carry it out.
    """
    if step.finished is not None:
        return None
    if step.resolution == "not_happened":
        return "conclude"
    if step.unknown is not None or is_dispatched:
        return None
    return "declare_unknown" if step.started.effect == "UNSAFE" and step.epoch != epoch else "carry_out"


def session_steps(state: StoryState, session_id: str) -> tuple[Step, ...]:
    """The calls of one session, oldest first."""
    prefix = f"tool/{session_id}/"
    return tuple(step for name, step in state.steps.items() if name.startswith(prefix))


def session_tree(state: StoryState, session_id: str, task_id: EntityId | None) -> Digest | None:
    """The workspace of a session now: what its last finished call left, else that of its task, else the story's."""
    for step in reversed(session_steps(state, session_id)):
        if step.finished is not None and step.finished.provenance.tree_out_digest is not None:
            return step.finished.provenance.tree_out_digest
    return base_tree(state, task_id)


def base_tree(state: StoryState, task_id: EntityId | None) -> Digest | None:
    """What a session begins with: the work of its task that is under review, else the tree of the story."""
    task = state.tasks.get(task_id or "")
    return task.candidate_tree if task is not None and task.candidate_tree is not None else state.tree


def known_trees(state: StoryState) -> frozenset[Digest]:
    """Every tree that belongs to the story: a run over any other would read what the story was not given."""
    found = {state.base_tree, state.tree, *(task.candidate_tree for task in state.tasks.values())}
    for step in state.steps.values():
        if step.finished is not None:
            found.add(step.finished.provenance.tree_out_digest)
    return frozenset(tree for tree in found if tree is not None)


def claimed_by(state: StoryState, task_id: EntityId | None, *, now_ms: int) -> Principal | None:
    """Who has the task now; None when nobody has."""
    task = state.tasks.get(task_id or "")
    claim = task.claim if task is not None else None
    return claim.principal if claim is not None and claim.expires_at_ms > now_ms else None
