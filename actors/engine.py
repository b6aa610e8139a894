"""`engine:<engine>:<n>`: one model that is loaded here, behind its fair queue."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from actors.model_gauges import model_gauges, shown_as
from actors.shell import Shell
from fleet.kernel.errors import ModelUnavailable
from fleet.models.chat import CallTag, ChatChunk, ChatReply, ChatRequest
from fleet.models.figures import ModelFigures
from fleet.models.port import EngineInfo, FinishedCall
from fleet.models.service.model_reporter import figures_of_engine
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.models.engines import EngineParts, make_engine
from fleet.wiring.models.figures import make_model_reporter

_DRAIN_S = 8.0
_GATHER_S = 0.05
"""Pieces of a stream that come within this time travel together: each way through Ray costs about a millisecond."""


class EngineShell(Shell):
    """Thin shell over one engine: it loads in the background, and again when what was loaded dies."""

    look_s = 2.0
    """Seconds between two looks at whether the library still lives."""

    def __init__(self, name: str, endpoints: Endpoints, parts: EngineParts | None = None) -> None:
        super().__init__(name, endpoints)
        parts = parts or make_engine(endpoints, name.split(":")[1])
        self._engine, self._queued = parts.engine, parts.queued
        self.background(self._keep_loaded)
        show = shown_as(model_gauges())
        self.background(make_model_reporter(endpoints, name, look=self._figures, show=show).run)

    async def _keep_loaded(self) -> None:
        await self._engine.load()
        while (info := await self._engine.info()).state != "failed":
            await asyncio.sleep(self.look_s)
        await self._engine.close()
        raise ModelUnavailable(f"{self.name} is loaded again: {info.why}", engine=info.engine)

    async def _figures(self) -> tuple[ModelFigures, ...]:
        return (figures_of_engine(self.name, await self._engine.info(), self._queued.stats()),)

    async def complete(self, request: ChatRequest, *, request_id: str, budget_s: float, tag: CallTag) -> ChatReply:
        """The whole reply, within `budget_s`."""
        return await self._queued.complete(request, request_id=request_id, timeout_s=budget_s, tag=tag)

    async def stream(
        self, request: ChatRequest, *, request_id: str, budget_s: float, tag: CallTag
    ) -> AsyncGenerator[ChatChunk]:
        """The reply in pieces; what comes in quick succession is one piece."""
        loop = asyncio.get_running_loop()
        chunks = self._queued.stream(request, request_id=request_id, timeout_s=budget_s, tag=tag)
        text, sent_at = "", 0.0
        try:
            async for chunk in chunks:
                text += chunk.text
                if chunk.reply is not None:
                    yield ChatChunk(text=text, reply=chunk.reply)
                elif loop.time() - sent_at >= _GATHER_S:
                    yield ChatChunk(text=text)
                    text, sent_at = "", loop.time()
        finally:
            await chunks.aclose()

    async def abort(self, request_id: str) -> None:
        """The call ends now with what it has."""
        await self._queued.abort(request_id)

    async def probe(self) -> None:
        """One token was generated just now."""
        await self._engine.health()

    async def info(self) -> EngineInfo:
        """How the engine is, the calls that wait in its queue included."""
        return replace(await self._engine.info(), waiting=self._queued.stats().waiting)

    async def usage(self, *, after: int = 0) -> tuple[FinishedCall, ...]:
        """The calls that ended after this number."""
        return await self._engine.usage(after=after)

    async def health(self) -> dict[str, Any]:
        """Name, process id and state: ready, loading, draining, or failed and why."""
        info = await self._engine.info()
        state = info.state if not info.why else f"{info.state}: {info.why}"
        return {"name": self.name, "pid": os.getpid(), "state": state, "code": self.endpoints.code_digest}

    async def drain(self) -> None:
        """No call is accepted, those under way have ended, and the library's processes are gone."""
        await super().drain()
        await self._engine.drain(_DRAIN_S)
        await self._engine.close()
