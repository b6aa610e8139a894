"""Role agents that look around before they draft: a policy that lets them, a council to draft in, models that call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from fleet.events.task import TreeMerged
from fleet.kernel.clock import MemoryClock
from fleet.kernel.ids import Digest, EntityId
from fleet.log.memory import MemoryEventLog
from fleet.log.port import Appended, AppendRequest, Duplicate
from fleet.models.chat import ChatReply, TokenUsage, ToolUse
from fleet.models.port import AgentAnswer, AgentRequest, ChatModel
from fleet.models.profiles import load_models
from fleet.models.prompts.prompt import PromptSet, parse_prompts
from fleet.models.service.role_agent import RoleAgent
from fleet.owner.journal.steps import StepPolicy
from fleet.policy.roles import Acting, RolesConfig
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import ToolOutcome
from fleet.sandbox.memory import MemoryRunLedger
from fleet.sandbox.port import Sandbox
from fleet.tools.kit.commands import CommandTool
from fleet.tools.kit.files import FilesTool
from fleet.tools.kit.git import GitTool
from fleet.tools.kit.parts import ToolParts
from fleet.tools.kit.search import SearchTool
from fleet.tools.port import ToolContext
from fleet.tools.service import Toolbox
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.port import BlobStore
from fleet.trees.tree import FileEntry, encode_tree
from tests.support.bench import ScriptedAgents
from tests.support.rules import files, step_policy
from tests.support.story_events import BASE, TASK, StoryLog, open_council, story

COUNCIL = EntityId("co-look1")
FILES: Mapping[str, bytes] = {
    "text/slug.py": b"def slugify(title):\n    raise NotImplementedError\n",
    "text/fold.py": b'TABLE = {"\xc3\xa4": "ae"}\n',
}


class Crash(BaseException):
    """The process ended here; no handler of ours may survive it."""


class MortalLog(MemoryEventLog):
    """Ends the process at one append, before it is stored or after, once it is armed."""

    def __init__(self, *, at: int = 0, stored: bool = True) -> None:
        super().__init__()
        self.at, self.stored, self.count, self.is_armed = at, stored, 0, False

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        """See the port."""
        self.count += self.is_armed
        if not self.is_armed or self.count != self.at:
            return await super().append(request)
        if self.stored:
            await super().append(request)
        raise Crash


@cache
def _policy() -> StepPolicy:
    return step_policy()


@cache
def _prompts() -> PromptSet:
    names = [name for name in files().names() if name.startswith("prompts/") and name.endswith(".md")]
    return parse_prompts({name: files().read(name).decode() for name in names})


def acting_policy(*roles: str, **acts: Any) -> StepPolicy:
    """The packaged policy, with roles that look around."""
    found = _policy()
    table = dict(found.policy.roles.roles)
    table |= {name: table[name].model_copy(update={"acts": Acting(**{"steps": 6, **acts})}) for name in roles}
    return replace(found, policy=replace(found.policy, roles=RolesConfig(roles=table)))


class CountingTools(Toolbox):
    """A tool host that lists what it really carried out, and fails on the calls that `failing` names."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.asked: list[tuple[str, str]] = []
        self.contexts: list[ToolContext] = []
        self.failing: dict[str, BaseException] = {}

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """See the port."""
        if (error := self.failing.get(f"{call.tool}.{call.op}")) is not None:
            raise error
        self.contexts.append(context)
        self.asked.append((str(context.key), json.dumps([call.tool, call.op, call.args], sort_keys=True)))
        return await super().call(call, context)


def toolbox(blobs: BlobStore, sandbox: Sandbox, clock: MemoryClock) -> CountingTools:
    """The tools that need a sandbox and blobs alone."""
    parts = ToolParts(sandbox=sandbox, blobs=blobs, clock=clock, targets=_policy().policy.targets)
    tools = [FilesTool(parts), SearchTool(parts), GitTool(parts), CommandTool("tests", parts)]
    return CountingTools(tools, ledger=MemoryRunLedger(clock), blobs=blobs, clock=clock, name="tools:test")


async def written(blobs: BlobStore, texts: Mapping[str, bytes] = FILES) -> Digest:
    """The tree of these files."""
    entries = {path: FileEntry("100644", await blobs.put(data)) for path, data in texts.items()}
    return await blobs.put(encode_tree(entries))


def convened(tree: Digest) -> StoryLog:
    """A story whose council on its one task was just convened, on this tree."""
    log = story(until="build")
    log.add(TreeMerged(base_digest=BASE, result_digest=tree, commit="0b" * 20))
    return log.add(open_council(COUNCIL, task_id=TASK).model_copy(update={"subject_digest": tree}))


def role_agent(
    model: ChatModel, *, role: str = "developer", blobs: BlobStore | None = None, **engine: Any
) -> RoleAgent:
    """The agent of a role over one model."""
    given = {"engine_id": "recorded", "kind": "vllm", "base_url": "u", "model": "m", "unpriced": True, **engine}
    chain = [{"engine_id": "recorded", "max_tokens": 500, "timeout_s": 600}]
    policies = load_models({"engines": [given], "policies": {"default": {"chain": chain}}})
    return RoleAgent(
        _policy().policy.roles.role(role),
        models={"recorded": model},
        policies=policies,
        prompts=_prompts(),
        blobs=blobs or MemoryBlobStore(),
        clock=MemoryClock(),
    )


@dataclass
class Acted(ScriptedAgents):
    """Role agents whose acting goes to `agent`, and everything else to `answer`; `asked` lists the ids of both."""

    agent: RoleAgent | None = None
    acted: list[AgentRequest] = field(default_factory=list[AgentRequest])

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See `Agents.ask`."""
        if request.kind != "act" or self.agent is None:
            return await super().ask(request, request_id=request_id, timeout_s=timeout_s)
        self.asked.append(request_id)
        self.acted.append(request)
        return await self.agent.ask(replace(request, role="developer"), request_id=request_id, timeout_s=timeout_s)


def calling(name: str, text: str = "", **args: Any) -> ChatReply:
    """A reply with one native call."""
    return ChatReply(
        text=text,
        finish_reason="tool_use",
        usage=TokenUsage(tokens_in=50, tokens_out=10),
        engine="one",
        model="m",
        latency_ms=7,
        tool_uses=(ToolUse(id="call-1", name=name, arguments=json.dumps(args)),),
    )
