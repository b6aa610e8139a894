"""What a council asks of its members: the material they share, and one journaled call (CN-22, MB-12)."""

from __future__ import annotations

import json
from typing import Any

from fleet.events import RosterMember
from fleet.models import Sampling
from fleet.ports import AgentAnswer, AgentRequest, WorkKind
from fleet.services.code_view import read_tree
from fleet.services.journal import Seat, Work
from fleet.services.procedures.exploring import explored
from fleet.services.procedures.texts import design_view, pack_text, source_paths, task_view
from fleet.services.workbench import Workbench
from fleet.story import CouncilRecord

__all__ = ["ask_member", "material", "task_paths"]


async def material(bench: Workbench, record: CouncilRecord) -> str:
    """What all members share of the repository, and of the task where there is one."""
    if record.opened.task_id is None:
        return await design_view(bench)
    task = bench.state.tasks[record.opened.task_id]
    paths = await task_paths(bench, record)
    lines = [f"Task: {task.task.title}", task.task.description]
    lines += [f"Rejected before because: {f}" for f in task.feedback[-2:]]
    return "\n".join(lines) + "\n\n" + await task_view(bench, paths)


_SEEDS_A_DRAW = 100
"""More than there are variants of a prompt."""


async def task_paths(bench: Workbench, record: CouncilRecord) -> tuple[str, ...]:
    """The files that work on this council's task may change: those of the accepted design, else of the story."""
    assert bench.state.tree is not None
    allowed = await source_paths(bench, bench.state.tree)
    for decision in reversed(list(bench.state.decisions.values())):
        council = bench.state.councils.get(decision.proposed.council_id or "")
        if decision.proposed.category == "ARCHITECTURE" and council is not None and council.winner is not None:
            value = json.loads(await bench.blobs.get(council.chosen.digest))
            return (str(value["path"]),)
    return allowed


async def ask_member(
    bench: Workbench,
    record: CouncilRecord,
    member: RosterMember,
    kind: WorkKind,
    *,
    step: str,
    shared: str,
    own: str = "",
    schema: dict[str, Any] | None = None,
    target_paths: tuple[str, ...] = (),
    max_tokens: int = 800,
    temperature: str | None = None,
    draw: int = 0,
) -> AgentAnswer:
    """The recorded answer of one member of the council; another `draw` is another answer to the same question."""
    phase = "DESIGN" if record.opened.task_id is None else "BUILD"
    pack = await pack_text(bench, member.role, phase, record.opened.task_id, as_of=record.opened_version)
    request = AgentRequest(
        kind=kind,
        role=member.role,
        principal=member.principal,
        shared=f"{pack}\n\n{shared}",
        own=own,
        sampling=Sampling(
            temperature=temperature or member.temperature,
            max_tokens=max_tokens,
            seed=1 + member.prompt_variant + _SEEDS_A_DRAW * draw,
        ),
        model=bench.model,
        policy=None if member.model_policy == member.role else member.model_policy,
        json_schema=schema,
        variant=member.prompt_variant,
        persona=member.persona or "",
        target_paths=target_paths,
        new_paths=await _new_paths(bench, target_paths),
    )
    work = Work(
        seat=Seat(member.principal, member.role),
        tool="model",
        op=kind,
        task_id=record.opened.task_id,
        council_id=record.opened.council_id,
    )
    name = f"{record.opened.council_id}/{step}"
    return await bench.journal.ask(name, await explored(bench, request, work, step=name), work)


async def _new_paths(bench: Workbench, paths: tuple[str, ...]) -> tuple[str, ...]:
    assert bench.state.tree is not None
    files = await read_tree(bench.blobs, bench.state.tree)
    return tuple(p for p in paths if p not in files)
