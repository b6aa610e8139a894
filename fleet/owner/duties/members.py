"""What a council asks of its members: the material they share, and one journaled call (CN-22, MB-12)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fleet.council.state import CouncilState
from fleet.events.council import CouncilOpened, RosterMember
from fleet.events.payload import Payload
from fleet.kernel.errors import ModelError, Retry
from fleet.kernel.ids import Digest, EntityId, Principal
from fleet.models.chat import AS_LONG_AS_FITS, Sampling
from fleet.models.port import AgentAnswer, AgentRequest, WorkKind
from fleet.models.replies.code_reply import TestLanguage
from fleet.owner.duties.texts import design_view, pack_text, refusals_text, source_paths, task_view
from fleet.owner.engineering.independent_tests import described_tree, language_of_tests
from fleet.owner.journal.steps import Seat, Work
from fleet.owner.tools.explore import Exploration, acting_of, explore
from fleet.owner.workbench import Workbench
from fleet.story.state import CouncilRecord, StoryState
from fleet.trees.service import read_tree

T = TypeVar("T")

_NEXT: Mapping[WorkKind, str] = {
    "draft": "The work that comes next: write the code that the task asks for{where}.",
    "propose": "The work that comes next: propose a design for the story.",
}
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
        json_schema=None,
        target_paths=(),
        new_paths=(),
    )
    exploration = await explore(bench, Exploration(f"{step}/act", asked, work, acts, tree))
    return replace(request, own="\n\n".join(part for part in (request.own, exploration.findings) if part))


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


@dataclass(frozen=True, slots=True)
class Sitting:
    """A council as it stands, with what all its members are shown."""

    bench: Workbench
    record: CouncilRecord
    state: CouncilState
    shared: str = ""
    asked: str = ""
    """The question of a council on request, which its voters see too; the story's own councils have none."""
    is_closing: bool = False
    """Its time or tokens are used: sessions hand in what they have, and nothing is started."""

    @property
    def opened(self) -> CouncilOpened:
        """What was fixed when the council opened."""
        return self.record.opened

    @property
    def council_id(self) -> EntityId:
        """The council's id, with which its steps begin."""
        return self.record.opened.council_id

    @property
    def is_code(self) -> bool:
        """Whether candidates are changes that can be executed."""
        return self.opened.output_kind == "code_patch"

    def seat(self, member_id: str) -> RosterMember:
        """The member of this id."""
        return next(m for m in self.opened.roster if m.member_id == member_id)

    async def load(self, digest: Digest) -> dict[str, Any]:
        """What a member delivered."""
        return json.loads(await self.bench.blobs.get(digest))

    async def say(self, name: str, *payloads: Payload, by: Principal) -> None:
        """The payloads are on record once, under this name; nothing is said in a council that a person ended."""
        await self.bench.journal.record(f"{self.council_id}/{name}", *payloads, actor=by, only_if=self._goes_on)

    def _goes_on(self, story: StoryState) -> bool:
        return story.councils[self.council_id].status == "IN_PROGRESS"


def unless_final(error: ModelError) -> None:
    """Nothing, when this reply stays as bad as it is; raises the error when asking again later may help."""
    if error.retry is Retry.LATER:
        raise error


async def usable(call: Awaitable[T]) -> T | None:
    """What the call gave; None when its reply stays as bad as it is. Raises what asking again later may mend."""
    try:
        return await call
    except ModelError as error:
        unless_final(error)
        return None


async def material(bench: Workbench, record: CouncilRecord) -> str:
    """What all members share of the repository, and of the task where there is one."""
    if record.opened.task_id is None:
        is_design = record.opened.output_kind == "design" and not record.is_advice
        return await design_view(bench) + (await refusals_text(bench) if is_design else "")
    task = bench.state.tasks[record.opened.task_id]
    paths = await task_paths(bench, record)
    lines = [f"Task: {task.task.title}", task.task.description]
    lines += [f"Rejected before because: {f}" for f in task.feedback[-2:]]
    return "\n".join(lines) + "\n\n" + await task_view(bench, paths)


_SEEDS_A_DRAW = 100
"""More than there are variants of a prompt."""


async def task_paths(bench: Workbench, record: CouncilRecord) -> tuple[str, ...]:
    """The files that this council's task is about: those it names, else those of the design, else of the story."""
    assert bench.state.tree is not None
    task_id = record.opened.task_id
    if task_id is not None and (named := bench.state.tasks[task_id].task.paths):
        return named
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
    max_tokens: int | None = None,
    temperature: str | None = None,
    draw: int = 0,
    language: TestLanguage | None = None,
) -> AgentAnswer:
    """The recorded answer of one member of the council; another `draw` is another answer to the same question."""
    request = await request_of(
        bench, record, member, kind, shared=shared, own=own, max_tokens=max_tokens, temperature=temperature, draw=draw
    )
    new_paths = await _new_paths(bench, target_paths)
    request = replace(request, json_schema=schema, target_paths=target_paths, new_paths=new_paths, language=language)
    work = work_of(record, member, kind)
    name = f"{record.opened.council_id}/{step}"
    return await bench.journal.ask(name, await explored(bench, request, work, step=name), work)


async def ask_tester(sitting: Sitting, member: RosterMember) -> AgentAnswer:
    """The recorded tests of somebody who sees story, interface and the code as it is, never a draft (CN-23)."""
    bench, tree = sitting.bench, sitting.opened.subject_digest
    language = await language_of_tests(bench, tree) if tree is not None and sitting.is_code else None
    parts = [_interface(bench)]
    if tree is not None and language is not None:
        parts.append(await described_tree(bench, tree, language))
    own = "\n\n".join(part for part in parts if part)
    return await ask_member(
        bench, sitting.record, member, "tests", step="tests", shared=sitting.shared, own=own, language=language
    )


def _interface(bench: Workbench) -> str:
    """Interface and examples that tests are written against."""
    lines: list[str] = []
    for decision in bench.state.decisions.values():
        if decision.proposed.category == "ARCHITECTURE" and decision.status == "ACCEPTED":
            lines = [decision.proposed.rationale]
    examples = bench.state.content.constraints.get("examples")
    if isinstance(examples, dict):
        lines.append(f"Import it with: {examples.get('import')}")  # pyright: ignore[reportUnknownMemberType]
    return "\n".join(lines)


async def request_of(
    bench: Workbench,
    record: CouncilRecord,
    member: RosterMember,
    kind: WorkKind,
    *,
    shared: str,
    own: str = "",
    max_tokens: int | None = None,
    temperature: str | None = None,
    draw: int = 0,
) -> AgentRequest:
    """What a member of the council is asked: what it may see of the story, what all share, and its own part."""
    phase = "DESIGN" if record.opened.task_id is None else "BUILD"
    pack = await pack_text(bench, member.role, phase, record.opened.task_id, as_of=record.opened_version)
    return AgentRequest(
        kind=kind,
        role=member.role,
        principal=member.principal,
        shared=f"{pack}\n\n{shared}",
        own=own,
        sampling=Sampling(
            temperature=temperature or member.temperature,
            max_tokens=max_tokens or AS_LONG_AS_FITS,
            seed=1 + member.prompt_variant + _SEEDS_A_DRAW * draw,
        ),
        model=bench.model,
        policy=None if member.model_policy == member.role else member.model_policy,
        variant=member.prompt_variant,
        persona=member.persona or "",
    )


def work_of(record: CouncilRecord, member: RosterMember, kind: WorkKind) -> Work:
    """What the steps of a member belong to when a model is asked for this kind of work."""
    return Work(
        seat=Seat(member.principal, member.role),
        tool="model",
        op=kind,
        task_id=record.opened.task_id,
        council_id=record.opened.council_id,
    )


async def _new_paths(bench: Workbench, paths: tuple[str, ...]) -> tuple[str, ...]:
    assert bench.state.tree is not None
    files = await read_tree(bench.blobs, bench.state.tree)
    return tuple(p for p in paths if p not in files)
