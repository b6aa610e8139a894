"""What the owner reads before a command is decided: each function gathers what one kind of command needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from fleet.context.scope import scopes_for
from fleet.kernel.errors import ArtifactNotFound, PolicyDenied
from fleet.kernel.ids import Digest
from fleet.models.profiles import ModelsConfig
from fleet.models.prompts.pack_readers import PackReaders
from fleet.owner.council_pools import council_rules, sitting_roles
from fleet.owner.duties.advice import kept_request
from fleet.owner.tools.decisions import preview_of
from fleet.owner.workbench import Workbench
from fleet.planning.project_state import ProjectState
from fleet.policy.rules.calls import Denied, NeedsApproval
from fleet.policy.runs.spec import RunSpec
from fleet.story.commands.calls import CancelFacts, CancelRun, InvokeTool, StartRun, ToolFacts
from fleet.story.commands.command import Facts
from fleet.story.commands.councils import CouncilFacts, RejectCouncil, RequestCouncil
from fleet.story.commands.interventions import StartFacts
from fleet.story.commands.text import CreateStory, CreationFacts

ProjectOf = Callable[[str], Awaitable[ProjectState]]


@dataclass(frozen=True, slots=True)
class Configured:
    """What this fleet was started with that commands are decided on; see `CommandHandler`."""

    projects: ProjectOf
    config: Mapping[str, Digest]
    readers: PackReaders | None
    models: ModelsConfig | None
    absent_engines: frozenset[str]


async def gather_creation(configured: Configured, asked: CreateStory) -> CreationFacts:
    """The project that the story is to be in, and the configuration that it is worked on under."""
    project = await configured.projects(asked.project_id) if asked.project_id is not None else None
    return CreationFacts(project=project, config=configured.config, readers=configured.readers)


async def gather_start(configured: Configured, bench: Workbench) -> StartFacts:
    """The councils, the standing delegations, the repositories and the models that a start may name."""
    policy, platform = bench.journal.policy.policy, bench.journal.platform
    standing = (await platform.state()).delegations.values() if platform is not None else ()
    return StartFacts(
        councils=sitting_roles(bench),
        standing=tuple(standing),
        git=policy.targets.git,
        local=policy.targets.local,
        policy_digest=policy.digest,
        models=configured.models,
        absent=configured.absent_engines,
    )


async def gather_call(bench: Workbench, asked: InvokeTool | StartRun, facts: Facts) -> ToolFacts:
    """The policy, and what else its decision needs.

    That is a preview of the call when a person has to be asked about it, and the record when it is refused in a task.
    """
    journal, state = bench.journal, bench.state
    gathered = ToolFacts(
        policy=journal.policy.policy,
        phase=journal.policy.phase(state),
        epoch=journal.epoch,
        has_tools=bench.tools is not None,
        platform=await journal.platform.state() if journal.platform is not None else None,
        budgets=journal.budgeting.limits,
    )
    facts = replace(facts, gathered=gathered)
    judged = asked.judge(state, facts)
    match judged.decision:
        case NeedsApproval() as decision if (attempt := asked.preview_attempt(state, facts, judged)) is not None:
            return replace(gathered, preview=await preview_of(bench, judged.call, judged.facts, decision, attempt))
        case Denied() if judged.facts.task is not None:
            return replace(gathered, history=await journal.payloads())
        case _:
            return gathered


async def gather_cancel(bench: Workbench, asked: CancelRun) -> CancelFacts:
    """The specification of the run."""
    step = bench.state.steps.get(f"run/{asked.run_id}")
    if step is None:
        return CancelFacts(spec=None)
    return CancelFacts(spec=RunSpec.model_validate_json(await bench.blobs.get(step.started.request_digest)))


async def gather_council(bench: Workbench, asked: RequestCouncil | RejectCouncil) -> CouncilFacts:
    """The rules of councils in force, who may sit, and what the council is about."""
    state, roles = bench.state, sitting_roles(bench)
    record = state.councils.get(asked.council_id) if isinstance(asked, RejectCouncil) else None
    kept = await kept_request(bench, record) if record is not None else None
    task_id, subject = (
        (asked.task_id, asked.subject_digest)
        if isinstance(asked, RequestCouncil)
        else (kept.request.task_id, kept.request.subject)
        if kept is not None
        else (None, None)
    )
    if subject in state.reports:
        subject = None  # what was measured can be judged, and nothing else of it is asked
    return CouncilFacts(
        config=await council_rules(bench),
        roles=roles,
        hidden=_hidden(bench, roles, task_id),
        kept=kept,
        is_named=subject is not None and await _is_named(bench, subject),
        is_stored=subject is not None and await _is_stored(bench, subject),
    )


def _hidden(bench: Workbench, roles: Collection[str], task_id: str | None) -> dict[str, str]:
    phase, hidden = "BUILD" if task_id else "DESIGN", dict[str, str]()
    for role in roles:
        try:
            scopes_for(bench.rules.context, phase, role)
        except PolicyDenied as error:
            hidden[role] = error.message
    return hidden


async def _is_named(bench: Workbench, subject: Digest) -> bool:
    return any(subject in _digests(payload.model_dump()) for payload in await bench.journal.payloads())


def _digests(value: Any) -> Iterator[Digest]:
    if isinstance(value, Digest):
        yield value
    elif isinstance(value, Mapping):
        yield from _digests(list(cast("Mapping[str, Any]", value).values()))
    elif isinstance(value, list | tuple):
        for item in cast("Sequence[Any]", value):
            yield from _digests(item)


async def _is_stored(bench: Workbench, subject: Digest) -> bool:
    try:
        await bench.blobs.get(subject)
    except ArtifactNotFound:
        return False
    return True
