"""Commands on stories, decided by the owner of the story and by nobody else (EV-17)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from fleet.events.payload import Payload
from fleet.kernel.errors import GateClosed, StoryNotFound, VersionConflict
from fleet.kernel.ids import Digest, Principal
from fleet.log.port import Command, EventLog
from fleet.models.profiles import ModelsConfig
from fleet.models.prompts.pack_readers import PackReaders
from fleet.owner.commands.gather import (
    Configured,
    ProjectOf,
    gather_call,
    gather_cancel,
    gather_council,
    gather_creation,
    gather_start,
)
from fleet.owner.tools.tool_calls import end_calls
from fleet.owner.workbench import Workbench
from fleet.planning.coach_config import CoachConfig
from fleet.policy.roles import roles_held
from fleet.story.commands.calls import CancelRun, InvokeTool, StartRun
from fleet.story.commands.catalogue import parse_command, require_known
from fleet.story.commands.command import Attachment, Caller, Facts, Outcome, RefusedOnRecord, StoryCommand
from fleet.story.commands.councils import RejectCouncil, RequestCouncil
from fleet.story.commands.gates import refusal
from fleet.story.commands.interventions import ArchiveStory, Cancel, StartStory
from fleet.story.commands.text import CreateStory
from fleet.story.evolve.story import fold
from fleet.story.lifecycle import RIGORS
from fleet.story.state import StoryState
from fleet.trees.port import BlobStore

RolesOf = Callable[[Principal], frozenset[str]]
_TRIES = 3


def _result(state: StoryState) -> dict[str, Any]:
    """What a command answers with: story id, version and state of its story."""
    return {
        "story_id": state.story_id,
        "version": state.version,
        "state": state.state,
        "disposition": state.disposition,
        "score": state.score.score if state.score else None,
        "dor_ok": state.score.dor_ok if state.score else False,
    }


async def recorded_result(log: EventLog, command: Command) -> dict[str, Any] | None:
    """The result of a command that is on record, whoever owns the story; None when it is not.

    An owner that died between storing a command and answering it told nobody.
    """
    if command.command_id not in await log.commands(command.stream):
        return None
    state = fold(await log.read(command.stream))
    return _result(state) if state else None


class CommandHandler:
    """Turns one command into events of its story. The same command id never records twice.

    Args:
        readers: the models that may read packs of new stories, which keep to them; None counts by estimate (CX-20).
        models: what a start may name; None takes any name.
        absent_engines: engines of `models` that nothing stands for in this fleet.
    """

    def __init__(
        self,
        *,
        roles_of: RolesOf,
        coach: CoachConfig,
        config_digests: Mapping[str, Digest],
        projects: ProjectOf,
        readers: PackReaders | None = None,
        models: ModelsConfig | None = None,
        absent_engines: Collection[str] = (),
    ) -> None:
        self._roles_of, self._coach = roles_of, coach
        self._configured = Configured(projects, config_digests, readers, models, frozenset(absent_engines))

    async def handle(self, bench: Workbench, command: Command) -> dict[str, Any]:
        """The result of the command: story id, version and state. Raises what the domain refuses."""
        if not bench.journal.knows(command.command_id):
            require_known(command.name)
            if not bench.journal.exists and command.name != "create_story":
                raise StoryNotFound(f"there is no story {bench.journal.story_id}", story_id=bench.journal.story_id)
            await self._record(bench, command, parse_command(command.name, command.body))
        return _result(bench.state)

    async def _record(self, bench: Workbench, command: Command, asked: StoryCommand) -> None:
        caller = Caller(principal=command.principal, roles=self._roles_of(command.principal))
        for attempt in range(1, _TRIES + 1):
            try:
                payloads = await self._decide(bench, command, asked, caller)
            except RefusedOnRecord as refused:
                records = await stored(bench.blobs, refused.records)
                await bench.journal.record(refused.name, *records, actor=caller.principal)
                if refused.noticed is not None:
                    await bench.journal.record(*refused.noticed)
                raise refused.error from None
            except GateClosed as error:
                if "task_id" in error.details:
                    raise  # a task's own workflow: what is recorded are transitions of the story (LC-4)
                record = refusal(bench.state, error, caller)
                # Not under the command's own id: a known id means that the command was carried out.
                name = hashlib.sha256(command.command_id.encode()).hexdigest()[:32]
                await bench.journal.record(f"refused/{name}", record, actor=caller.principal)
                raise
            # What is recorded of a story that is over does not open its stream again.
            closes = command.name in ("cancel", "archive_story") or (bench.journal.exists and bench.state.is_over)
            try:
                await bench.journal.record_command(
                    command.command_id, payloads, actor=caller.principal, closes=closes, trace_id=command.trace_id
                )
            except VersionConflict:
                # The stream had grown; the journal has reloaded it, so the command is decided on what is there (LC-8).
                if attempt == _TRIES:
                    raise
            else:
                return

    async def _decide(
        self, bench: Workbench, command: Command, asked: StoryCommand, caller: Caller
    ) -> tuple[Payload, ...]:
        """What the command records; the documents that its events name are stored."""
        facts = await self._facts(bench, command, asked, caller)
        if isinstance(asked, CreateStory):
            return await stored(bench.blobs, asked.decide(bench.state if bench.journal.exists else None, facts))
        payloads = await stored(bench.blobs, asked.decide(bench.state, facts))
        if isinstance(asked, Cancel):
            await end_calls(bench)
        return payloads

    async def _facts(self, bench: Workbench, command: Command, asked: StoryCommand, caller: Caller) -> Facts:
        """What the command is decided on; what takes reading is read for the command that needs it."""
        rules = bench.rules
        facts = Facts(
            caller=caller,
            stream=bench.journal.stream,
            command_id=command.command_id,
            now_ms=bench.now_ms,
            fsm=rules.fsm,
            budgets=bench.journal.budgeting.limits,
            planning=rules.planning,
            assignable_roles=rules.assignable_roles,
            coach=self._coach,
            thresholds={level: rules.rigor.level(level).dor_min for level in RIGORS},
            held=roles_held(bench.journal.policy.policy.roles, caller.principal, caller.roles),
            targets=rules.targets,
        )
        match asked:
            case ArchiveStory():
                return replace(facts, history=[event for event, _ in await bench.journal.history()])
            case CreateStory():
                return replace(facts, gathered=await gather_creation(self._configured, asked))
            case StartStory():
                return replace(facts, gathered=await gather_start(self._configured, bench))
            case InvokeTool() | StartRun():
                return replace(facts, gathered=await gather_call(bench, asked, facts))
            case CancelRun():
                return replace(facts, gathered=await gather_cancel(bench, asked))
            case RequestCouncil() | RejectCouncil():
                return replace(facts, gathered=await gather_council(bench, asked))
            case _:
                return facts


async def stored(blobs: BlobStore, outcome: Outcome) -> tuple[Payload, ...]:
    """The events of an outcome, once the attachments that they name are stored."""
    for one in outcome:
        if isinstance(one, Attachment):
            await blobs.put(one.data)
    return tuple(one for one in outcome if not isinstance(one, Attachment))
