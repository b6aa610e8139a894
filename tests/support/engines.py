"""Engines for tests: a fake one on a clock that turns itself, and vLLM with the small model of `make vllm-cpu`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fleet.kernel.clock import MemoryClock
from fleet.models.chat import ChatMessage, ChatRequest, Sampling, ToolOffer
from fleet.models.engine_config import ActorEngine
from fleet.models.memory import FakeTokens, MemoryTokenSource
from fleet.models.service.model_engine import ModelEngine

ROOT = Path(__file__).resolve().parents[2]
VLLM_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
SMALL_MODEL = ROOT / ".venv-vllm" / "models" / "smollm2-135m-instruct"


def actor_engine(**changes: Any) -> ActorEngine:
    """An engine of the fleet's own, of a model that is nowhere unless `path` says where."""
    known = {"engine_id": "tiny", "kind": "vllm", "model": "tiny", "path": "nowhere", "unpriced": True}
    return ActorEngine.model_validate({**known, "max_context": 1024, **changes})


def ask(
    text: str, *, tokens: int = 16, schema: dict[str, Any] | None = None, tools: tuple[ToolOffer, ...] = ()
) -> ChatRequest:
    """A request of one message with a fixed seed."""
    return ChatRequest(
        messages=(ChatMessage(role="user", content=text),),
        sampling=Sampling(max_tokens=tokens, seed=7),
        json_schema=schema,
        tools=tools,
    )


@asynccontextmanager
async def running_clock(clock: MemoryClock, *, step_s: float = 0.05) -> AsyncIterator[None]:
    """Within, time goes on by itself, as fast as the loop turns."""

    async def turn() -> None:
        while True:
            for _ in range(5):
                await asyncio.sleep(0)
            clock.advance(step_s)

    task = asyncio.ensure_future(turn())
    try:
        yield
    finally:
        task.cancel()


@asynccontextmanager
async def fake_engine(
    config: ActorEngine | None = None, speed: FakeTokens | None = None
) -> AsyncIterator[tuple[ModelEngine, MemoryTokenSource, MemoryClock]]:
    """A fake engine that is ready, what is in it, and its clock, which goes on by itself."""
    clock, config = MemoryClock(), config or actor_engine()
    source = MemoryTokenSource(config, clock, speed or FakeTokens())
    engine = ModelEngine(source, config, clock=clock)
    async with running_clock(clock):
        await engine.load()
        yield engine, source, clock
