"""A model engine: any server that streams chat completions with the OpenAI wire format."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx2
from pydantic import BaseModel, Field

from fleet.kernel.errors import ModelTimeout, ModelUnavailable
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatReply, ChatRequest, TokenUsage
from fleet.models.port import ModelEnginePlugin, ModelParts


class WireOptions(BaseModel):
    """The options of an engine of kind `wire` in models.yaml."""

    url: str = Field(pattern=r"^https?://[^\s@?#]+$")
    """Address up to and including `/v1`."""


class WireModel:
    """Implements the port ChatModel. Every error of the HTTP client becomes one of ours."""

    def __init__(self, url: str, engine_id: str, model: str, key: Callable[[], Awaitable[str]] | None) -> None:
        self._url, self._engine, self._model, self._key = url.rstrip("/"), engine_id, model, key

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """The whole reply."""
        begun = time.monotonic()
        text, finish, usage = "", "length", TokenUsage()
        try:
            async with asyncio.timeout(timeout_s):
                async for event in self._events(request):
                    for choice in event.get("choices", ()):
                        text += choice["delta"].get("content") or ""
                        finish = choice.get("finish_reason") or finish
                    if counted := event.get("usage"):
                        usage = TokenUsage(tokens_in=counted["prompt_tokens"], tokens_out=counted["completion_tokens"])
        except TimeoutError as error:
            raise ModelTimeout(f"{self._url} did not answer within {timeout_s:g} s") from error
        except (httpx2.HTTPError, ValueError, LookupError) as error:
            raise ModelUnavailable(f"{self._url} cannot be asked ({type(error).__name__}): see its log") from error
        return ChatReply(
            text=text,
            finish_reason="stop" if finish == "stop" else "length",
            usage=usage,
            engine=self._engine,
            model=self._model,
            latency_ms=int((time.monotonic() - begun) * 1000),
        )

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncIterator[ChatChunk]:
        """The reply in one piece."""
        reply = await self.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag)
        yield ChatChunk(text=reply.text, reply=reply)

    async def abort(self, request_id: str) -> None:
        """A request ends with the task that waits for it."""

    async def health(self) -> None:
        """The server lists its models; ModelUnavailable when it does not."""
        try:
            async with httpx2.AsyncClient(timeout=5, headers=await self._headers()) as client:
                (await client.get(f"{self._url}/models")).raise_for_status()
        except httpx2.HTTPError as error:
            raise ModelUnavailable(f"{self._url} cannot be asked ({type(error).__name__}): start it") from error

    async def _events(self, request: ChatRequest) -> AsyncIterator[dict]:
        sampling = request.sampling
        body = {
            "model": self._model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "temperature": float(sampling.temperature),
            "top_p": float(sampling.top_p),
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with (
            httpx2.AsyncClient(timeout=None, headers=await self._headers()) as client,
            client.stream("POST", f"{self._url}/chat/completions", json=body) as response,
        ):
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    yield json.loads(line.removeprefix("data: "))

    async def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {await self._key()}"} if self._key else {}


def make(options: WireOptions, parts: ModelParts) -> WireModel:
    """The model of one engine; nothing is connected."""
    return WireModel(options.url, parts.engine_id, parts.model, parts.key)


PLUGIN = ModelEnginePlugin(name="wire", options=WireOptions, make=make)
