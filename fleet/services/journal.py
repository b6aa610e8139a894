"""The journal of one story: every effect is a step that is started, done, and finished on record (DESIGN.md 4).

A procedure that runs again after a crash asks for the same steps by the same names. A finished step answers from its
record; an unfinished one is settled by its effect class (RC-50, RC-51). So no recorded answer is paid for twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from pydantic import TypeAdapter

from fleet.digest import canonical_json, digest_of_json
from fleet.errors import (
    CommitUnknown,
    ContextTooLarge,
    FleetError,
    NondeterministicPlan,
    ReplyMalformed,
    ReplyRefused,
    from_wire,
)
from fleet.events import (
    Cost,
    Head,
    Payload,
    PolicyRef,
    Provenance,
    Reserve,
    StepArtifact,
    StepFinished,
    StepStarted,
    encode,
)
from fleet.ids import CommandId, Digest, EntityId, Principal, RunKey, StepId, StoryId, StreamId
from fleet.ports import (
    AgentAnswer,
    AgentRequest,
    Agents,
    Appended,
    AppendRequest,
    BlobStore,
    Clock,
    EventLog,
    Sandbox,
)
from fleet.story import StoryState, fold
from fleet.tools import RunResult, RunSpec

__all__ = ["SYSTEM", "Journal", "Seat", "Work"]

SYSTEM = Principal("system:council")
_ANSWER = TypeAdapter(AgentAnswer)
_APPEND_TRIES = 5


@dataclass(frozen=True, slots=True)
class Seat:
    """Who does a step: a principal in one role."""

    principal: Principal
    role: str


@dataclass(frozen=True, slots=True)
class Work:
    """What a step belongs to."""

    seat: Seat
    tool: str
    op: str
    task_id: EntityId | None = None
    council_id: EntityId | None = None


class Journal:
    """The owner's hand on one stream: state, head, and the only way to append to it."""

    def __init__(
        self,
        *,
        log: EventLog,
        blobs: BlobStore,
        clock: Clock,
        sandbox: Sandbox,
        agents: Agents,
        story_id: StoryId,
        epoch: int,
        policy: PolicyRef,
    ) -> None:
        self._log, self.blobs, self.clock = log, blobs, clock
        self._sandbox, self._agents = sandbox, agents
        self.story_id, self.stream = story_id, StreamId.of_story(story_id)
        self._epoch, self._policy = epoch, policy
        self._state: StoryState | None = None
        self._head = Head(epoch=epoch)
        self._commands: set[str] = set()
        # One writer at a time: each append must name the head that the one before it left.
        self._lock = asyncio.Lock()

    @property
    def exists(self) -> bool:
        """Whether the story has any event."""
        return self._state is not None

    @property
    def state(self) -> StoryState:
        """The fold of everything recorded so far."""
        assert self._state is not None, f"story {self.story_id} has no events"
        return self._state

    def knows(self, command_id: CommandId) -> bool:
        """Whether events of this command are on record."""
        return command_id in self._commands

    async def load(self) -> None:
        """State and head are those of the log."""
        async with self._lock:
            await self._catch_up()

    async def _catch_up(self) -> None:
        events = await self._log.read(self.stream, after=self._head.version)
        self._state = fold(events, self._state)
        self._commands.update(e.command_id for e in events)
        if events:
            self._head = Head(version=events[-1].version, hash=events[-1].hash, epoch=self._epoch)

    async def record(self, phase: str, *payloads: Payload, actor: Principal = SYSTEM, closes: bool = False) -> bool:
        """The payloads are stored under command id `<story>/<phase>`; False when that id was recorded before."""
        command_id = CommandId(f"{self.story_id}/{phase}")
        return await self.record_command(command_id, payloads, actor=actor, closes=closes)

    async def record_command(
        self, command_id: CommandId, payloads: tuple[Payload, ...], *, actor: Principal, closes: bool = False
    ) -> bool:
        """As `record`, for a command that brings its own id (an API command)."""
        events = [encode(p) for p in payloads]
        async with self._lock:
            for attempt in range(_APPEND_TRIES):
                request = AppendRequest(
                    stream=self.stream,
                    events=events,
                    expected=self._head,
                    command_id=command_id,
                    actor=actor,
                    ts_ms=self.clock.now_ms(),
                    closes=closes,
                )
                try:
                    outcome = await self._log.append(request)
                except CommitUnknown:
                    if attempt + 1 == _APPEND_TRIES:
                        raise
                    continue
                if isinstance(outcome, Appended):
                    self._state = fold(outcome.events, self._state)
                    self._commands.add(command_id)
                    self._head = outcome.head
                    return True
                await self._catch_up()
                return False
        raise AssertionError("unreachable")

    async def run(self, step: str, spec: RunSpec, work: Work) -> RunResult:
        """The recorded result of this run: asked of the sandbox by key, so that it counts once (RC-51)."""
        step_id = StepId(step)
        finished = self._finished(step_id)
        if finished is None:
            key = await self._start(
                step_id, spec.digest, work, kind="run", effect="KEYED", wall_s=spec.limits.overall_s
            )
            result = await self._sandbox.run(spec, story=self.story_id, key=key, epoch=self._epoch)
            await self._finish_run(step_id, result, work)
            finished = self._finished(step_id)
        assert finished is not None
        return RunResult.model_validate_json(await self.blobs.get(finished.result_digest))

    async def _finish_run(self, step_id: StepId, result: RunResult, work: Work) -> None:
        outcomes: dict[str, Literal["succeeded", "failed", "timed_out", "cancelled"]] = {
            "passed": "succeeded",
            "timeout": "timed_out",
            "cancelled": "cancelled",
        }
        payload = StepFinished(
            step_id=step_id,
            outcome=outcomes.get(result.status, "failed"),
            result_digest=await self.blobs.put(result.model_dump_json().encode()),
            excerpt=_excerpt(result),
            exit_code=result.exit_code,
            reason=result.reason,
            artifacts=tuple(
                StepArtifact(path=a.path, artifact_digest=a.blob, size_bytes=a.size_bytes)
                for a in result.artifacts
                if a.blob is not None
            ),
            cost=Cost(latency_ms=result.usage.wall_ms, priced=True, cost_microusd=0),
            provenance=Provenance(
                image_digest=result.image, tree_in_digest=result.tree_in, tree_out_digest=result.tree_out
            ),
        )
        await self.record(f"{step_id}/finish", payload, actor=work.seat.principal)

    async def ask(self, step: str, request: AgentRequest, work: Work, *, timeout_s: float = 600) -> AgentAnswer:
        """The recorded answer of a role agent. A reply that stays malformed is recorded as a failed step and raised."""
        step_id = StepId(step)
        finished = self._finished(step_id)
        if finished is None:
            tokens = request.sampling.max_tokens + (len(request.shared) + len(request.own)) // 3
            digest = digest_of_json(_plain(asdict(request)))
            await self._start(step_id, digest, work, kind="model", effect="PURE", wall_s=int(timeout_s), tokens=tokens)
            try:
                answer = await self._agents.ask(request, request_id=f"{self.story_id}/{step}", timeout_s=timeout_s)
            except (ReplyMalformed, ReplyRefused, ContextTooLarge) as error:
                await self._fail(step_id, error, work)
            else:
                await self._finish_ask(step_id, answer, work, seed=request.sampling.seed)
            finished = self._finished(step_id)
        assert finished is not None
        raw = await self.blobs.get(finished.result_digest)
        if finished.outcome != "succeeded":
            raise from_wire(json.loads(raw))
        return _ANSWER.validate_json(raw)

    async def _finish_ask(self, step_id: StepId, answer: AgentAnswer, work: Work, *, seed: int) -> None:
        payload = StepFinished(
            step_id=step_id,
            outcome="succeeded",
            result_digest=await self.blobs.put(_ANSWER.dump_json(answer)),
            cost=Cost(
                tokens_in=answer.usage.tokens_in,
                tokens_out=answer.usage.tokens_out,
                tokens_cached=answer.usage.tokens_cached,
                latency_ms=answer.latency_ms,
                priced=False,
            ),
            provenance=Provenance(
                engine=answer.engine,
                model=answer.model,
                revision=answer.revision,
                seed=seed,
                prompt_digest=answer.prompt,
            ),
        )
        await self.record(f"{step_id}/finish", payload, actor=work.seat.principal)

    async def _fail(self, step_id: StepId, error: FleetError, work: Work) -> None:
        payload = StepFinished(
            step_id=step_id,
            outcome="failed",
            result_digest=await self.blobs.put(canonical_json(_plain(error.to_wire()))),
            excerpt=error.message[:4000],
            # Tokens of replies that could not be used were spent all the same (MB-30).
            cost=_spent(error),
            provenance=Provenance(),
            error_code=error.code,
        )
        await self.record(f"{step_id}/finish", payload, actor=work.seat.principal)

    async def act(
        self, step: str, request: dict[str, Any], work: Work, effect: Callable[[], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        """The recorded result of a KEYED effect whose receiver compares the state it expects (RC-51)."""
        step_id = StepId(step)
        finished = self._finished(step_id)
        if finished is None:
            await self._start(step_id, digest_of_json(request), work, kind="tool", effect="KEYED", wall_s=300)
            result = await effect()
            payload = StepFinished(
                step_id=step_id,
                outcome="succeeded",
                result_digest=await self.blobs.put(canonical_json(result)),
                cost=Cost(priced=True, cost_microusd=0),
                provenance=Provenance(),
            )
            await self.record(f"{step_id}/finish", payload, actor=work.seat.principal)
            finished = self._finished(step_id)
        assert finished is not None
        return json.loads(await self.blobs.get(finished.result_digest))

    def _finished(self, step_id: StepId) -> StepFinished | None:
        step = self.state.steps.get(step_id)
        return step.finished if step else None

    async def _start(
        self,
        step_id: StepId,
        request: Digest,
        work: Work,
        *,
        kind: Literal["model", "run", "tool"],
        effect: Literal["PURE", "KEYED"],
        wall_s: int,
        tokens: int = 0,
    ) -> RunKey:
        key = RunKey(hashlib.sha256(f"{self.story_id}\0{step_id}\0{request}".encode()).hexdigest())
        known = self.state.steps.get(step_id)
        if known is not None:
            if known.started.request_digest != request:
                raise NondeterministicPlan(
                    f"step {step_id} has request {known.started.request_digest} on record and would now have {request}",
                    step_id=step_id,
                )
            return key
        payload = StepStarted(
            step_id=step_id,
            kind=kind,
            tool=work.tool,
            op=work.op,
            effect=effect,
            task_id=work.task_id,
            council_id=work.council_id,
            as_role=work.seat.role,
            principal=work.seat.principal,
            request_digest=request,
            key=key,
            deadline_ms=self.clock.now_ms() + wall_s * 1000,
            policy=self._policy,
            reserve=Reserve(tokens=tokens, wall_ms=wall_s * 1000),
        )
        await self.record(f"{step_id}/start", payload, actor=work.seat.principal)
        return key


def _spent(error: FleetError) -> Cost:
    usage = error.details.get("usage")
    known: dict[str, Any] = usage if isinstance(usage, dict) else {}  # pyright: ignore[reportUnknownVariableType]
    return Cost(tokens_in=known.get("tokens_in", 0), tokens_out=known.get("tokens_out", 0))


def _excerpt(result: RunResult) -> str | None:
    text = (result.stdout.text + result.stderr.text).strip()
    return (text[:6000] + "\n[...]\n" + text[-3000:] if len(text) > 9500 else text) or None


def _plain(value: Any) -> Any:
    match value:
        case float():
            return repr(value)
        case dict():
            return {str(k): _plain(v) for k, v in cast("dict[Any, Any]", value).items()}
        case list() | tuple():
            return [_plain(v) for v in value]  # pyright: ignore[reportUnknownVariableType]
        case None | bool() | int() | str():
            return value
        case _:
            return _plain(value.model_dump(mode="json")) if hasattr(value, "model_dump") else str(value)
