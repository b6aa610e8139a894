"""Routing as a whole on a virtual clock: what affinity saves, and what a storm of failures costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

import pytest

from benchmarks.council_rounds import SHARED, hits
from fleet.kernel.clock import MemoryClock, in_virtual_time
from fleet.kernel.errors import FleetError, ModelError, ModelTimeout, ModelUnavailable
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatMessage, ChatReply, ChatRequest, Priority, TokenUsage
from fleet.models.service.queued_model import QueuedModel
from fleet.models.service.routed_model import RoutedModel

REQUEST = ChatRequest(messages=(ChatMessage(role="user", content="go"),))


async def test_council_of_eight_computes_its_shared_prompt_once_with_affinity_and_once_for_each_replica_without() -> (
    None
):
    affinity = await hits("affinity", councils=1, of_each=2, blocks=4096)
    least = await hits("least_loaded", councils=1, of_each=2, blocks=4096)
    assert sorted(affinity.calls) == [0, 0, 0, 16]
    assert affinity.tokens_cached == 15 * SHARED
    assert least.calls == (4, 4, 4, 4)
    assert least.tokens_cached == 12 * SHARED


async def test_caches_too_small_for_all_councils_serve_those_of_their_own_by_affinity() -> None:
    found = {way: await hits(way, councils=12, of_each=2, blocks=120) for way in ("affinity", "least_loaded", "random")}
    affinity = found.pop("affinity")
    assert affinity.percent > 75
    assert all(affinity.tokens_cached > 1.6 * other.tokens_cached for other in found.values())


async def test_many_councils_spread_and_none_waits_while_replicas_idle() -> None:
    crowded = await hits("affinity", councils=12, of_each=2, blocks=4096, slots=2)
    assert min(crowded.calls) > 0.4 * sum(crowded.calls) / 4
    assert crowded.tokens_cached > (await hits("random", councils=12, of_each=2, blocks=4096, slots=2)).tokens_cached


@dataclass
class Stormy:
    """A server that is ill from one moment to another: it refuses (429, 5xx), or never answers."""

    clock: MemoryClock
    from_ms: int
    until_ms: int
    how: Literal["refuses", "hangs"]
    asked_while_ill: int = 0
    answered: int = 0
    at: list[int] = field(default_factory=list[int])

    @property
    def is_ill(self) -> bool:
        return self.from_ms <= self.clock.monotonic_ms() < self.until_ms

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        if self.is_ill:
            self.asked_while_ill += 1
            if self.how == "hangs":
                await self.clock.sleep(timeout_s)
                raise ModelTimeout(f"no answer in {timeout_s:g} s")
            await self.clock.sleep(0.05)
            raise ModelUnavailable("HTTP 429: slow down")
        await self.clock.sleep(0.5)
        self.answered += 1
        return ChatReply(text="yes", finish_reason="stop", usage=TokenUsage(tokens_out=1), engine="e", model="m")

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncIterator[ChatChunk]:
        yield ChatChunk(reply=await self.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag))

    async def abort(self, request_id: str) -> None:
        return

    async def health(self) -> None:
        if self.is_ill:
            raise ModelUnavailable("still ill")


@dataclass
class Outcome:
    """How one caller fared."""

    tries: int = 0
    longest_ms: int = 0
    ended_ms: int = 0


async def insistent(router: RoutedModel, clock: MemoryClock, name: str, *, timeout_s: float) -> Outcome:
    """A caller that comes again when it is told to, until it has its answer."""
    found = Outcome()
    while True:
        found.tries += 1
        began_ms = clock.monotonic_ms()
        priority: Priority = "story"
        tag = CallTag(tenant=name[0], priority=priority, affinity=name[:2])
        try:
            await router.complete(REQUEST, request_id=f"{name}#{found.tries}", timeout_s=timeout_s, tag=tag)
        except ModelError as error:
            found.longest_ms = max(found.longest_ms, clock.monotonic_ms() - began_ms)
            await clock.sleep(float(error.details.get("retry_after_s", 1)))
            continue
        found.longest_ms = max(found.longest_ms, clock.monotonic_ms() - began_ms)
        found.ended_ms = clock.monotonic_ms()
        return found


@pytest.mark.rule("MB-13")
@pytest.mark.parametrize("how", ["refuses", "hangs"])
async def test_storm_costs_bounded_waits_and_few_calls_and_no_request_is_lost(how: Literal["refuses", "hangs"]) -> None:
    clock = MemoryClock()
    servers = [Stormy(clock, 500, 100_000, how) for _ in range(2)]
    replicas = {
        f"{n}": QueuedModel(server, clock, "e", max_concurrency=4, max_waiting=30) for n, server in enumerate(servers)
    }
    router = RoutedModel(replicas, clock, "e", slots=4)
    names = [f"{'abc'[n % 3]}{n}" for n in range(40)]

    async def all_of_them() -> list[Outcome]:
        return list(await asyncio.gather(*(insistent(router, clock, name, timeout_s=20) for name in names)))

    found = await in_virtual_time(clock, all_of_them(), step_s=0.25, turns=12)
    stats = router.stats()
    await router.close()
    assert len(found) == len(names)
    assert sum(server.answered for server in servers) >= len(names)
    assert max(outcome.longest_ms for outcome in found) <= 20_500
    assert sum(replica.failures for replica in stats.replicas) >= 6
    # At 30 s and 90 s after it opened: the second probe of each is the last that can fall into the storm.
    assert all(1 <= replica.probes <= 4 for replica in stats.replicas)
    assert stats.open_circuits == ()
    assert max(outcome.ended_ms for outcome in found) < 100_000 + 150_000
    # Without circuits each caller would have come every second or so: about 4,000 calls.
    assert sum(server.asked_while_ill for server in servers) < 60
    assert all(
        replica.queue is not None and (replica.queue.running, replica.queue.waiting) == (0, 0)
        for replica in stats.replicas
    )


async def test_one_ill_replica_costs_no_caller_its_answer() -> None:
    clock = MemoryClock()
    servers = [Stormy(clock, 0, 60_000, "refuses"), Stormy(clock, 0, 0, "refuses")]
    replicas = {str(n): QueuedModel(server, clock, "e", max_concurrency=4) for n, server in enumerate(servers)}
    router = RoutedModel(replicas, clock, "e", slots=4)

    async def calls() -> list[ChatReply]:
        ask = (
            router.complete(REQUEST, request_id=f"r{n}", timeout_s=30, tag=CallTag(affinity=f"k{n % 7}"))
            for n in range(60)
        )
        return list(await asyncio.gather(*ask))

    assert len(await in_virtual_time(clock, calls(), step_s=0.05, turns=12)) == 60
    assert router.stats().open_circuits == ("0",)
    await router.close()


async def test_person_is_answered_before_fifty_batch_calls_through_router_and_queue() -> None:
    clock = MemoryClock()
    server = Stormy(clock, 0, 0, "refuses")
    router = RoutedModel({"0": QueuedModel(server, clock, "e", max_concurrency=2)}, clock, "e", slots=2)

    async def ended(name: str, priority: Priority) -> int:
        tag = CallTag(priority=priority, tenant=name)
        await router.complete(REQUEST, request_id=name, timeout_s=600, tag=tag)
        return clock.monotonic_ms()

    async def all_of_them() -> tuple[list[int], int]:
        batch = [asyncio.ensure_future(ended(f"b{n}", "batch")) for n in range(50)]
        await clock.sleep(0.1)
        person_ms = await ended("person", "person")
        return list(await asyncio.gather(*batch)), person_ms

    batch_ms, person_ms = await in_virtual_time(clock, all_of_them(), step_s=0.05, turns=12)
    assert sum(moment <= person_ms for moment in batch_ms) <= 3
    assert not any(isinstance(moment, FleetError) for moment in batch_ms)
