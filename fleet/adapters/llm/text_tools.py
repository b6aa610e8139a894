"""Tools for a model that has none of its own: offered in the prompt, read from the reply (MB-14)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

from fleet.models import (
    NO_TAG,
    CallTag,
    ChatChunk,
    ChatReply,
    ChatRequest,
    TextToolForm,
    tool_uses_in,
    with_tools_as_text,
)
from fleet.ports import ChatModel

__all__ = ["TextToolsChatModel"]


class TextToolsChatModel:
    """A model that is told of tools in words. A request without tools passes unchanged."""

    def __init__(self, inner: ChatModel, form: TextToolForm) -> None:
        self._inner = inner
        self._form: TextToolForm = form

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """See `ChatModel.complete`."""
        asked = self._asked(request)
        reply = await self._inner.complete(asked, request_id=request_id, timeout_s=timeout_s, tag=tag)
        return self._with_uses(request, reply)

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncGenerator[ChatChunk]:
        """See `ChatModel.stream`. The pieces are as the model wrote them, its calls among them."""
        asked = self._asked(request)
        inner = self._inner.stream(asked, request_id=request_id, timeout_s=timeout_s, tag=tag)
        # Every adapter's stream is a generator; closing it gives the connection back.
        async with aclosing(cast("AsyncGenerator[ChatChunk]", inner)) as chunks:
            async for chunk in chunks:
                yield chunk if chunk.reply is None else ChatChunk(reply=self._with_uses(request, chunk.reply))

    async def abort(self, request_id: str) -> None:
        """See `ChatModel.abort`."""
        await self._inner.abort(request_id)

    async def health(self) -> None:
        """See `ChatModel.health`."""
        await self._inner.health()

    async def close(self) -> None:
        """The model behind it is closed, where it can be."""
        closing: Any = getattr(self._inner, "close", None)
        if closing is not None:
            await closing()

    def _asked(self, request: ChatRequest) -> ChatRequest:
        has_uses = any(message.tool_uses or message.role == "tool" for message in request.messages)
        return with_tools_as_text(request, self._form) if request.tools or has_uses else request

    def _with_uses(self, request: ChatRequest, reply: ChatReply) -> ChatReply:
        # What was cut off may be half a call.
        if not request.tools or reply.finish_reason != "stop":
            return reply
        found = tool_uses_in(reply.text, self._form, request.tools)
        if not found.uses:
            return reply.model_copy(update={"text": found.text})
        return reply.model_copy(
            update={"text": found.text, "tool_uses": found.uses, "finish_reason": "tool_use"},
        )
