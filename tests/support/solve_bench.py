"""The solve benchmark without engine and sandbox: a scripted model, and a sandbox that runs cases in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from fleet.bench.meter import TokenMeter
from fleet.bench.row import ArmName
from fleet.bench.service.arms import solve
from fleet.bench.service.council import CouncilRules
from fleet.bench.service.execution import SandboxExecution
from fleet.bench.service.solved import Solved
from fleet.bench.service.solver import BenchVoices, Solver
from fleet.bench.task import BenchTask, HiddenTests, SolveTask
from fleet.config.files import ConfigFiles, packaged_directory
from fleet.council.config import CouncilConfig
from fleet.kernel.errors import FleetError
from fleet.kernel.ids import RunKey, StoryId
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatReply, ChatRequest, TokenUsage
from fleet.models.prompts.prompt import kind_of, parse_prompts
from fleet.policy.runs.spec import Artifact, RunResult, RunSpec
from fleet.sandbox.inside.solve_cases import run_case
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.port import BlobStore

CANARY = "canary-5fe1c0"
RIGHT, WRONG = "def double(n):\n    return 2 * n\n", "def double(n):\n    return n + 2\n"
CASES = """from solution import double

def test_three():
    assert double(3) == 6

def test_nil():
    assert double(0) == 0
"""
Answer = Callable[[str, ChatRequest], "str | FleetError"]


def code(text: str) -> str:
    """The text as a reply of a model."""
    return f"```python\n{text}```"


def double_task(visible: tuple[str, ...] = ("assert double(2) == 4", "assert double(5) == 10")) -> BenchTask:
    """Double a number; the first visible test does not tell right from wrong, the hidden ones do."""
    public = SolveTask(
        task_id="t/double",
        prompt="Write double(n).\nassert double(2) == 4",
        blind_prompt="Write double(n).",
        entry_point="double",
        visible=visible,
    )
    return BenchTask(public=public, hidden=HiddenTests(tests=(f"assert double(7) == 14, {CANARY!r}",)))


@dataclass
class ScriptedModel:
    """Answers by kind of work; counts a token for three bytes and keeps what it was asked."""

    answer: Answer
    requests: list[ChatRequest] = field(default_factory=list)
    replies: list[ChatReply] = field(default_factory=list)
    cut: tuple[str, ...] = ()
    """Kinds of work whose replies end at their length limit."""

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        self.requests.append(request)
        text = self.answer(kind_of(request), request)
        if isinstance(text, FleetError):
            raise text
        size = sum(len(m.content.encode()) for m in request.messages)
        usage = TokenUsage(tokens_in=size // 3 + 4, tokens_out=min(request.sampling.max_tokens, len(text) // 3 + 1))
        finish = "length" if kind_of(request) in self.cut else "stop"
        reply = ChatReply(text=text, finish_reason=finish, usage=usage, engine="s", model="s", latency_ms=10)
        self.replies.append(reply)
        return reply

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncIterator[ChatChunk]:
        yield ChatChunk(reply=await self.complete(request, request_id=request_id, timeout_s=timeout_s))

    async def abort(self, request_id: str) -> None: ...

    async def health(self) -> None: ...

    @property
    def tokens(self) -> int:
        """Of all replies."""
        return sum(r.usage.tokens_in + r.usage.tokens_out for r in self.replies)


@dataclass
class InProcessSandbox:
    """Runs the cases of a run here; a command of a repository passes when `passes` says so of its files."""

    blobs: BlobStore
    passes: Callable[[RunSpec], bool] = lambda _: True
    specs: list[tuple[StoryId, RunSpec]] = field(default_factory=list)

    async def run(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunResult:
        self.specs.append((story, spec))
        if not spec.mounts:
            ok = self.passes(spec)
            return RunResult(
                status="passed" if ok else "failed", reason="ok" if ok else "exit_nonzero", exit_code=0 if ok else 1
            )
        document = json.loads(await self.blobs.get(spec.mounts[0].blob))  # type: ignore[union-attr]
        found = {c["id"]: run_case(c, document["setup"], document["solution"]) for c in document["cases"]}
        sys.modules.pop("solution", None)
        blob = await self.blobs.put(json.dumps(found).encode())
        artifact = Artifact(path="out/cases.json", blob=blob)
        return RunResult(status="passed", reason="ok", exit_code=0, artifacts=(artifact,))


def voices() -> BenchVoices:
    """The packaged prompts."""
    files = ConfigFiles(packaged_directory())
    names = [n for n in files.names() if n.startswith("prompts/") and n.endswith(".md")]
    return BenchVoices(parse_prompts({n: files.read(n).decode() for n in names}))


def rules(seats: int = 3, rounds: int = 1, *, critiques: bool = False) -> CouncilRules:
    """The packaged rules."""
    config = ConfigFiles(packaged_directory()).load("council.yaml", CouncilConfig)
    defaults = config.defaults.model_copy(update={"critiques": critiques})
    return CouncilRules(config.model_copy(update={"defaults": defaults}), seats, rounds)


class Trial:
    """One arm on one task, with everything that it did."""

    def __init__(
        self, answer: Answer, *, task: BenchTask | None = None, tokens: int = 20_000, blind: bool = False, seed: int = 1
    ) -> None:
        self.task = task or double_task()
        self.model = ScriptedModel(answer)
        self.blobs = MemoryBlobStore()
        self.sandbox = InProcessSandbox(self.blobs)
        self.execution = SandboxExecution(self.sandbox, self.blobs)  # type: ignore[arg-type] - it only runs
        self.solver = Solver(
            task=self.task.public,
            seed=seed,
            model=self.model,
            execute=self.execution,
            voices=voices(),
            meter=TokenMeter(tokens),
            blind=blind,
        )

    async def solve(self, arm: ArmName, *, seats: int = 3, critiques: bool = False) -> Solved:
        """What the arm chose."""
        return await solve(arm, self.solver, rules(seats, critiques=critiques))

    async def passes(self, found: Solved) -> bool:
        """Whether the judge is content."""
        assert found.pick is not None
        return await self.execution.judge(self.task.public, self.task.hidden, found.pick)
