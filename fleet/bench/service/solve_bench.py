"""The solve benchmark: every arm on every task and seed, each judged by the hidden tests."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, field

from fleet.bench.meter import TokenMeter
from fleet.bench.row import Arm, BenchRow, Pick
from fleet.bench.service.arms import solve
from fleet.bench.service.council import CouncilRules
from fleet.bench.service.execution import Execute, Solution
from fleet.bench.service.solved import Solved
from fleet.bench.service.solver import BenchVoices, Solver, passed_of
from fleet.bench.task import BenchTask
from fleet.kernel.clock import Clock
from fleet.models.chat import TokenUsage
from fleet.models.port import ChatModel


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """What is compared: every arm gets the same number of tokens on each task."""

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    tokens: int
    rules: CouncilRules
    timeout_s: float = 300.0
    constrain: bool = True
    at_once: int = 1
    """Tasks under way at one time. Arms of one task take turns: they share drafts."""


@dataclass(slots=True)
class SolveBench:
    """Runs a plan. The judge's answers go into rows alone: no arm is told."""

    model: ChatModel
    execute: Execute
    voices: BenchVoices
    clock: Clock
    plan: BenchPlan
    _judged: dict[tuple[str, str], bool] = field(default_factory=dict[tuple[str, str], bool])

    async def rows(
        self, tasks: Sequence[BenchTask], *, done: Collection[tuple[str, str, int]] = ()
    ) -> AsyncGenerator[BenchRow]:
        """Rows as they are finished, task by task, without those that are done already.

        Raises:
            ModelUnavailable, ModelTimeout, SandboxUnavailable: the benchmark cannot go on here; finished rows stand.
        """
        waiting = deque((task, seed) for task in tasks for seed in self.plan.seeds)
        found: asyncio.Queue[BenchRow | None] = asyncio.Queue()

        async def work() -> None:
            while waiting:
                task, seed = waiting.popleft()
                for arm in self.plan.arms:
                    if (task.public.task_id, arm.label, seed) not in done:
                        found.put_nowait(await self._row(task, arm, seed))

        workers = [asyncio.create_task(work()) for _ in range(min(self.plan.at_once, len(waiting)))]
        watch = asyncio.create_task(_until_one_fails(workers))
        watch.add_done_callback(lambda _: found.put_nowait(None))
        try:
            while (row := await found.get()) is not None:
                yield row
            for failed in await watch:
                await failed
        finally:
            for task in (watch, *workers):
                task.cancel()
            await asyncio.gather(watch, *workers, return_exceptions=True)

    async def _row(self, task: BenchTask, arm: Arm, seed: int) -> BenchRow:
        began_ms = self.clock.monotonic_ms()
        solver = Solver(
            task=task.public,
            seed=seed,
            model=self.model,
            execute=self.execute,
            voices=self.voices,
            meter=TokenMeter(self.plan.tokens),
            blind=arm.blind,
            timeout_s=self.plan.timeout_s,
            constrain=self.plan.constrain,
        )
        found = await solve(arm.name, solver, self.plan.rules)
        visible = await self._visible_passed(solver, found.pick)
        wall_ms = self.clock.monotonic_ms() - began_ms
        return await self._judged_row(task, arm, solver, found, visible_passed=visible, wall_ms=wall_ms)

    async def _visible_passed(self, solver: Solver, pick: Solution | None) -> bool | None:
        cases = solver.visible
        if pick is None or not cases:
            return None
        return passed_of(await solver.run(pick, cases), cases) == len(cases)

    async def _judged_row(
        self, task: BenchTask, arm: Arm, solver: Solver, found: Solved, *, visible_passed: bool | None, wall_ms: int
    ) -> BenchRow:
        calls = solver.meter.calls
        usage = sum((TokenUsage(tokens_in=c.tokens_in, tokens_out=c.tokens_out) for c in calls), TokenUsage())
        passed = await self._passes(task, found.pick)
        return BenchRow(
            task_id=task.public.task_id,
            arm=arm.label,
            seed=solver.seed,
            passed=bool(passed),
            digest=found.pick.digest if found.pick else None,
            solution=found.pick.text if found.pick else None,
            decided_in=found.ended,
            budget=self.plan.tokens,
            tokens_in=usage.tokens_in,
            tokens_out=usage.tokens_out,
            stages=dict(solver.meter.by_stage),
            calls=len(calls),
            malformed=sum(not c.is_usable for c in calls),
            failed_calls=solver.failed_calls,
            candidates=len(solver.drafts),
            distinct=len({s.normal_digest for s in solver.drafts}),
            visible_passed=visible_passed,
            picks=await self._picks(task, solver, found),
            model_ms=sum(c.latency_ms for c in calls),
            wall_ms=wall_ms,
        )

    async def _picks(self, task: BenchTask, solver: Solver, found: Solved) -> dict[str, Pick]:
        """What simpler rules would have chosen, and `oracle`: the first that is right, which no choice can exceed."""
        picks = {rule: await self._pick(task, solution) for rule, solution in found.picks.items()}
        if picks:
            picks["oracle"] = await self._oracle(task, (found.pick, *solver.drafts))
        return picks

    async def _oracle(self, task: BenchTask, solutions: Sequence[Solution | None]) -> Pick:
        for solution in dict.fromkeys(s for s in solutions if s is not None):
            if (pick := await self._pick(task, solution)).passed:
                return pick
        return Pick(digest=None, passed=False)

    async def _pick(self, task: BenchTask, solution: Solution | None) -> Pick:
        return Pick(digest=solution.digest if solution else None, passed=await self._passes(task, solution))

    async def _passes(self, task: BenchTask, solution: Solution | None) -> bool | None:
        if solution is None:
            return None
        key = (task.public.task_id, str(solution.digest))
        if key not in self._judged:
            self._judged[key] = await self.execute.judge(task.public, task.hidden, solution)
        return self._judged[key]


async def _until_one_fails(workers: Sequence[asyncio.Task[None]]) -> tuple[asyncio.Task[None], ...]:
    """Those that have ended, once all have or one has failed."""
    if not workers:
        return ()
    done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
    return tuple(done)
