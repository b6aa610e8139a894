"""One engine actor as a `ChatModel`: whole replies in one call, streams as a generator of the actor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from ray import exceptions as ray_errors

from fleet.kernel.errors import FleetError, ModelTimeout, ModelUnavailable, StoreError, ToolTimeout
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatReply, ChatRequest
from fleet.models.port import EngineInfo, FinishedCall
from fleet.remote.resolver import ActorResolver

_MARGIN_S = 10.0
"""The engine keeps the time limit itself; this is for the way to it and back."""
_CONTROL_S = 10.0
_PROBE_S = 70.0


class RayEngine:
    """The actor `engine:<engine>:<n>`. Whatever stops the actor is ModelUnavailable here; a call is never repeated.

    Args:
        resolver: finds the actor; the time that it waits for one that is not there is part of each call.
    """

    def __init__(self, resolver: ActorResolver, name: str) -> None:
        self._resolver, self._name = resolver, name
        self._aborting: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """Name of the actor."""
        return self._name

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """See `ChatModel.complete`."""
        try:
            return await self._call(
                "complete", request, request_id=request_id, budget_s=timeout_s, tag=tag, timeout_s=timeout_s + _MARGIN_S
            )
        except (asyncio.CancelledError, ModelTimeout):
            self._abort_soon(request_id)
            raise

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncGenerator[ChatChunk]:
        """See `ChatModel.stream`. A stream that is closed early ends the call at the engine."""
        is_over = False
        try:
            async with asyncio.timeout(timeout_s + _MARGIN_S):
                handle = await self._found()
                chunks = handle.stream.remote(request, request_id=request_id, budget_s=timeout_s, tag=tag)
                async for ref in chunks:
                    chunk: ChatChunk = await ref
                    is_over = chunk.reply is not None
                    yield chunk
        except TimeoutError as error:
            raise ModelTimeout(f"{self._name} did not answer in {timeout_s:g} s", engine=self._name) from error
        except ray_errors.RayTaskError as error:
            is_over = True
            raise _own(error, self._name) from error
        except ray_errors.RayError as error:
            is_over = True
            self._resolver.forget(self._name)
            raise _gone(self._name, str(error)) from error
        finally:
            if not is_over:
                self._abort_soon(request_id)

    async def abort(self, request_id: str) -> None:
        """See `ChatModel.abort`."""
        await self._call("abort", request_id, timeout_s=_CONTROL_S)

    async def health(self) -> None:
        """See `ChatModel.health`."""
        await self._call("probe", timeout_s=_PROBE_S)

    async def info(self) -> EngineInfo:
        """See `Engine.info`."""
        return await self._call("info", timeout_s=_CONTROL_S)

    async def usage(self, *, after: int = 0) -> tuple[FinishedCall, ...]:
        """See `Engine.usage`."""
        return await self._call("usage", after=after, timeout_s=_CONTROL_S)

    async def close(self) -> None:
        """Aborts that are on their way have arrived; the actor goes on."""
        await asyncio.gather(*self._aborting, return_exceptions=True)

    async def _call(self, method: str, *args: Any, timeout_s: float, **kwargs: Any) -> Any:
        try:
            return await self._resolver.call(self._name, method, *args, timeout_s=timeout_s, **kwargs)
        except StoreError as error:
            raise _gone(self._name, error.message) from error
        except ToolTimeout as error:
            raise ModelTimeout(error.message, engine=self._name) from error

    async def _found(self) -> Any:
        try:
            return await self._resolver.handle(self._name)
        except StoreError as error:
            raise _gone(self._name, error.message) from error

    def _abort_soon(self, request_id: str) -> None:
        # The caller is leaving and cannot wait: the engine is told behind its back.
        task = asyncio.get_running_loop().create_task(self._told_to_abort(request_id))
        self._aborting.add(task)
        task.add_done_callback(self._aborting.discard)

    async def _told_to_abort(self, request_id: str) -> None:
        try:
            await self.abort(request_id)
        except FleetError:
            return  # an engine that is gone works for nobody


def _own(error: ray_errors.RayTaskError, name: str) -> FleetError:
    cause: object = error.cause
    return cause if isinstance(cause, FleetError) else _gone(name, repr(cause))


def _gone(name: str, why: str) -> ModelUnavailable:
    first = why.splitlines()[0] if why else "no reason given"
    return ModelUnavailable(f"engine actor {name} cannot answer: {first}", engine=name, reason="actor")
