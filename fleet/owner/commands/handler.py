"""Commands on stories, decided by the owner of the story and by nobody else (EV-17)."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from fleet.events.payload import Payload
from fleet.events.story import RepoSource, StoryStarted
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import (
    GateClosed,
    InvalidInput,
    InvalidTransition,
    StoryNotFound,
    VersionConflict,
)
from fleet.kernel.ids import Digest, EntityId, Principal
from fleet.log.port import Command, EventLog
from fleet.models.profiles import ModelsConfig
from fleet.models.prompts.pack_readers import PACK_READERS, PackReaders
from fleet.owner.commands.council import COUNCIL_COMMANDS
from fleet.owner.commands.delegations import run_delegations, standing_delegations
from fleet.owner.commands.preliminary_plans import propose_plan
from fleet.owner.commands.story import created_events, parented
from fleet.owner.duties.deploy import end_deployment
from fleet.owner.duties.fetch import listed_target
from fleet.owner.run_profile import require_profile
from fleet.owner.tools.decisions import roles_held
from fleet.owner.tools.requests import request_call, request_cancel, request_run
from fleet.owner.tools.tool_calls import end_calls
from fleet.owner.workbench import Workbench
from fleet.planning.project_state import DEFAULT_PROJECT, ProjectState
from fleet.policy.commands.git import git_address
from fleet.story.commands.budgets import SetBudget
from fleet.story.commands.catalogue import UntypedCommand, parse_command, require_known
from fleet.story.commands.command import Attachment, Caller, Facts, Outcome, RefusedOnRecord, StoryCommand
from fleet.story.commands.gates import refusal
from fleet.story.commands.interventions import ArchiveStory, Cancel, started_again
from fleet.story.evolve.story import fold
from fleet.story.lifecycle import RIGORS
from fleet.story.state import StoryState
from fleet.workspace.service.repository_specs import check_reached

Plain = Callable[[Workbench, Command, Caller], Awaitable[tuple[Payload, ...]]]
PLAIN: Mapping[str, Plain] = {
    "cancel_run": request_cancel,
    "end_deployment": end_deployment,
}


RolesOf = Callable[[Principal], frozenset[str]]
ProjectOf = Callable[[str], Awaitable[ProjectState]]
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
        coach: Any,
        config_digests: Mapping[str, Digest],
        projects: ProjectOf,
        readers: PackReaders | None = None,
        models: ModelsConfig | None = None,
        absent_engines: Collection[str] = (),
    ) -> None:
        self._roles_of, self._coach, self._config, self._projects = roles_of, coach, config_digests, projects
        self._readers, self._models, self._absent = readers, models, frozenset(absent_engines)

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
                await bench.journal.record(refused.name, *await _stored(bench, refused.records), actor=caller.principal)
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
        if isinstance(asked, UntypedCommand):
            return await COMMANDS[asked.command](self, bench, command, caller)
        payloads = await _stored(bench, asked.decide(bench.state, await self._facts(bench, command, asked, caller)))
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
            held=roles_held(bench.journal.policy.policy, caller.principal, caller.roles),
            targets=rules.targets,
        )
        if isinstance(asked, ArchiveStory):
            return replace(facts, history=[event for event, _ in await bench.journal.history()])
        return facts

    async def create(self, bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
        """A new story with its score, in its first state (LC-12, SC-31)."""
        caller.require("po", rule_id="LC-11")
        if bench.journal.exists:
            raise InvalidTransition(
                f"story {bench.journal.story_id} exists already",
                state=bench.state.state,
                event="create_story",
                allowed=[],
            )
        story: Any = command.body.get("story")
        if isinstance(story, dict):
            named = str(story.get("project_id", DEFAULT_PROJECT))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            story = parented(story, await self._projects(EntityId(named)))
        return created_events(
            story, caller=caller, rules=bench.rules, coach=self._coach, config=await self._config_of(bench)
        )

    async def _config_of(self, bench: Workbench) -> Mapping[str, Digest]:
        """What a new story is worked on under; who reads its packs is a blob before the story names it."""
        if self._readers is None:
            return self._config
        return {**self._config, PACK_READERS: await bench.blobs.put(canonical_json(self._readers))}

    async def start(self, bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
        """The story may be worked on: on which repository, with which model, with which gates delegated.

        A parked story may be started again, with what was wrong set right: it goes on by that.
        """
        caller.require("po", rule_id="LC-11")
        state, body = bench.state, command.body
        repo = body.get("repo")
        if not isinstance(repo, str) or not repo:
            raise InvalidInput("start needs a repository: its path, or its address on another machine", field="repo")
        again = started_again(state, repo=repo, model=str(body.get("model") or ""), caller=caller)
        address = git_address(repo)
        if address is not None:
            check_reached(address, listed_target(bench, address))
        if self._models is not None:
            require_profile(self._models, body.get("model"), absent=self._absent)
        return (
            StoryStarted(
                repo=RepoSource(
                    provider="git" if address else "local", url=address.url if address else repo, ref=body.get("ref")
                ),
                model=body.get("model"),
                toolchain=body.get("toolchain") or "python",
                delegations=(*run_delegations(bench, command, caller), *await standing_delegations(bench)),
                record=bool(body.get("record")),
            ),
            *again,
            *await self._start_budget(bench, command, caller),
        )

    async def _start_budget(self, bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
        """What the limits that a run is started with record; nothing when there are none."""
        limits = command.body.get("budget")
        if not limits:
            return ()
        asked = SetBudget(limits=limits, note="set when the run was started")
        return await self._decide(bench, command, asked, caller)

    async def propose_plan(self, bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
        """A council's outline becomes a proposed plan version."""
        return propose_plan(bench, command, caller)

    async def invoke_tool(self, bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
        """A tool is to be called."""
        await bench.journal.require_running()
        return await request_call(bench, command, caller)

    async def start_run(self, bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
        """A command is to be run in the sandbox."""
        await bench.journal.require_running()
        return await request_run(bench, command, caller)


async def _stored(bench: Workbench, outcome: Outcome) -> tuple[Payload, ...]:
    """The events of an outcome, once the attachments that they name are stored."""
    for one in outcome:
        if isinstance(one, Attachment):
            await bench.blobs.put(one.data)
    return tuple(one for one in outcome if not isinstance(one, Attachment))


Decide = Callable[[CommandHandler, Workbench, Command, Caller], Awaitable[tuple[Payload, ...]]]


def _plain(decide: Plain) -> Decide:
    """A command that needs nothing of the handler."""

    async def carried_out(_: CommandHandler, bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
        return await decide(bench, command, caller)

    return carried_out


COMMANDS: Mapping[str, Decide] = {
    **{name: _plain(decide) for name, decide in PLAIN.items()},
    "create_story": CommandHandler.create,
    "start_story": CommandHandler.start,
    "invoke_tool": CommandHandler.invoke_tool,
    "start_run": CommandHandler.start_run,
    "propose_plan": CommandHandler.propose_plan,
    **COUNCIL_COMMANDS,
}
