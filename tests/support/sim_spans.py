"""Many seeds of the simulation at once, in processes of their own."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from tests.support.sim_judge import expected_ends, judge
from tests.support.sim_world import Scenario, simulate

_LAST_IN_THE_QUEUE = 19


@dataclass(frozen=True)
class Span:
    """What came of some seeds."""

    broken: tuple[str, ...]
    seen: Counter[str]


class Runs:
    """These spans (scenario, first seed, number of seeds) run, on every core but behind all else; leave with `with`."""

    def __init__(self, spans: Sequence[tuple[Scenario, int, int]]) -> None:
        self._pool = ProcessPoolExecutor(
            max_workers=min(os.cpu_count() or 1, len(spans)),
            # A copy of a process with threads, as pytest may be, can hang.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=os.nice,
            initargs=(_LAST_IN_THE_QUEUE,),
        )
        self._running: dict[tuple[Scenario, int, int], Future[Span]] = {
            span: self._pool.submit(_run, *span) for span in spans
        }

    def __enter__(self) -> Runs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def span(self, scenario: Scenario, first: int, count: int) -> Span:
        """One of the spans, as soon as it has come to its end."""
        return self._running[scenario, first, count].result()


def _run(scenario: Scenario, first: int, count: int) -> Span:
    expected, broken, seen = expected_ends(scenario), list[str](), Counter[str]()
    # A run leaves little behind, and the collector would walk all that is loaded again and again.
    gc.disable()
    for seed in range(first, first + count):
        outcome = simulate(seed, scenario)
        try:
            judge(outcome, expected)
        except AssertionError as error:
            broken.append(f"{error}\n{outcome.told()}")
        seen.update(outcome.seen)
        if seed % 25 == 24:
            gc.collect()
    return Span(tuple(broken), seen)
