"""The journal of one story: every effect is a step that is started, done, and finished on record (DESIGN.md 4).

A procedure that runs again after a crash asks for the same steps by the same names. A finished step answers from its
record; an unfinished one is settled by its effect class (RC-50..RC-52). So no recorded answer is paid for twice.

    PURE    `ask`                run again; only one answer is ever recorded
    KEYED   `run`                the supervisor is asked by key: attach, take its record, or run
            `act`                the receiver compares the state it expects, so doing it again changes nothing;
                                 its one use is the branch of a story, which is created only where there is none
    UNSAFE  `act_unsafe`         never repeated: StepOutcomeUnknown, and a probe or a person says what came of it
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fleet.digest import canonical_json, digest_of_json
from fleet.errors import (
    ContextTooLarge,
    FleetError,
    NondeterministicPlan,
    OutcomeUnknown,
    OwnershipError,
    ReplyMalformed,
    ReplyRefused,
    SandboxUnavailable,
    from_wire,
)
from fleet.events import Payload, PolicyRef, Reserve, StepFinished, StepOutcomeUnknown, StepResolved, StepStarted
from fleet.ids import Digest, EntityId, Principal, RunKey, StepId, StoryId
from fleet.ports import AgentAnswer, AgentRequest, Agents, BlobStore, Clock, EventLog, Sandbox, SnapshotStore
from fleet.services.step_records import (
    ANSWER,
    failed_step,
    finished_ask,
    finished_effect,
    finished_run,
    plain,
    step_key,
)
from fleet.services.story_stream import SYSTEM, StoryStream
from fleet.story import Step
from fleet.tools import RunResult, RunSpec

__all__ = ["SYSTEM", "Journal", "Probe", "Seat", "Work"]

_RUN_TRIES = 3
"""How often a run is asked for that an earlier owner had cancelled when it lost the story."""


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


@dataclass(frozen=True, slots=True)
class Probe:
    """A read-only look at whether an UNSAFE effect happened (RC-57)."""

    name: str
    look: Callable[[], Awaitable[Literal["happened", "not_happened", "cannot_tell"]]]


class Journal(StoryStream):
    """The owner's hand on one stream: state, head, and the only way to do something that is on record."""

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
        snapshots: SnapshotStore | None = None,
    ) -> None:
        super().__init__(log=log, clock=clock, story_id=story_id, epoch=epoch, snapshots=snapshots)
        self.blobs = blobs
        self._sandbox, self._agents, self._policy = sandbox, agents, policy
        self._running: set[RunKey] = set()

    @property
    def running(self) -> tuple[RunKey, ...]:
        """The keys of runs that were asked for under this epoch and not answered."""
        return tuple(self._running)

    async def abandon(self, keys: Collection[RunKey]) -> None:
        """The supervisors were told to kill these runs; whoever owns the story next runs them anew if it needs them."""
        for key in keys:
            with contextlib.suppress(FleetError):
                await self._sandbox.cancel(key)
            self._running.discard(key)

    async def run(self, step: str, spec: RunSpec, work: Work) -> RunResult:
        """The recorded result of this run: asked of the sandbox by key, so that it counts once (RC-51)."""
        step_id = StepId(step)
        finished = self._finished(step_id, spec.digest)
        if finished is None:
            await self._start(step_id, spec.digest, work, kind="run", effect="KEYED", wall_s=spec.limits.overall_s)
            result = await self._run_by_key(step_id, spec)
            finished = await self._finish(await finished_run(self.blobs, step_id, result), work)
        return RunResult.model_validate_json(await self.blobs.get(finished.result_digest))

    async def _run_by_key(self, step_id: StepId, spec: RunSpec) -> RunResult:
        for attempt in range(1, _RUN_TRIES + 1):
            key = step_key(self.story_id, step_id, spec.digest, attempt)
            result = await self._run_once(key, spec)
            # An owner that loses its story has its runs killed. That is no result of the run, and its key is used up.
            if result.status != "cancelled" or attempt == _RUN_TRIES:
                return result
        raise AssertionError("unreachable")

    async def _run_once(self, key: RunKey, spec: RunSpec) -> RunResult:
        self.admit()
        self._running.add(key)
        try:
            result = await self._sandbox.run(spec, story=self.story_id, key=key, epoch=self._epoch)
        except SandboxUnavailable:
            self._running.discard(key)
            raise
        self._running.discard(key)
        return result

    async def ask(self, step: str, request: AgentRequest, work: Work, *, timeout_s: float = 600) -> AgentAnswer:
        """The recorded answer of a role agent. A reply that stays malformed is recorded as a failed step and raised."""
        step_id, digest = StepId(step), digest_of_json(plain(asdict(request)))
        finished = self._finished(step_id, digest)
        if finished is None:
            tokens = request.sampling.max_tokens + (len(request.shared) + len(request.own)) // 3
            await self._start(step_id, digest, work, kind="model", effect="PURE", wall_s=int(timeout_s), tokens=tokens)
            self.admit()
            try:
                answer = await self._agents.ask(request, request_id=f"{self.story_id}/{step}", timeout_s=timeout_s)
            except (ReplyMalformed, ReplyRefused, ContextTooLarge) as error:
                payload = await failed_step(self.blobs, step_id, error)
            else:
                payload = await finished_ask(self.blobs, step_id, answer, seed=request.sampling.seed)
            finished = await self._finish(payload, work)
        raw = await self.blobs.get(finished.result_digest)
        if finished.outcome != "succeeded":
            raise from_wire(json.loads(raw))
        return ANSWER.validate_json(raw)

    async def act(
        self, step: str, request: dict[str, Any], work: Work, effect: Callable[[], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        """The recorded result of a KEYED effect whose receiver compares the state it expects (RC-51)."""
        step_id, digest = StepId(step), digest_of_json(request)
        finished = self._finished(step_id, digest)
        if finished is None:
            await self._start(step_id, digest, work, kind="tool", effect="KEYED", wall_s=300)
            self.admit()
            finished = await self._finish(await finished_effect(self.blobs, step_id, await effect()), work)
        return json.loads(await self.blobs.get(finished.result_digest))

    async def act_unsafe(
        self,
        step: str,
        request: dict[str, Any],
        work: Work,
        effect: Callable[[RunKey], Awaitable[dict[str, Any]]],
        *,
        probe: Probe | None = None,
        wall_s: int = 300,
    ) -> dict[str, Any]:
        """The recorded result of an UNSAFE effect, which is started at most once per attempt (RC-52).

        A step that was started and has no result is never repeated. The probe may resolve it; otherwise a person has
        to (`resolve_step`): `happened` counts as its result, `not_happened` lets it run again under a new key.

        Raises OutcomeUnknown until the step is resolved; details name the step and the blob of what was sent.
        """
        step_id = StepId(step)
        # The blob of the request has the digest that the step names, so that a person can be shown what was sent.
        digest = await self.blobs.put(canonical_json(request))
        finished = self._finished(step_id, digest)
        known = self.state.steps.get(step_id)
        if finished is None and known is not None and known.resolution != "not_happened":
            await self._settle(known, work, probe)
            finished = self._finished(step_id, digest)
        if finished is None:
            key = await self._start(step_id, digest, work, kind="tool", effect="UNSAFE", wall_s=wall_s)
            finished = await self._do_once(step_id, key, work, effect, probe)
        return json.loads(await self.blobs.get(finished.result_digest))

    async def _do_once(
        self,
        step_id: StepId,
        key: RunKey,
        work: Work,
        effect: Callable[[RunKey], Awaitable[dict[str, Any]]],
        probe: Probe | None,
    ) -> StepFinished:
        self.admit()
        try:
            result = await effect(key)
        except OwnershipError:
            raise
        except FleetError:
            # The request may have arrived all the same: an error says nothing about an effect that has no key.
            await self._settle(self.state.steps[step_id], work, probe)
            finished = self.state.steps[step_id].finished
            if finished is None:
                raise  # the probe says that it did not happen: the next try starts it again under a new key
            return finished
        return await self._finish(await finished_effect(self.blobs, step_id, result), work)

    async def _settle(self, step: Step, work: Work, probe: Probe | None) -> None:
        """The unknown step is resolved by the probe. Raises OutcomeUnknown when it is not."""
        started, attempt = step.started, step.attempt
        if step.resolution == "happened":
            result = {"outcome": "happened", "by": SYSTEM, "note": "resolved before"}
            await self._finish(await finished_effect(self.blobs, started.step_id, result, reason="resolved"), work)
            return
        unknown = StepOutcomeUnknown(
            step_id=started.step_id,
            sent_digest=started.request_digest,
            sent_at=step.started_ms,
            probe=probe.name if probe else None,
        )
        await self.record(f"{started.step_id}/unknown/{attempt}", unknown)
        seen = await self._probed(probe)
        if probe is None or seen == "cannot_tell":
            raise await self._outcome_unknown(step, probe)
        resolved = StepResolved(
            step_id=started.step_id, outcome=seen, by=SYSTEM, note=f"probe {probe.name}", probe_result=seen
        )
        payloads: tuple[Payload, ...] = (resolved,)
        if seen == "happened":
            result = {"outcome": "happened", "by": SYSTEM, "note": resolved.note}
            payloads = (resolved, await finished_effect(self.blobs, started.step_id, result, reason="resolved"))
        await self.record(f"{started.step_id}/resolved/{attempt}", *payloads)

    async def _probed(self, probe: Probe | None) -> Literal["happened", "not_happened", "cannot_tell"]:
        if probe is None:
            return "cannot_tell"
        self.admit()
        try:
            return await probe.look()
        except OwnershipError:
            raise
        except FleetError:
            return "cannot_tell"

    async def _outcome_unknown(self, step: Step, probe: Probe | None) -> OutcomeUnknown:
        started = step.started
        sent = (await self.blobs.get(started.request_digest)).decode()
        looked = f"probe {probe.name} cannot tell" if probe else "it has no probe"
        return OutcomeUnknown(
            f"step {started.step_id} ({started.tool}.{started.op}) was sent and its outcome is not known; {looked}. "
            f"It is never repeated by itself: find out whether it happened, then run `fleet story resolve "
            f"{self.story_id} {started.step_id} --outcome happened|not_happened --note ...`. Sent: {sent[:2000]}",
            step_id=started.step_id,
            sent_digest=started.request_digest,
            sent_at=step.started_ms,
        )

    def _finished(self, step_id: StepId, request: Digest) -> StepFinished | None:
        step = self.state.steps.get(step_id)
        if step is not None and step.started.request_digest != request:
            raise NondeterministicPlan(
                f"step {step_id} has request {step.started.request_digest} on record and would now have {request}",
                step_id=step_id,
                recorded=step.started.request_digest,
                wanted=request,
            )
        return step.finished if step else None

    async def _finish(self, payload: StepFinished, work: Work) -> StepFinished:
        """The result on record, which may be that of another call (EV-15)."""
        await self.record(f"{payload.step_id}/finish", payload, actor=work.seat.principal)
        finished = self.state.steps[payload.step_id].finished
        assert finished is not None
        return finished

    async def _start(
        self,
        step_id: StepId,
        request: Digest,
        work: Work,
        *,
        kind: Literal["model", "run", "tool"],
        effect: Literal["PURE", "KEYED", "UNSAFE"],
        wall_s: int,
        tokens: int = 0,
    ) -> RunKey:
        """The step is on record as started, under this key (RC-55)."""
        known = self.state.steps.get(step_id)
        if known is not None and known.resolution != "not_happened":
            return known.started.key
        attempt = known.attempt + 1 if known else 1
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
            key=step_key(self.story_id, step_id, request, attempt),
            deadline_ms=self.clock.now_ms() + wall_s * 1000,
            policy=self._policy,
            reserve=Reserve(tokens=tokens, wall_ms=wall_s * 1000),
        )
        phase = f"{step_id}/start" if attempt == 1 else f"{step_id}/start/{attempt}"
        await self.record(phase, payload, actor=work.seat.principal)
        return payload.key
