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

import contextlib
import json
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from fleet.context.port import Packs
from fleet.events.step import StepFinished
from fleet.kernel.clock import Clock
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import (
    BudgetExceeded,
    FleetError,
    NondeterministicPlan,
    NotFound,
    OwnershipError,
    SandboxUnavailable,
    from_wire,
)
from fleet.kernel.ids import Digest, RunKey, StepId, StoryId
from fleet.kernel.types import BudgetLimit
from fleet.log.port import EventLog, SnapshotStore
from fleet.models.port import Agents
from fleet.owner.budgets import Budgeting
from fleet.owner.journal.model_steps import ModelSteps
from fleet.owner.journal.step_records import (
    RUN_TRIES,
    failed_step,
    finished_effect,
    finished_run,
    is_no_result,
    run_attempts,
    step_key,
)
from fleet.owner.journal.steps import StepPolicy, Work
from fleet.owner.journal.unsafe_steps import UnsafeSteps
from fleet.owner.platform_view import PlatformView
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.sandbox.port import Sandbox
from fleet.story.allowance import require_room
from fleet.trees.port import BlobStore

_COMPUTED_S = 60
"""Wall time that stands in the record of an effect that takes milliseconds."""
_ENDING_S = 60
"""How long a run that is no longer wanted may take to end; the grace of its command is shorter (RC-24)."""
OF_RUNS: tuple[BudgetLimit, ...] = ("wall_ms", "gpu_ms")
"""What runs use of a budget (MB-27)."""


@dataclass(frozen=True, slots=True)
class Computed:
    """What a PURE effect came to: its result, and the trees before and after where it changed files."""

    result: dict[str, Any]
    trees: tuple[Digest | None, Digest | None] = (None, None)


class Journal(ModelSteps, UnsafeSteps):
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
        policy: StepPolicy,
        snapshots: SnapshotStore | None = None,
        budgeting: Budgeting | None = None,
        platform: PlatformView | None = None,
        packs: Packs | None = None,
    ) -> None:
        super().__init__(
            agents=agents,
            budgeting=budgeting,
            packs=packs,
            log=log,
            blobs=blobs,
            clock=clock,
            story_id=story_id,
            epoch=epoch,
            policy=policy,
            snapshots=snapshots,
            platform=platform,
        )
        self._sandbox, self._running = sandbox, set[RunKey]()

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
                await self._start(step_id, spec.digest, work, kind="run", effect="KEYED", wall_s=spec.limits.overall_s)
                result = await self.run_by_key(step_id, spec)
            finished = await self._finish(await finished_run(self.blobs, step_id, result), work)
        seen = RunResult.model_validate_json(await self.blobs.get(finished.result_digest))
        if None not in (seen.tree_in, spec.tree) and seen.tree_in != spec.tree:
            raise NondeterministicPlan(
                f"step {step_id} has a result about tree {seen.tree_in} and is now about {spec.tree}: go on with the "
                "version that recorded it, or cancel the story and start it anew",
                step_id=step_id,
                recorded=seen.tree_in,
                wanted=spec.tree,
            )
        return seen

    async def _run_before(self, step_id: StepId, spec: RunSpec) -> RunResult | None:
        """How the run ended that the step asked for with another request, by the word of its receiver (RC-58).

        One that is under way is ended: nobody wants it any more. None when it came to nothing or is about another tree.

        Raises SandboxUnavailable while it cannot be ended.
        """
        known = self.state.steps.get(step_id)
        if known is None or known.started.request_digest == spec.digest:
            return None
        for key in run_attempts(self.story_id, step_id, known.started.request_digest):
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
                self.state, self.budgeting.limits, task_id=work.task_id, now_ms=self.clock.now_ms(), quantities=OF_RUNS
            )
        except BudgetExceeded as error:
            raise await self._exceeded(error) from error

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
            await self._start(step_id, digest, work, kind="tool", effect="KEYED", wall_s=wall_s)
            self.admit()
            finished = await self._finish(await self._acted(step_id, effect, keeps_failure=keeps_failure), work)
        raw = await self.blobs.get(finished.result_digest)
        if finished.outcome != "succeeded":
            raise from_wire(json.loads(raw))
        return json.loads(raw)

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
            found = await effect()
            started = await self._starting(step_id, request, work, kind="tool", effect="PURE", wall_s=_COMPUTED_S)
            payload = await finished_effect(self.blobs, step_id, found.result, trees=found.trees)
            await self.record(f"{step_id}/finish", started, payload, actor=work.seat.principal)
            finished = self._finished(step_id)
            assert finished is not None, "it was just recorded"
        return json.loads(await self.blobs.get(finished.result_digest))

    async def _acted(
        self, step_id: StepId, effect: Callable[[], Awaitable[dict[str, Any]]], *, keeps_failure: bool
    ) -> StepFinished:
        try:
            result = await effect()
        except OwnershipError:
            raise
        except FleetError as error:
            if not keeps_failure:
                raise
            return await failed_step(self.blobs, step_id, error)
        return await finished_effect(self.blobs, step_id, result)
