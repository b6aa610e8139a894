"""Engineers at work without a model: scripts of calls, a shell of a few words, and a council that they sit in."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fleet.events.task import TreeMerged
from fleet.events.workspace import WorkspaceReported, WorkspaceSummary
from fleet.kernel.clock import Clock, MemoryClock
from fleet.kernel.errors import FleetError
from fleet.kernel.ids import CommandId, Digest, Principal, StreamId
from fleet.log.port import Answer, Command
from fleet.models.chat import ToolUse
from fleet.models.port import AgentAnswer, AgentRequest
from fleet.models.profiles import ModelsConfig, load_models
from fleet.models.replies.session_reply import SessionReply
from fleet.owner.budgets import Budgeting
from fleet.owner.duties.members import Sitting
from fleet.owner.engineering.seats import Delivered, deliver
from fleet.owner.workbench import Workbench
from fleet.sandbox.memory import Program, ProgramEnd, ProgramStart
from fleet.story.council_facts import council_state
from fleet.trees.service import read_tree
from fleet.workspace.report import WorkspaceReport
from fleet.workspace.service.report import Measurement
from tests.support.acting import COUNCIL, MortalLog, written
from tests.support.bench import ANA, ScriptedAgents, World
from tests.support.rules import files
from tests.support.story_events import BASE, STORY, TASK, StoryLog, open_council, story

FILES: Mapping[str, bytes] = {
    "text/slug.py": b"def slugify(title):\n    raise NotImplementedError\n",
    "text/fold.py": b'TABLE = {"x": "y"}\n',
    "tests/test_slug.py": b"from text.slug import slugify\n",
}
Script = Sequence[Sequence[tuple[str, dict[str, Any]]] | str]
"""One item per turn: calls in their order, or words without any."""


def reply_of(turn: Sequence[tuple[str, dict[str, Any]]] | str, number: int) -> dict[str, Any]:
    """The value of a reply that makes these calls."""
    if isinstance(turn, str):
        return SessionReply(text=turn).model_dump(mode="json")
    uses = tuple(
        ToolUse(id=f"u{number}-{place}", name=name, arguments=json.dumps(args))
        for place, (name, args) in enumerate(turn, 1)
    )
    return SessionReply(text="", uses=uses).model_dump(mode="json")


def turn_of(request: AgentRequest) -> int:
    """Which turn a request asks for, from 1."""
    return 1 + sum(message.role == "assistant" for message in request.turns)


def engineer(script: Script) -> LiveEngineer:
    """An engineer who makes the n-th of these turns whoever asks how often, and repeats the last one."""
    return LiveEngineer(lambda request: reply_of(script[min(turn_of(request), len(script)) - 1], turn_of(request)))


Happening = Callable[[], Awaitable[None]]


@dataclass
class LiveEngineer(ScriptedAgents):
    """A scripted engineer; something happens while it thinks about a turn, each time that it is asked for it."""

    meanwhile: dict[int, Happening] = field(default_factory=dict[int, Happening])

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See `Agents.ask`."""
        happens = self.meanwhile.get(turn_of(request))
        if happens is not None:
            await happens()
            # Whoever ends the session now must not have to wait for the reply.
            await asyncio.sleep(0)
        return await super().ask(request, request_id=request_id, timeout_s=timeout_s)


class HurriedClock(MemoryClock):
    """A clock on which every wait has passed at once."""

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        self.advance(seconds)


def shell(start: ProgramStart) -> ProgramEnd:
    """A shell that knows `put PATH TEXT`, `rm PATH`, `fail`, `say TEXT` between semicolons, tests, and grep."""
    if start.argv[0] == "grep":
        pattern = start.argv[start.argv.index("-e") + 1]
        hits = [
            f"./{path}:{number}:{line}"
            for path, data in sorted(start.files.items())
            for number, line in enumerate(data.decode().split("\n"), 1)
            if re.search(pattern, line)
        ]
        return ProgramEnd(exit_code=0 if hits else 1, stdout="".join(f"{hit}\n" for hit in hits).encode())
    if "pytest" in start.argv:
        is_done = b"lower" in start.files.get("text/slug.py", b"")
        said = b"1 passed in 0.01s\n" if is_done else b"FAILED tests/test_slug.py::test_it - NotImplementedError\n"
        return ProgramEnd(exit_code=0 if is_done else 1, stdout=said)
    written: dict[str, bytes | None] = {}
    said, code = "", 0
    for command in start.argv[2].split(";"):
        word, _, rest = command.strip().partition(" ")
        path, _, text = rest.partition(" ")
        match word:
            case "put":
                written[path] = text.encode()
            case "rm":
                written[path] = None
            case "say":
                said += f"{rest}\n"
            case _:
                code = 1
    return ProgramEnd(exit_code=code, stdout=said.encode(), written=written)


def models(*, strategy: str = "session", **engine: Any) -> ModelsConfig:
    """The packaged configuration with one engine for all, on which developers work in sessions."""
    document = dict(files().document("models.yaml"))
    given = {
        "engine_id": "recorded",
        "kind": "vllm",
        "base_url": "u",
        "model": "m",
        "unpriced": True,
        "strategy": strategy,
    }
    document["engines"] = [{**given, "max_context": 32_768, "max_output": 4_096, **engine}]
    document["policies"] = {"default": {"chain": [{"engine_id": "recorded", "max_tokens": 500, "timeout_s": 60}]}}
    return load_models(document)


def convened_in_sessions(tree: Digest) -> StoryLog:
    """A story whose council on its one task was just convened on this tree; those who propose work in sessions."""
    log = story(until="build")
    log.add(TreeMerged(base_digest=BASE, result_digest=tree, commit="0b" * 20))
    opened = open_council(COUNCIL, task_id=TASK).model_copy(update={"subject_digest": tree})
    seats = tuple(
        member.model_copy(update={"strategy": "session"}) if member.can_propose else member for member in opened.roster
    )
    return log.add(opened.model_copy(update={"roster": seats}))


class SessionWorld(World):
    """A council of engineers on a small repository."""

    def __init__(
        self,
        script: Script,
        log: MortalLog | None = None,
        *,
        program: Program | None = None,
        clock: Clock | None = None,
        **engine: Any,
    ) -> None:
        config = models(**engine)
        self.engineer = engineer(script)
        self._bench: Workbench | None = None
        super().__init__(
            log=log or MortalLog(),
            clock=clock,
            agents=self.engineer,
            program=program or shell,
            budgeting=Budgeting(limits=config.budgets, models=config),
        )

    async def begin(self, texts: Mapping[str, bytes] = FILES) -> SessionWorld:
        """The council is convened on these files."""
        await convened_in_sessions(await written(self.blobs, texts)).write_to(self.log)
        assert isinstance(self.log, MortalLog)
        self.log.is_armed = True
        return self

    async def deliver(self, number: int = 0, **how: Any) -> Delivered:
        """The candidate of one member, by an owner that was just started."""
        bench = self._bench = await self.bench()
        record = bench.state.councils[COUNCIL]
        sitting = Sitting(bench, record, council_state(record.opened, tuple(record.said.values())))
        member, base = record.opened.roster[number], record.opened.subject_digest
        assert base is not None
        return await deliver(sitting, member, step=f"draft/{member.member_id}", base=base, **how)

    async def command(self, name: str, *, key: str = "key-0001", who: Principal = ANA, **body: Any) -> dict[str, Any]:
        """The answer to a command that reaches the owner that is at work, or one that was just started."""
        bench = self._bench or await self.bench()
        stream = StreamId.of_story(STORY)
        return await self.commands.handle(bench, Command(CommandId(f"{who}/{key}"), stream, name, who, body))

    async def serve(self) -> None:
        """Answers commands from the inbox as the owner that is at work, until it is cancelled."""
        while True:
            for delivery in await self.inbox.take("council:test", timeout_s=5.0):
                try:
                    result = await self.commands.handle(self._bench or await self.bench(), delivery.command)
                    answer = Answer(ok=True, result=result)
                except FleetError as error:
                    answer = Answer(ok=False, problem=error.to_wire())
                await self.inbox.acknowledge(delivery, replace(answer, request=delivery.command.request))

    async def measure_base(self, *failing: str) -> None:
        """The base was measured, and these of its tests fail."""
        report = WorkspaceReport.model_validate(
            {"run_id": "rn-base2", "story_id": STORY, "tree_digest": BASE, "rigor": "L1", "complete": True}
        )
        stored = await self.blobs.put(Measurement(report=report, failing=failing).encode())
        reported = WorkspaceReported(
            run_id=report.run_id, tree_digest=BASE, report_digest=stored, complete=True, summary=WorkspaceSummary()
        )
        await (await self.journal()).record("base/measured-again", reported)

    async def texts(self, tree: Digest) -> dict[str, str]:
        """The files of a tree."""
        return {
            path: (await self.blobs.get(e.blob)).decode() for path, e in (await read_tree(self.blobs, tree)).items()
        }

    async def candidate(self, found: Delivered) -> dict[str, str]:
        """The files of what was delivered."""
        return await self.texts(Digest(json.loads(await self.blobs.get(found.candidate))["tree"]))


def told(world: SessionWorld) -> list[str]:
    """What the engineer was shown in its last request, message by message."""
    return [message.content for message in world.agents.requests[-1].turns if message.role != "assistant"]
