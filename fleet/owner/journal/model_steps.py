"""Steps that ask a model: within the budgets, and each answer is paid for once (MB-20..MB-25)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from typing import Any

from fleet.context.port import CountRequest, Packs
from fleet.events.payload import Payload
from fleet.events.step import StepFinished
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import (
    BudgetExceeded,
    CommitUnknown,
    ContextTooLarge,
    FleetError,
    OwnershipError,
    ReplyMalformed,
    ReplyRefused,
    StoreUnavailable,
    from_wire,
)
from fleet.kernel.ids import Digest, StepId
from fleet.models.chat import CallTag
from fleet.models.port import AgentAnswer, AgentRequest, Agents
from fleet.models.profiles import StepCaps
from fleet.models.prompts.reading import PACK_READERS
from fleet.owner.budgets import Budgeting
from fleet.owner.journal.step_records import ANSWER, failed_step, fallbacks_of, finished_ask, plain
from fleet.owner.journal.steps import Steps, Work
from fleet.story.allowance import CallNeed, allow_again, exhaustion_of
from fleet.story.evolve.budgets import without_hold


class ModelSteps(Steps):
    """Steps that role agents answer.

    Args:
        packs: counts prompts with the tokenizers that the story began with; without it they are estimated.
    """

    def __init__(
        self, *, agents: Agents, budgeting: Budgeting | None = None, packs: Packs | None = None, **stream: Any
    ) -> None:
        super().__init__(**stream)
        self._agents, self.budgeting, self._packs = agents, budgeting or Budgeting(), packs
        # One call at a time looks at what is left and takes its part: two must not take the same.
        self._taking = asyncio.Lock()
        self._asking, self._call_ended = list[StepId](), asyncio.Event()

    @property
    def step_caps(self) -> StepCaps:
        """See `Steps`."""
        return self.budgeting.limits.steps

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
            request, digest = self._as_started(step_id, replace(request, tag=self._tag(work)))
            request = await self._counted(request)
            request = await self._reserved(step_id, request, digest, work, timeout_s=timeout_s)
            self._asking.append(step_id)
            try:
                finished = await self._called(step_id, request, work, timeout_s=timeout_s)
            finally:
                self._asking.remove(step_id)
                self._call_ended.set()
        raw = await self.blobs.get(finished.result_digest)
        if finished.outcome != "succeeded":
            raise from_wire(json.loads(raw))
        return ANSWER.validate_json(raw)

    async def _counted(self, request: AgentRequest) -> AgentRequest:
        """The request with the tokens of its prompt, as the models count them that the story began with (CX-20).

        What is decided with the count is on record with the step. A story from before wrote down no readers, and is
        estimated; a policy that it did not write down counts as it is configured now.
        """
        if self._packs is None or PACK_READERS not in self.state.config:
            return request
        asked = CountRequest(self.story_id, request.role, request.texts, self.state.version, request.policy)
        return replace(request, counted=await self._packs.count(asked))

    def _tag(self, work: Work) -> CallTag:
        """Whose share of an engine the calls of a step take. Those of one council go to one replica of it."""
        place = work.council_id or work.task_id or ""
        return CallTag(tenant=self.state.project_id, affinity=f"{self.story_id}/{place}", story=self.story_id)

    async def _called(self, step_id: StepId, request: AgentRequest, work: Work, *, timeout_s: float) -> StepFinished:
        self.admit()
        fallbacks: tuple[Payload, ...] = ()
        try:
            answer = await self._agents.ask(request, request_id=f"{self.story_id}/{step_id}", timeout_s=timeout_s)
        except (ReplyMalformed, ReplyRefused, ContextTooLarge) as error:
            payload = await failed_step(self.blobs, step_id, error)
        else:
            payload = await finished_ask(self.blobs, step_id, answer, seed=request.sampling.seed)
            fallbacks = fallbacks_of(step_id, answer)
        finished = await self._finish(payload, work, *fallbacks)
        await self._settled_for_the_day(payload)
        return finished

    async def _settled_for_the_day(self, payload: StepFinished) -> None:
        # Whoever loads the story next settles what is still open, so an outage here costs nothing but its hold.
        with contextlib.suppress(StoreUnavailable, CommitUnknown):
            await self.budgeting.settle(self.state, payload, epoch=self._epoch, now_ms=self.clock.now_ms())

    def _as_started(self, step_id: StepId, request: AgentRequest) -> tuple[AgentRequest, Digest]:
        """The request with the reply's bound that is on record for the step, if it was lowered; and its digest.

        A bound belongs to its request: another one, of a new prompt or model, gets a bound of its own (RC-58).
        """
        step = self.state.steps.get(step_id)
        bound = step.started.reserve.output_tokens if step is not None else None
        bounded = request if bound is None else _bounded(request, bound)
        digest = _digest_of(bounded)
        if bounded is request or self.is_open(step_id, digest):
            return bounded, digest
        return request, _digest_of(request)

    async def _reserved(
        self, step_id: StepId, request: AgentRequest, digest: Digest, work: Work, *, timeout_s: float
    ) -> AgentRequest:
        """The request as the budgets allow it; its reservation is on record, in the same append as its start."""
        need = CallNeed(
            step_id=step_id,
            role=work.seat.role,
            prompt_tokens=self.budgeting.prompt_tokens(request),
            max_tokens=request.sampling.max_tokens,
            task_id=work.task_id,
            council_id=work.council_id,
            price=self.budgeting.price(request.model),
        )
        while True:
            self._call_ended.clear()
            try:
                async with self._taking:
                    return await self._taken(need, request, digest, work, timeout_s=timeout_s)
            except BudgetExceeded as error:
                # What calls under way hold may be more than they use: only what they leave says that there is none.
                if not self._asking:
                    raise await self._exceeded(error) from error
            await self._call_ended.wait()

    async def _taken(
        self, need: CallNeed, request: AgentRequest, digest: Digest, work: Work, *, timeout_s: float
    ) -> AgentRequest:
        step_id, now_ms, epoch = need.step_id, self.clock.now_ms(), self._epoch
        if self.is_open(step_id, digest):
            allow_again(self.state, self.budgeting.limits, need, now_ms=now_ms)
            await self.budgeting.hold_again(self.state, step_id, epoch=epoch, now_ms=now_ms)
            return request
        # What the same step holds for an earlier request is free for this one, which takes its place.
        before = self.state.steps.get(step_id)
        state = self.state if before is None else without_hold(self.state, before.started)
        allowance = await self.budgeting.allow(state, need, epoch=epoch, now_ms=now_ms)
        bounded = _bounded(request, allowance.max_tokens)
        if bounded is not request:
            digest = _digest_of(bounded)
        reserve = allowance.reserve.model_copy(update={"wall_ms": int(timeout_s) * 1000})
        try:
            await self._start(
                step_id,
                digest,
                work,
                kind="model",
                effect="PURE",
                wall_s=int(timeout_s),
                reserve=reserve,
                also=allowance.warnings,
            )
        except (CommitUnknown, OwnershipError):
            raise  # it may be on record, or another owner's: whoever loads the story settles the hold
        except FleetError:
            if before is None:
                await self.budgeting.release(self.state, step_id, epoch=epoch, now_ms=now_ms)
            raise
        return bounded

    async def _exceeded(self, error: BudgetExceeded) -> BudgetExceeded:
        """The limit that stopped a call is on record, once; the error says how the story goes on."""
        exhausted = exhaustion_of(error)
        if exhausted is None:
            return error
        scope = exhausted.scope
        name = f"budget/exhausted/{scope.kind}/{scope.id}/{exhausted.limit}/{exhausted.max}"
        if self.state.budgets.usage(scope).exhausted.get(exhausted.limit) != exhausted.max:
            await self.record(f"{name}/{self.state.version}", exhausted)
        where = "" if scope.kind == "story" else f" --scope {scope.kind}:{scope.id}"
        option = {"cost_microusd": "cost-usd"}.get(exhausted.limit, exhausted.limit.replace("_", "-"))
        return BudgetExceeded(
            f"{error.message}. Nothing is lost: raise it with `fleet budget set {self.story_id}{where} --{option} N`, "
            "and the story goes on",
            **error.details,
        )


def _digest_of(request: AgentRequest) -> Digest:
    return digest_of_json(plain(request.pinned()))


def _bounded(request: AgentRequest, max_tokens: int) -> AgentRequest:
    """The request with at most this many tokens of reply; the very same one when it asks for no more."""
    if max_tokens >= request.sampling.max_tokens:
        return request
    return replace(request, sampling=request.sampling.model_copy(update={"max_tokens": max_tokens}))
