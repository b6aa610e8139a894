"""Council rounds over fake engines with real prefix caches, by several ways to choose a replica: exact hit counts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

from fleet.kernel.clock import MemoryClock, in_virtual_time
from fleet.models.chat import CallTag, ChatMessage, ChatRequest, Sampling
from fleet.models.engine_config import ActorEngine
from fleet.models.memory import FakeTokens, MemoryTokenSource
from fleet.models.service.model_engine import ModelEngine
from fleet.models.service.queued_model import behind_queue
from fleet.models.service.routed_model import RoutedModel, RouterStats

Way = Literal["affinity", "least_loaded", "random"]
MEMBERS, REPLICAS, SHARED, OWN = 8, 4, 256, 32
BLOCK = 16


@dataclass(frozen=True, slots=True)
class Hits:
    """Prompt tokens of all calls together, and how many of them a cache held."""

    tokens_in: int
    tokens_cached: int
    calls: tuple[int, ...]
    """By replica."""

    @property
    def percent(self) -> float:
        """Share of the prompt tokens that was not computed again."""
        return 100 * self.tokens_cached / self.tokens_in


def _request(council: int, round_: int, member: int) -> ChatRequest:
    shared = " ".join(f"c{council}w{number}" for number in range(SHARED - 1))
    own = " ".join(f"r{round_}m{member}w{number}" for number in range(OWN))
    messages = (ChatMessage(role="system", content=shared), ChatMessage(role="user", content=own))
    return ChatRequest(messages=messages, sampling=Sampling(max_tokens=4))


def _key(way: Way, name: str, council: int) -> str:
    # A key of its own for each call is a replica drawn at random; none is the least loaded one.
    return {"affinity": f"st-{council}/co-1", "random": name, "least_loaded": ""}[way]


async def _engine(clock: MemoryClock, blocks: int) -> ModelEngine:
    config = ActorEngine.model_validate(
        {"engine_id": "fake", "kind": "vllm", "model": "fake", "path": "x", "unpriced": True, "max_context": 4096}
    )
    speed = FakeTokens(block_size=BLOCK, blocks=blocks, prefill_ms=0.1, decode_ms=5)
    engine = ModelEngine(MemoryTokenSource(config, clock, speed), config, clock=clock)
    await engine.load()
    return engine


async def rounds(way: Way, *, councils: int, of_each: int, blocks: int, slots: int = 8) -> RouterStats:
    """All councils hold their first round at once, then their second, and so on."""
    clock = MemoryClock()

    async def work() -> RouterStats:
        engines = [await _engine(clock, blocks) for _ in range(REPLICAS)]
        config = ActorEngine.model_validate(
            {"engine_id": "fake", "kind": "vllm", "model": "fake", "path": "x", "unpriced": True}
            | {"max_concurrency": slots, "max_waiting": 10_000}
        )
        replicas = {f"engine:fake:{n}": behind_queue(engine, config, clock) for n, engine in enumerate(engines)}
        router = RoutedModel(replicas, clock, "fake", slots=slots)
        for round_ in range(of_each):
            async with asyncio.TaskGroup() as group:
                for council in range(councils):
                    for member in range(MEMBERS):
                        name = f"{council}/{round_}/{member}"
                        tag = CallTag(affinity=_key(way, name, council))
                        call = router.complete(
                            _request(council, round_, member), request_id=name, timeout_s=600, tag=tag
                        )
                        group.create_task(call)
        return router.stats()

    return await in_virtual_time(clock, work(), step_s=0.05, turns=12)


async def hits(way: Way, *, councils: int, of_each: int, blocks: int, slots: int = 8) -> Hits:
    """What the caches of all replicas saved."""
    stats = await rounds(way, councils=councils, of_each=of_each, blocks=blocks, slots=slots)
    return Hits(
        sum(replica.tokens_in for replica in stats.replicas),
        sum(replica.tokens_cached for replica in stats.replicas),
        tuple(replica.calls for replica in stats.replicas),
    )
