"""`/v1` in one process: engines of every kind, scripted models behind them, people with tokens, budgets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import openai
from starlette.types import ASGIApp, Receive, Scope, Send

from fleet.config.settings import ServeSettings
from fleet.desk.chat import ChatDesk, ChatLimits, EngineAccess
from fleet.desk.principals import PrincipalSpending
from fleet.events.budget import BudgetScope
from fleet.kernel.clock import SystemClock
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatReply, ChatRequest
from fleet.models.engine_config import MockEngine
from fleet.models.engines.mock import MockChatModel
from fleet.models.memory import ScriptedChatModel
from fleet.models.port import ChatModel
from fleet.models.profiles import Budgets, ModelsConfig, load_models
from fleet.models.routing.budget import BudgetLimits, BudgetTotals
from fleet.owner.budgets import day_of
from fleet.owner.spending.memory import MemoryDaySpending
from serve_apps.llm.address import LLM_PREFIX
from serve_apps.llm.routes import build_llm
from tests.support.rules import files
from tests.support.tool_front import REGISTRY, serving

_PRICE = {"in_microusd_per_mtok": 1_000_000, "out_microusd_per_mtok": 2_000_000}
MODELS: ModelsConfig = load_models(
    {
        "engines": [
            {
                "engine_id": "tiny",
                "kind": "openai",
                "base_url": "http://engine.internal:1/v1",
                "model": "tiny-1b",
                "max_context": 4096,
                "max_output": 1000,
                "price": _PRICE,
                "capabilities": ["json_schema", "seed", "tools"],
            },
            {"engine_id": "plain", "kind": "local", "base_url": "http://x/v1", "model": "p", "unpriced": True},
            {"engine_id": "paid", "kind": "openai", "base_url": "http://x/v1", "model": "p", "unpriced": True},
            {
                "engine_id": "mock",
                "kind": "mock",
                "model": "mock-excellent",
                "unpriced": True,
                "capabilities": ["json_schema", "seed"],
            },
            {"engine_id": "tape", "kind": "recorded", "model": "tape", "directory": "/nowhere", "unpriced": True},
        ],
        "policies": {"default": [{"engine_id": "tiny", "max_tokens": 100, "timeout_s": 10}]},
    }
)


@dataclass
class WatchedModel:
    """A model whose calls and aborts are kept."""

    inner: ChatModel
    tags: list[CallTag] = field(default_factory=list[CallTag])
    requests: list[ChatRequest] = field(default_factory=list[ChatRequest])
    begun: list[str] = field(default_factory=list[str])
    aborted: list[str] = field(default_factory=list[str])

    def _note(self, request: ChatRequest, request_id: str, tag: CallTag) -> None:
        self.requests.append(request)
        self.tags.append(tag)
        self.begun.append(request_id)

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """See `ChatModel.complete`."""
        self._note(request, request_id, tag)
        return await self.inner.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag)

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncIterator[ChatChunk]:
        """See `ChatModel.stream`."""
        self._note(request, request_id, tag)
        async for chunk in self.inner.stream(request, request_id=request_id, timeout_s=timeout_s, tag=tag):
            yield chunk

    async def abort(self, request_id: str) -> None:
        """See `ChatModel.abort`."""
        self.aborted.append(request_id)
        await self.inner.abort(request_id)

    async def health(self) -> None:
        """See `ChatModel.health`."""


class Purse(MemoryDaySpending):
    """The day's totals, and one look at those of a principal."""

    @property
    def is_holding(self) -> bool:
        """Whether a call is reserved and not settled."""
        return bool(self._open)

    async def of(self, who: str) -> BudgetTotals:
        """What the principal has spent and reserved today."""
        return (await self.totals([BudgetScope(kind="principal", id=who)], day_of(SystemClock().now_ms())))[0]


@dataclass
class LlmFront:
    """The front at its address, and what is behind it."""

    url: str
    model: WatchedModel
    spending: Purse

    def client(self, who: str = "dev", **values: Any) -> openai.AsyncOpenAI:
        """The official client of a person; it does not repeat what fails unless told to."""
        return openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key=f"{who}-token", max_retries=values.pop("max_retries", 0), **values
        )


@asynccontextmanager
async def llm_front(
    model: ChatModel | None = None,
    *,
    limits: BudgetLimits | None = None,
    rate: Mapping[str, int] | None = None,
    also: tuple[str, ...] = ("mock",),
    abort_grace_s: float = 5,
    heartbeat_s: int = 15,
) -> AsyncGenerator[LlmFront]:
    """`/v1` over real HTTP on a loopback port.

    Args:
        model: behind the engines `tiny`, `plain` and `paid`; says hello unless given.
        limits: of each principal.
        rate: `requests_per_minute` and `streams` of each principal.
        also: engines that are no real models and are offered.
    """
    watched = WatchedModel(model or ScriptedChatModel.of("Hello there,\nworld."))
    spending = Purse()
    mock = MODELS.engine("mock")
    assert isinstance(mock, MockEngine)
    desk = ChatDesk(
        MODELS,
        {"tiny": watched, "plain": watched, "paid": watched, "mock": MockChatModel(mock)},
        spending=PrincipalSpending(spending, Budgets(principal=limits or BudgetLimits()), SystemClock()),
        clock=SystemClock(),
        roles_of=REGISTRY.roles_of,
        access=EngineAccess(also=also, roles={"paid": ("po",)}),
        limits=ChatLimits(timeout_s=20, abort_grace_s=abort_grace_s),
    )
    packaged = files().load("serve.yaml", ServeSettings)
    changed = {"rate": packaged.rate.model_copy(update=dict(rate or {})), "heartbeat_s": heartbeat_s}
    app = build_llm(desk, REGISTRY, packaged.model_copy(update=changed), clock=SystemClock())
    async with serving(_below(app, LLM_PREFIX)) as url:  # pyright: ignore[reportArgumentType]
        yield LlmFront(url, watched, spending)


@contextmanager
def llm_front_in_thread() -> Generator[str]:
    """The address of the front, which runs in a thread with a loop of its own and takes requests at any rate."""
    ready: Future[str] = Future()
    over = threading.Event()

    async def serve() -> None:
        async with llm_front(rate={"requests_per_minute": 10**6}) as at:
            ready.set_result(at.url)
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="served models")
    thread.start()
    try:
        yield ready.result(30)
    finally:
        over.set()
        thread.join(30)


def _below(app: ASGIApp, prefix: str) -> ASGIApp:
    """The application at a prefix, as Serve gives it its requests."""

    async def placed(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": prefix}, receive, send)

    return placed
