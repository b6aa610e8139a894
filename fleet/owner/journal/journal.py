"""The journal of one story: every effect is a step that is started, done, and finished on record.

A procedure that runs again after a crash asks for the same steps by the same names. A finished step answers from its
record; an unfinished one is settled by its effect class (RC-50..RC-52). So no recorded answer is paid for twice.
An unfinished step that would now ask for something else, because the model, a prompt or the program is another one, is
opened anew as a further attempt; both requests are on record (RC-58).

    PURE    `ask`                run again; only one answer is ever recorded, within the budgets of MB-20
            `compute`            worked out by the owner from what is on record: start and end are one append
    KEYED   `run`                the supervisor is asked by key: attach, take its record, or run
            `act`                the receiver compares the state it expects, so doing it again changes nothing: the
                                 branch of a story is created only where there is none, and its change request is
                                 found again by that branch
    UNSAFE  `act_unsafe`         never repeated: StepOutcomeUnknown, and a probe or a person says what came of it

Source: docs/design/design.md, section 4.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from typing import Any

from fleet.context.port import CountRequest, Packs
from fleet.events.payload import Payload
from fleet.events.step import StepFinished, StepOutcomeUnknown, StepResolved, StepStarted
from fleet.kernel.clock import Clock
from fleet.kernel.digest import canonical_json, digest_of_json
from fleet.kernel.errors import (
    BudgetExceeded,
    CommitUnknown,
    ContextTooLarge,
    FleetError,
    NotFound,
    OwnershipError,
    ReplyMalformed,
    ReplyRefused,
    SandboxUnavailable,
    StoreUnavailable,
    from_wire,
)
from fleet.kernel.ids import SYSTEM, Digest, Principal, RunKey, StepId, StoryId
from fleet.kernel.types import ProbeResult
from fleet.log.port import EventLog, SnapshotStore
from fleet.models.port import AgentAnswer, AgentRequest, Agents
from fleet.models.prompts.pack_readers import PACK_READERS
from fleet.owner.budgets import Budgeting, bounded_request, refusal_of
from fleet.owner.journal.step_records import (
    ANSWER,
    RUN_TRIES,
    call_need,
    call_tag,
    charged_failure,
    denied_call,
    failed_step,
    fallbacks_of,
    finished_ask,
    finished_effect,
    finished_run,
    is_no_result,
    outcome_unknown,
    request_digest,
    require_same_tree,
    require_sent,
    run_attempts,
    started_step,
)
from fleet.owner.journal.steps import Computed, Probe, StepPolicy, StepTerms, Work
from fleet.owner.journal.story_stream import StoryStream
from fleet.owner.platform_view import PlatformView
from fleet.policy.rules.calls import Allowed, Denied, NeedsApproval
from fleet.policy.rules.policy import enforce
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.sandbox.port import Sandbox
from fleet.story.allowance import CallNeed, allow_again, exhaustion_of, require_room, require_steps
from fleet.story.commands.interventions import require_unpaused
from fleet.story.evolve.budgets import without_hold
from fleet.story.state import Step
from fleet.story.tool_steps import request_consent, step_key
from fleet.trees.port import BlobStore

_COMPUTED_S = 60
"""Wall time that stands in the record of an effect that takes milliseconds."""
_ENDING_S = 60
"""How long a run that is no longer wanted may take to end; the grace of its command is shorter (RC-24)."""


class Journal(StoryStream):
    """The stream of a story, and the only way to do something that is on record.

    Args:
        packs: counts prompts with the tokenizers that the story began with; without it they are estimated.
        platform: says whether the project or the fleet is paused; None never is.
    """

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
        policy: StepPolicy,
        snapshots: SnapshotStore | None = None,
        budgeting: Budgeting | None = None,
        platform: PlatformView | None = None,
        packs: Packs | None = None,
    ) -> None:
        super().__init__(log=log, clock=clock, story_id=story_id, epoch=epoch, snapshots=snapshots)
        self.blobs, self.policy, self.platform = blobs, policy, platform
        self._sandbox, self._agents, self._packs = sandbox, agents, packs
        self.budgeting = budgeting or Budgeting()
        self._running = set[RunKey]()
        # One call at a time looks at what is left and takes its part, of a budget or of the steps (MB-22).
        self._taking, self._counting = asyncio.Lock(), asyncio.Lock()
        self._asking, self._call_ended = list[StepId](), asyncio.Event()

    async def load(self) -> None:
        """As of a stream; what an earlier owner could not settle of the day's totals is settled."""
        await super().load()
        if self.exists:
            await self.budgeting.catch_up(self.state)

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
        """The recorded result of this run: asked of the sandbox by key, so that it counts once (RC-51).

        Raises NondeterministicPlan when the recorded result is about another tree: it says nothing of this one.
        """
        step_id = StepId(step)
        finished = self._finished(step_id)
        if finished is None:
            await self._require_room(step_id, work)
            result = await self._run_before(step_id, spec)
            if result is None:
                await self._start(step_id, spec.digest, work, StepTerms("run", "KEYED", spec.limits.overall_s))
                result = await self.run_by_key(step_id, spec)
            finished = await self._finish(await finished_run(self.blobs, step_id, result), work)
        seen = RunResult.model_validate_json(await self.blobs.get(finished.result_digest))
        require_same_tree(step_id, seen, spec)
        return seen

    async def _run_before(self, step_id: StepId, spec: RunSpec) -> RunResult | None:
        """How the run ended that the step asked for with another request, by the word of its receiver (RC-58).

        One that is under way is ended: nobody wants it any more. None when it came to nothing or is about another tree.

        Raises SandboxUnavailable while it cannot be ended.
        """
        step = self.state.steps.get(step_id)
        if step is None or step.started.request_digest == spec.digest:
            return None
        for key in run_attempts(self.story_id, step_id, step.started.request_digest):
            try:
                await self._sandbox.cancel(key)
                seen = await self._sandbox.progress(key, wait_s=_ENDING_S)
            except NotFound:
                return None
            if seen.status == "running":
                raise SandboxUnavailable(f"run {key}, which step {step_id} no longer wants, is still being ended")
            if seen.result is not None and not is_no_result(seen.result):
                return seen.result if seen.result.tree_in in (None, spec.tree) else None
        return None

    async def _require_room(self, step_id: StepId, work: Work) -> None:
        """A run may start. It uses no tokens, so it ends only with the time of its story or task (MB-25, MB-27)."""
        if step_id in self.state.steps:
            return
        try:
            require_room(
                self.state,
                self.budgeting.limits,
                task_id=work.task_id,
                now_ms=self.clock.now_ms(),
                quantities=("wall_ms", "gpu_ms"),
            )
        except BudgetExceeded as error:
            raise await self.exceeded(error) from error

    async def cancel_run(self, key: RunKey) -> None:
        """The run of this key is being ended, wherever it is under way."""
        await self._sandbox.cancel(key)

    async def run_by_key(self, step_id: StepId, spec: RunSpec, *, is_unsafe: bool = False) -> RunResult:
        """How a run ended whose start is on record; asked of the sandbox by key (RC-51).

        A run that was killed with its owner, its node or its supervisor is tried again under the next key (RC-27); one
        that may not be repeated only where its owner had it killed itself (RC-52).
        """
        for attempt in range(1, RUN_TRIES + 1):
            result = await self._run_once(step_key(self.story_id, step_id, spec.digest, attempt), spec)
            if not is_no_result(result) or attempt == RUN_TRIES or (is_unsafe and result.status == "error"):
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

    async def act(
        self,
        step: str,
        request: dict[str, Any],
        work: Work,
        effect: Callable[[], Awaitable[dict[str, Any]]],
        *,
        keeps_failure: bool = False,
        wall_s: int = 300,
    ) -> dict[str, Any]:
        """The recorded result of a KEYED effect whose receiver compares the state it expects (RC-51).

        Args:
            effect: a `summary` in its result is what people are shown of the step.
            keeps_failure: an error of the effect is recorded as the step's result, and raised each time.
            wall_s: how long it may take.
        """
        step_id, digest = StepId(step), digest_of_json(request)
        finished = self._finished(step_id)
        if finished is None:
            await self._start(step_id, digest, work, StepTerms("tool", "KEYED", wall_s))
            self.admit()
            try:
                result = await effect()
            except OwnershipError:
                raise
            except FleetError as error:
                if not keeps_failure:
                    raise
                payload = await failed_step(self.blobs, step_id, error)
            else:
                payload = await finished_effect(self.blobs, step_id, result)
            finished = await self._finish(payload, work)
        return json.loads(await self._result(finished))

    async def compute(
        self, step: str, request: Digest, work: Work, effect: Callable[[], Awaitable[Computed]]
    ) -> dict[str, Any]:
        """The recorded result of a PURE effect that this owner works out itself, from what is on record (RC-50).

        Nothing outside sees such an effect, so it is not announced first: start and end are one append, and there is
        never a call without its result.
        """
        step_id = StepId(step)
        finished = self._finished(step_id)
        if finished is None:
            outcome = await effect()
            payload = await finished_effect(self.blobs, step_id, outcome.result, trees=outcome.trees)
            async with self._counting:
                started = await self._starting(step_id, request, work, StepTerms("tool", "PURE", _COMPUTED_S))
                finished = await self.finish(started, payload, step_id=step_id, actor=work.seat.principal)
        return json.loads(await self.blobs.get(finished.result_digest))

    # Steps whose effect may not be repeated (RC-52, RC-57).

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

        A step that was started and has no result is never repeated, whatever would be sent today (RC-58). The probe may
        resolve it; otherwise a person has to (`resolve_step`): `happened` counts as its result, `not_happened` lets it
        run again under a new key.

        Raises:
            OutcomeUnknown: until the step is resolved; details name the step and the blob of what was sent.
            NondeterministicPlan: something else was sent and has happened. Its result would be taken for that of this
                request.
        """
        step_id = StepId(step)
        # The blob of the request has the digest that the step names, so that a person can be shown what was sent.
        digest = await self.blobs.put(canonical_json(request))
        finished = self._finished(step_id)
        step_state = self.state.steps.get(step_id)
        if finished is None and step_state is not None and step_state.resolution != "not_happened":
            await self._settle(step_state, work, probe)
            finished = self._finished(step_id)
        if finished is not None:
            require_sent(self.state.steps[step_id], digest)
        else:
            key = await self._start(step_id, digest, work, StepTerms("tool", "UNSAFE", wall_s))
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
            sent = (await self.blobs.get(started.request_digest)).decode()
            raise outcome_unknown(self.story_id, step, sent=sent, probe=probe)
        resolved = StepResolved(
            step_id=started.step_id, outcome=seen, by=SYSTEM, note=f"probe {probe.name}", probe_result=seen
        )
        payloads: tuple[Payload, ...] = (resolved,)
        if seen == "happened":
            result = {"outcome": "happened", "by": SYSTEM, "note": resolved.note}
            payloads = (resolved, await finished_effect(self.blobs, started.step_id, result, reason="resolved"))
        await self.record(f"{started.step_id}/resolved/{attempt}", *payloads)

    async def _probed(self, probe: Probe | None) -> ProbeResult:
        if probe is None:
            return "cannot_tell"
        self.admit()
        try:
            return await probe.look()
        except OwnershipError:
            raise
        except FleetError:
            return "cannot_tell"

    # Asking a model

    def is_asking(self, step_id: StepId) -> bool:
        """Whether a model is at work on this step for this owner; what it uses is not on record yet."""
        return step_id in self._asking

    async def ask(self, step: str, request: AgentRequest, work: Work, *, timeout_s: float = 600) -> AgentAnswer:
        """The recorded answer of a role agent. A reply that stays malformed is recorded as a failed step and raised.

        The reply's bound is lowered to what the budgets leave; what was recorded holds for a step that was started.

        Raises BudgetExceeded when a budget cannot hold a useful call: none is made, and the limit is on record (MB-22).
        """
        step_id = StepId(step)
        finished = self._finished(step_id)
        if finished is None:
            request = await self._counted(replace(request, tag=call_tag(self.state, work)))
            prompt_tokens = self.budgeting.prompt_tokens(request)
            request = self.budgeting.bounded(request, prompt_tokens)
            request, digest = self._as_started(step_id, request)
            need = call_need(step_id, request, work, prompt_tokens, price=self.budgeting.price(request.model))
            request = await self._reserved(need, request, digest, work, timeout_s=timeout_s)
            self._asking.append(step_id)
            try:
                finished = await self._called(step_id, request, work, timeout_s=timeout_s)
            finally:
                self._asking.remove(step_id)
                self._call_ended.set()
        return ANSWER.validate_json(await self._result(finished))

    async def _counted(self, request: AgentRequest) -> AgentRequest:
        """The request with the tokens of its prompt, as the models count them that the story began with (CX-20).

        What is decided with the count is on record with the step. A story from before wrote down no readers, and is
        estimated; a policy that it did not write down counts as it is configured now.
        """
        if self._packs is None or PACK_READERS not in self.state.config:
            return request
        asked = CountRequest(self.story_id, request.role, request.texts, self.state.version, request.policy)
        return replace(request, counted=await self._packs.count(asked))

    async def _called(self, step_id: StepId, request: AgentRequest, work: Work, *, timeout_s: float) -> StepFinished:
        self.admit()
        fallbacks: tuple[Payload, ...] = ()
        try:
            answer = await self._agents.ask(request, request_id=f"{self.story_id}/{step_id}", timeout_s=timeout_s)
        except (ReplyMalformed, ReplyRefused, ContextTooLarge) as error:
            payload = await failed_step(self.blobs, step_id, error)
        except FleetError as error:
            await self._charge(step_id, error)
            raise
        else:
            payload = await finished_ask(self.blobs, step_id, answer, seed=request.sampling.seed)
            fallbacks = fallbacks_of(step_id, answer)
        finished = await self._finish(payload, work, *fallbacks)
        # Whoever loads the story next settles what is still open, so an outage here costs nothing but its hold.
        with contextlib.suppress(StoreUnavailable, CommitUnknown):
            await self.budgeting.settle(self.state, payload, epoch=self._epoch, now_ms=self.clock.now_ms())
        return finished

    async def _charge(self, step_id: StepId, error: FleetError) -> None:
        """Charges what calls used that leave their step open, to the story and to its day."""
        if charged := charged_failure(step_id, error):
            await self.record(f"{step_id}/charged/{self.state.version}", charged)
            await self.budgeting.charge(self.state, charged, epoch=self._epoch, now_ms=self.clock.now_ms())

    def _as_started(self, step_id: StepId, request: AgentRequest) -> tuple[AgentRequest, Digest]:
        """The request with the reply's bound that is on record for the step, if it was lowered; and its digest.

        A bound belongs to its request: another one, of a new prompt or model, gets a bound of its own (RC-58).
        """
        step = self.state.steps.get(step_id)
        bound = step.started.reserve.output_tokens if step else None
        bounded = request if bound is None else bounded_request(request, bound)
        digest = request_digest(bounded)
        if bounded is request or self.is_open(step_id, digest):
            return bounded, digest
        return request, request_digest(request)

    async def _reserved(
        self, need: CallNeed, request: AgentRequest, digest: Digest, work: Work, *, timeout_s: float
    ) -> AgentRequest:
        """The request as the budgets allow it; its reservation is on record, in the same append as its start."""
        while True:
            self._call_ended.clear()
            try:
                async with self._taking:
                    return await self._taken(need, request, digest, work, timeout_s=timeout_s)
            except BudgetExceeded as error:
                # What calls under way hold may be more than they use: only what they leave says that there is none.
                if not self._asking:
                    raise await self.exceeded(error) from error
            await self._call_ended.wait()

    async def _taken(
        self, need: CallNeed, request: AgentRequest, digest: Digest, work: Work, *, timeout_s: float
    ) -> AgentRequest:
        step_id, now_ms, epoch = need.step_id, self.clock.now_ms(), self._epoch
        if self.is_open(step_id, digest):
            allow_again(self.state, self.budgeting.limits, need, now_ms=now_ms)
            await self.budgeting.hold_again(self.state, step_id, epoch=epoch, now_ms=now_ms)
            return request
        before = self.state.steps.get(step_id)  # what it holds for an earlier request is free for this one
        state = self.state if before is None else without_hold(self.state, before.started)
        allowance = await self.budgeting.allow(state, need, epoch=epoch, now_ms=now_ms)
        bounded = bounded_request(request, allowance.max_tokens)
        if bounded is not request:
            digest = request_digest(bounded)
        reserve = allowance.reserve.model_copy(update={"wall_ms": int(timeout_s) * 1000})
        try:
            terms = StepTerms("model", "PURE", int(timeout_s), reserve)
            await self._start(step_id, digest, work, terms, *allowance.warnings)
        except (CommitUnknown, OwnershipError):
            raise  # it may be on record, or another owner's: whoever loads the story settles the hold
        except FleetError:
            if before is None:
                await self.budgeting.release(self.state, step_id, epoch=epoch, now_ms=now_ms)
            raise
        return bounded

    async def exceeded(self, error: BudgetExceeded) -> BudgetExceeded:
        """The limit that stopped a call is on record, once; the error says how the story goes on."""
        exhausted = exhaustion_of(error)
        if exhausted is None:
            return error
        scope = exhausted.scope
        name = f"budget/exhausted/{scope.kind}/{scope.id}/{exhausted.limit}/{exhausted.max}"
        if self.state.budgets.usage(scope).exhausted.get(exhausted.limit) != exhausted.max:
            await self.record(f"{name}/{self.state.version}", exhausted)
        return refusal_of(self.story_id, error, exhausted)

    # Start and end

    def is_open(self, step_id: StepId, request: Digest) -> bool:
        """Whether the step is on record as started with this very request, and may still be carried out under it."""
        step = self.state.steps.get(step_id)
        return step is not None and step.started.request_digest == request and step.resolution != "not_happened"

    def _finished(self, step_id: StepId) -> StepFinished | None:
        """The recorded result. It stays, whatever the step would ask for today (RC-58)."""
        step = self.state.steps.get(step_id)
        return step.finished if step else None

    async def _result(self, finished: StepFinished) -> bytes:
        """The recorded result; the recorded error is raised."""
        raw = await self.blobs.get(finished.result_digest)
        if finished.outcome != "succeeded":
            raise from_wire(json.loads(raw))
        return raw

    async def finish(self, *payloads: Payload, step_id: StepId, actor: Principal) -> StepFinished:
        """The result on record once these payloads are; it may be that of another call (EV-15)."""
        await self.record(f"{step_id}/finish", *payloads, actor=actor)
        finished = self._finished(step_id)
        assert finished is not None, "the payloads hold it, or the record did before"
        return finished

    async def _finish(self, payload: StepFinished, work: Work, *also: Payload) -> StepFinished:
        return await self.finish(payload, *also, step_id=payload.step_id, actor=work.seat.principal)

    async def begin(self, started: StepStarted, *also: Payload) -> RunKey:
        """The step is on record as started, under this key, and what belongs to it with it (RC-55).

        A step that was started with another request is started again: both requests are on record (RC-58).
        """
        step_id, step = started.step_id, self.state.steps.get(started.step_id)
        if step is not None and self.is_open(step_id, started.request_digest):
            return step.started.key
        phase = f"{step_id}/start" if step is None else f"{step_id}/start/{step.attempt + 1}"
        await self.record(phase, started, *also, actor=started.principal)
        return started.key

    async def _start(self, step_id: StepId, request: Digest, work: Work, terms: StepTerms, *also: Payload) -> RunKey:
        """As `begin`, for a step of this request that the policy allows."""
        if self.is_open(step_id, request):
            return self.state.steps[step_id].started.key
        async with self._counting:
            return await self.begin(await self._starting(step_id, request, work, terms), *also)

    async def _starting(self, step_id: StepId, request: Digest, work: Work, terms: StepTerms) -> StepStarted:
        """What is recorded when the step starts, once the story runs and the policy allows it."""
        is_new = step_id not in self.state.steps
        if self.platform is not None:
            # Not refused but held: what else the procedure has under way may finish (PL-50).
            await self.platform.until_running(self.state.project_id)
        require_unpaused(self.state)
        if is_new:
            require_steps(self.state, self.budgeting.limits.steps, task_id=work.task_id)
        allowed = await self._allowed(step_id, work)
        return started_step(self.state, step_id, work, request, allowed, terms, now_ms=self.clock.now_ms())

    async def _allowed(self, step_id: StepId, work: Work) -> Allowed:
        """What the policy says of the step. A refusal is on record, and a person who has to say yes is asked.

        Raises PolicyDenied, which parks the story; ApprovalRequired, with which the step waits (RT-31, RT-34).
        """
        seat = work.seat
        decision = self.policy.decide_step(
            self.state,
            work.tool,
            work.op,
            principal=seat.principal,
            role=seat.role,
            args=work.args,
            now_ms=self.clock.now_ms(),
        )
        match decision:
            case Denied():
                denied = denied_call(work, decision.rule_id, decision.policy_digest, decision.reason)
                await self.record(f"{step_id}/denied/{self.state.version}", denied, actor=seat.principal)
            case NeedsApproval():
                call = {"tool": work.tool, "op": work.op, "args": dict(work.args), "tree": self.state.tree}
                call |= {"role": seat.role, "principal": seat.principal, "step": step_id, "task": work.task_id}
                most, now_ms = self.policy.fsm.limits.expiries_before_park, self.clock.now_ms()
                consent = request_consent(
                    self.state, decision, requester=SYSTEM, call=call, now_ms=now_ms, most_unanswered=most
                )
                if consent.card:
                    await self.blobs.put(consent.card)
                if consent.records:
                    await self.record(consent.name, *consent.records)
                decision = decision.model_copy(update={"approval_id": consent.approval_id})
            case Allowed():
                pass
        return enforce(decision)
