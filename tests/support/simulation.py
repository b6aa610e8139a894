"""Deterministic simulation: one seed drives the schedule and the clock, and nothing waits in real time.

    with simulated(seed) as loop:
        loop.run_until_complete(scenario(loop))

`SimLoop` is an asyncio loop whose time jumps to the next timer when nothing is ready, and which runs what is ready in
an order drawn from the seed. A `Process` is a group of tasks that can be killed without a word (no handler of theirs
reaches a store any more) or frozen. All else that is not determined enters through ports (`faulty_ports.py`).
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import heapq
import random
from asyncio import base_events, events
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
_START_MS = 1_767_323_045_000
_MAX_TURNS = 3_000_000


class Crashed(BaseException):
    """The process ended here; no `except Exception` of the code under test may survive it."""


class Stalled(AssertionError):
    """Nothing is ready and no timer is set: the simulated system waits for ever."""


class Trace:
    """What happened, as one digest: two runs of a seed are the same run if and only if their traces are equal."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.length = 0
        self.last: list[str] = []

    def add(self, line: str) -> None:
        """One more thing happened."""
        self._hash.update(line.encode())
        self._hash.update(b"\n")
        self.length += 1
        if len(self.last) > 4000:
            del self.last[:2000]
        self.last.append(line)

    @property
    def digest(self) -> str:
        """64 hex digits over everything so far."""
        return self._hash.hexdigest()


class SimLoop(base_events.BaseEventLoop):
    """An event loop without files, threads or waiting. `random` is the one source of chance of the whole run."""

    # The tables of BaseEventLoop, which its own typing keeps to itself.
    _ready: Any
    _scheduled: Any

    def __init__(self, seed: int | str) -> None:
        super().__init__()
        self.random = random.Random(f"schedule/{seed}")
        self.trace = Trace()
        self.turns = 0
        self._now = 0.0
        self._numbers = 0
        self.failures: list[str] = []
        """What tasks of living processes failed with while nobody looked."""
        self.set_task_factory(self._make_task)  # pyright: ignore[reportArgumentType]
        self.set_exception_handler(self._unhandled)

    def time(self) -> float:
        """Seconds of virtual time since the start."""
        return self._now

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """The call is made at once, in this thread: threads would not be determined by the seed."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def _make_task(self, loop: Any, coro: Coroutine[Any, Any, Any], context: Any = None) -> asyncio.Task[Any]:
        self._numbers += 1
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, context=context)
        task._sim_number = self._numbers  # type: ignore[attr-defined]
        process = (context.get(_PROCESS) if context is not None else None) or _PROCESS.get()
        if process is not None:
            process.adopt(task)
        return task

    def _unhandled(self, loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Crashed | BaseExceptionGroup):
            self.failures.append(f"{context.get('message')}: {error!r}")

    def _run_once(self) -> None:
        """One turn: what is ready runs, in an order drawn from the seed; the clock jumps when nothing is."""
        self.turns += 1
        if self.turns > _MAX_TURNS:
            raise Stalled(f"{_MAX_TURNS} turns of the loop without an end, at {self._now:.3f} s")
        timers = self._scheduled
        if not self._ready:
            while timers and timers[0]._cancelled:
                heapq.heappop(timers)._scheduled = False
            if not timers:
                raise Stalled(f"nothing is left to do at {self._now:.3f} s, and nobody said stop")
            self._now = max(self._now, timers[0]._when)
        while timers and timers[0]._when <= self._now:
            handle = heapq.heappop(timers)
            handle._scheduled = False
            self._ready.append(handle)
        due = [handle for handle in self._ready if not handle._cancelled]
        self._ready.clear()
        if len(due) > 1:
            # Sets of tasks are walked in the order of addresses; numbers make that the same in every process.
            due.sort(key=_number_of)
            self.random.shuffle(due)
        for handle in due:
            if not handle._cancelled:
                handle._run()

    def _write_to_self(self) -> None:
        """There is no other thread to wake this one."""

    def _process_events(self, event_list: Any) -> None:
        """There are no files."""


def _number_of(handle: Any) -> int:
    owner = getattr(handle._callback, "__self__", None)
    return getattr(owner, "_sim_number", 0)


_PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("sim_process", default=None)


class Process:
    """A group of tasks that lives and dies together, like one operating-system process.

    Args:
        name: for the trace; unique in the run.
    """

    def __init__(self, loop: SimLoop, name: str) -> None:
        self.loop, self.name = loop, name
        self.is_alive = True
        self.frozen_until = 0.0
        self.clock = SimClock(loop)
        self.when_killed: Callable[[], None] = lambda: None
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """The task dies with the process."""
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def spawn(self, coro: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
        """A task of this process, whoever asks for it."""
        context = contextvars.copy_context()
        context.run(_PROCESS.set, self)
        return context.run(self.loop.create_task, coro, name=name)

    def kill(self) -> None:
        """The process is gone: its tasks end, and whatever their handlers still try reaches no store."""
        if not self.is_alive:
            return
        self.is_alive = False
        self.loop.trace.add(f"{self.loop.time():.6f} {self.name} is killed")
        for task in list(self._tasks):
            task.cancel()
        self.when_killed()

    def freeze(self, seconds: float) -> None:
        """The process stands still for so long: nothing of it goes on at its next call or timer."""
        self.frozen_until = max(self.frozen_until, self.loop.time() + seconds)

    async def pass_gate(self) -> None:
        """Returns when the process may go on. Raises Crashed in a dead one."""
        while self.is_alive and self.frozen_until > self.loop.time():
            await asyncio.sleep(self.frozen_until - self.loop.time())
        if not self.is_alive:
            raise Crashed(self.name)

    async def join(self) -> None:
        """Every task of a killed process has ended."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)


class SimClock:
    """A process's clock over the loop's virtual time. Implements Clock; `jump` moves the wall time alone."""

    def __init__(self, loop: SimLoop, process: Process | None = None) -> None:
        self._loop = loop
        self._offset_ms = 0
        self.gate: Callable[[], Coroutine[Any, Any, None]] | None = None
        """Awaited after every sleep: where a frozen process stands still."""

    def now_ms(self) -> int:
        """UTC milliseconds, off by what the clock jumped."""
        return _START_MS + self._offset_ms + int(self._loop.time() * 1000)

    def monotonic_ms(self) -> int:
        """Milliseconds of virtual time."""
        return int(self._loop.time() * 1000)

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of virtual time, and not while the process is frozen."""
        await asyncio.sleep(max(seconds, 0))
        if self.gate is not None:
            await self.gate()

    def jump(self, seconds: float) -> None:
        """The wall time is `seconds` further, or back."""
        self._offset_ms += int(seconds * 1000)


@contextmanager
def simulated(seed: int | str) -> Iterator[SimLoop]:
    """A loop for one run; everything that still runs at the end is thrown away."""
    loop = SimLoop(seed)
    before = events._get_running_loop()  # type: ignore[attr-defined]
    assert before is None, "a simulation is started outside of any running loop"
    try:
        yield loop
    finally:
        left = [task for task in asyncio.all_tasks(loop) if not task.done()]
        for task in sorted(left, key=lambda task: getattr(task, "_sim_number", 0)):
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()
