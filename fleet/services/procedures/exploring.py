"""Members of a council that look around with tools before they draft, where their role is configured to (`acts`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fleet.ids import Digest, EntityId
from fleet.ports import AgentRequest, WorkKind
from fleet.services.acting import Exploration, acting_of, explore
from fleet.services.code_view import read_tree
from fleet.services.journal import Work
from fleet.services.workbench import Workbench

__all__ = ["explored"]

_NEXT: Mapping[WorkKind, str] = {
    "draft": "The work that comes next: write the code that the task asks for{where}.",
    "propose": "The work that comes next: propose a design for the story.",
}
_MAX_TOKENS = 400
_MAX_PATHS = 100


async def explored(bench: Workbench, request: AgentRequest, work: Work, *, step: str) -> AgentRequest:
    """The request with what the member found; the very same one where its role does not look around.

    Args:
        step: name of the step that the request is for; those of the exploration are named below it.
    """
    acts = acting_of(bench, work.seat.role)
    if acts is None or request.kind not in _NEXT or _was_asked_without(bench, step):
        return request
    where = f" in {', '.join(request.target_paths[:5])}" if request.target_paths else ""
    tree = _tree(bench, work)
    asked = replace(
        request,
        kind="act",
        own=f"{_NEXT[request.kind].format(where=where)}\n\n{await _listing(bench, tree)}",
        sampling=request.sampling.model_copy(update={"max_tokens": _MAX_TOKENS}),
        json_schema=None,
        target_paths=(),
        new_paths=(),
    )
    found = await explore(bench, Exploration(f"{step}/act", asked, work, acts, tree))
    return replace(request, own="\n\n".join(part for part in (request.own, found.findings) if part))


async def _listing(bench: Workbench, tree: Digest) -> str:
    """The first files of the repository; it saves every agent the call with which it would begin."""
    paths = sorted(await read_tree(bench.blobs, tree))
    more = [f"... and {len(paths) - _MAX_PATHS} more"] if len(paths) > _MAX_PATHS else []
    return "\n".join(["Files of the repository:", *paths[:_MAX_PATHS], *more])


def _was_asked_without(bench: Workbench, step: str) -> bool:
    """The work itself was asked for before the role was configured to look around."""
    return step in bench.state.steps and f"{step}/act/1" not in bench.state.steps


def _tree(bench: Workbench, work: Work) -> Digest:
    """What the council is about: for a task the tree that it was opened on, which later merges leave as it is."""
    assert bench.state.tree is not None
    if work.task_id is None:
        return bench.state.tree
    return bench.state.councils[work.council_id or EntityId("")].opened.subject_digest or bench.state.tree
