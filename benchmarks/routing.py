"""Routing: what prefix affinity saves on fake engines with real caches, and what queue and router cost a call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.council_rounds import hits
from benchmarks.figures import Figure, percentile
from fleet.kernel.clock import SystemClock
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatMessage, ChatReply, ChatRequest, Sampling, TokenUsage
from fleet.models.port import ChatModel
from fleet.models.service.queued_model import QueuedModel
from fleet.models.service.routed_model import RoutedModel

CALLS, REPLICAS, SLOTS, CALLERS = 2000, 4, 16, 256
_PROMPT = "word " * 2000
_REPLY = ChatReply(text="x" * 2000, finish_reason="stop", usage=TokenUsage(tokens_in=2000), engine="e", model="m")
ANSWER_S = 0.02


class _Instant:
    """A model that costs nothing but one turn of the loop: all that is left is what stands before it."""

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        await asyncio.sleep(0)
        return _REPLY

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncIterator[ChatChunk]:
        yield ChatChunk(reply=await self.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag))

    async def abort(self, request_id: str) -> None:
        return

    async def health(self) -> None:
        return


class _Serving(_Instant):
    """A model that answers after twenty milliseconds, as a fast engine does with a short reply."""

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        await asyncio.sleep(ANSWER_S)
        return _REPLY


async def measure(folder: Path) -> list[Figure]:
    """Hit rates by way of choosing a replica; the time of a call alone; calls a second of many callers."""
    bare, routed = _Instant(), _routed(_Instant())
    alone: dict[str, list[float]] = {"bare": [], "routed": []}
    # Both in turn, so that a slow moment of the machine falls on both.
    for _ in range(10):
        alone["bare"] += await _times(bare, CALLS // 10)
        alone["routed"] += await _times(routed, CALLS // 10)
    added_us = (percentile(alone["routed"], 50) - percentile(alone["bare"], 50)) * 1e6
    slots = REPLICAS * SLOTS
    bound = await _rate(_Bounded(_Serving(), slots))
    ours = await _rate(_routed(_Serving()))
    return [
        Figure("router and queue, added to a call p50", added_us, "us", note="over the bare model, no wait"),
        Figure(f"routed calls, {CALLERS} callers on {slots} slots", ours, "1/s", "semaphore alone", bound),
        *await _hit_rates(),
    ]


class _Bounded(_Instant):
    """The yardstick: as many calls at a time, and nothing else."""

    def __init__(self, inner: ChatModel, slots: int) -> None:
        self._inner, self._slots = inner, asyncio.Semaphore(slots)

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        async with self._slots:
            return await self._inner.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag)


def _routed(inner: ChatModel) -> RoutedModel:
    clock = SystemClock()
    replicas = {
        f"engine:e:{n}": QueuedModel(inner, clock, "e", max_concurrency=SLOTS, max_waiting=10_000)
        for n in range(REPLICAS)
    }
    return RoutedModel(replicas, clock, "e", slots=SLOTS)


def _request(number: int) -> ChatRequest:
    return ChatRequest(
        messages=(ChatMessage(role="user", content=f"{number} {_PROMPT}"),), sampling=Sampling(max_tokens=256)
    )


async def _times(model: ChatModel, count: int) -> list[float]:
    """Seconds of each call, one after the other."""
    found: list[float] = []
    for number in range(count):
        request = _request(number)
        tag = CallTag(affinity=f"st-{number % 20}")
        started = time.perf_counter()
        await model.complete(request, request_id=f"r{number}", timeout_s=60, tag=tag)
        found.append(time.perf_counter() - started)
    return found


async def _rate(model: ChatModel) -> float:
    """Calls a second of many callers, more than there are slots."""

    async def caller(number: int) -> None:
        for turn in range(CALLS * 4 // CALLERS):
            tag = CallTag(tenant=f"t{number % 5}", affinity=f"st-{number % 40}")
            await model.complete(_request(number), request_id=f"{number}/{turn}", timeout_s=600, tag=tag)

    started = time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    return CALLS * 4 / (time.perf_counter() - started)


async def _hit_rates() -> list[Figure]:
    """Councils of eight over four replicas, two rounds each; the counts are exact on every machine."""
    found: list[Figure] = []
    for label, blocks in (("large caches", 4096), ("small caches", 120)):
        affinity = await hits("affinity", councils=12, of_each=2, blocks=blocks)
        for way in ("least_loaded", "random"):
            other = await hits(way, councils=12, of_each=2, blocks=blocks)
            name = f"prompt tokens from cache by affinity, {label}"
            found.append(Figure(name, affinity.percent, "%", way.replace("_", " "), other.percent))
    return found
