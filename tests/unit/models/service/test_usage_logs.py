"""The engines' usage logs as a fleet reads them: as they grow, over restarts, and without those that do not answer."""

from __future__ import annotations

from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import ModelUnavailable
from fleet.kernel.ids import StoryId
from fleet.models.chat import TokenUsage
from fleet.models.port import FinishedCall
from fleet.models.service.usage_logs import UsageLogs

STORY = StoryId("st-logs-1")


def call(number: int, *, story: str = STORY, ended_ms: int = 1) -> FinishedCall:
    usage = TokenUsage(tokens_in=number, tokens_out=1)
    return FinishedCall(number, f"{story}/step-{number}#1", usage, 0, "stop", ended_ms)


class Log:
    """An engine's log; `asked` lists the numbers that it was asked from, None stands for an engine that is away."""

    def __init__(self, *calls: FinishedCall) -> None:
        self.calls: list[FinishedCall] | None = list(calls)
        self.asked: list[int] = []

    async def usage(self, *, after: int = 0) -> tuple[FinishedCall, ...]:
        self.asked.append(after)
        if self.calls is None:
            raise ModelUnavailable("it is away")
        return tuple(c for c in self.calls if c.number > after)


def reader(**logs: Log) -> tuple[UsageLogs, MemoryClock]:
    clock = MemoryClock()
    return UsageLogs({name: {f"{name}:0": log} for name, log in logs.items()}, clock), clock


async def test_look_takes_what_came_since_and_one_story_sees_its_own_calls_alone() -> None:
    log = Log(call(1), call(2, story="st-logs-10"))
    logs, clock = reader(e=log)
    assert await logs.calls_of(STORY) == {"e": (call(1),)}
    assert log.calls is not None
    log.calls.append(call(3))
    assert await logs.calls_of(STORY) == {"e": (call(1),)}  # so soon after the first look nobody is asked
    clock.advance(3)
    assert await logs.calls_of(STORY) == {"e": (call(1), call(3))}
    assert log.asked == [0, 1]


async def test_engine_that_was_started_again_is_read_anew_and_what_it_said_before_still_counts() -> None:
    log = Log(call(1), call(2))
    logs, clock = reader(e=log)
    await logs.calls_of(STORY)
    log.calls = [call(1, ended_ms=9), call(2, ended_ms=10), call(3, ended_ms=11)]
    clock.advance(3)
    found = await logs.calls_of(STORY)
    assert found["e"] == (call(1), call(2), *log.calls)
    log.calls = [call(1, ended_ms=20)]
    clock.advance(3)
    assert (await logs.calls_of(STORY))["e"][-1] == call(1, ended_ms=20)


async def test_engine_that_is_away_keeps_nobody_from_the_others() -> None:
    away, well = Log(call(1)), Log(call(5))
    logs, clock = reader(a=away, b=well)
    known, away.calls = away.calls, None
    assert await logs.calls_of(STORY) == {"a": (), "b": (call(5),)}
    away.calls = known
    clock.advance(3)
    assert await logs.calls_of(STORY) == {"a": (call(1),), "b": (call(5),)}
