"""A story whose owner ends in the middle of a call: the engine goes on, and its own log settles what was held."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fleet.events.budget import BudgetScope, UsageAdjusted
from fleet.events.codec import decode
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import StoryId
from fleet.models.chat import NO_TAG, CallTag, ChatReply, ChatRequest
from fleet.models.memory import FakeTokens, MemoryTokenSource
from fleet.models.prompts.prompt import kind_of
from fleet.models.service.model_engine import ModelEngine
from fleet.models.service.usage_logs import UsageLogs
from tests.support.engines import actor_engine
from tests.support.team import Team, team
from tests.support.team_models import EveryEngine, demo_repository, demo_story, scripted


class Elsewhere:
    """An engine as in another process: who asked may end, and its call goes on all the same."""

    def __init__(self, inner: ModelEngine) -> None:
        self._inner = inner
        self.abort, self.health, self.stream = inner.abort, inner.health, inner.stream
        self.calls: dict[str, asyncio.Task[ChatReply]] = {}

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """See `ChatModel.complete`."""
        call = self._inner.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag)
        self.calls[request_id] = task = asyncio.create_task(call)
        return await asyncio.shield(task)


async def all_at_the_engine(t: Team, story_id: StoryId, model: Elsewhere) -> None:
    """Returns once every call that the story has begun is under way at the engine."""
    async with asyncio.timeout(60):
        while True:
            holds = (await t.desk.state(story_id)).budgets.holds
            running = {name.partition("#")[0] for name, task in model.calls.items() if not task.done()}
            if running == {f"{story_id}/{step}" for step, hold in holds.items() if hold.is_open}:
                return
            await asyncio.sleep(0.05)


class StickingReplies:
    """The replies of a team without mistakes; the first draft sticks in the engine until it is let go."""

    def __init__(self) -> None:
        self._model, self.stuck = scripted(), asyncio.Event()
        self.source: MemoryTokenSource | None = None

    def __call__(self, request: ChatRequest) -> str:
        assert self.source is not None
        if request.sampling.max_tokens == 1:
            return "OK"  # the engine's own warm-up
        if kind_of(request) == "draft" and not self.stuck.is_set():
            self.source.is_stuck = True
            self.stuck.set()
        reply = next(rule for rule in self._model.rules if rule.matches(request)).next()
        assert isinstance(reply, str)
        return reply


@pytest.mark.rule("MB-23", "MB-32")
async def test_call_that_outlives_its_owner_is_settled_from_the_log_of_its_engine(tmp_path: Path) -> None:
    clock, replies = SystemClock(), StickingReplies()
    config = actor_engine(max_context=1_000_000)
    replies.source = MemoryTokenSource(config, clock, FakeTokens(prefill_ms=0, decode_ms=0), reply=replies)
    engine = ModelEngine(replies.source, config, clock=clock)
    await engine.load()
    model = Elsewhere(engine)
    usage = UsageLogs({"tiny": {"engine:tiny:0": engine}}, clock)
    async with team(tmp_path, models=EveryEngine(model), usage=usage) as t:
        story_id = await t.create(demo_story())
        await t.start(story_id, demo_repository(tmp_path / "stage"), model="mock")
        async with asyncio.timeout(60):
            await replies.stuck.wait()
        await all_at_the_engine(t, story_id, model)
        await t.crash()
        replies.source.is_stuck = False
        await asyncio.gather(*model.calls.values(), return_exceptions=True)
        t.begin(t.make_shard("2", t.log))
        state = await t.settled(story_id)
        events = await t.desk.events(story_id)
    assert state.closed, state.park
    adjusted = [p for p in map(decode, events) if isinstance(p, UsageAdjusted)]
    assert sum(p.delta["calls"] for p in adjusted) >= 1
    assert state.budgets.holds == {}
    spent = state.budgets.usage(BudgetScope(kind="story", id=story_id))
    counted = [c for calls in (await usage.calls_of(story_id)).values() for c in calls]
    assert spent.reserved.tokens == 0
    assert spent.spent.calls == len(counted)
    assert spent.spent.tokens == sum(c.usage.tokens_in + c.usage.tokens_out for c in counted)
