"""One answer of `/v1`: whole or in pieces, and over at the engine as soon as the client goes away (AP-122)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType

from fastapi import Response
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from fleet.desk.chat import ChatCall
from fleet.kernel.errors import FleetError
from fleet.models.chat import ChatChunk
from serve_apps.llm.errors import error_body, error_response, shown
from serve_apps.llm.replies import ChatPieces, chat_completion
from serve_apps.problems import internal_error
from serve_apps.stream.sse import HEARTBEAT, event_stream, sse_frame

_LOG = logging.getLogger(__name__)
_DONE = "data: [DONE]\n\n"


class ChatAnswer(Response):
    """Opens the call when it is sent, and leaves it at the end, whether the client is still there or not.

    Args:
        open_call: begins the call.
        opened: holds the caller's place among the answers that are open.
        heartbeat_s: silence after which a stream begins, or sends a comment.
        headers: of the answer, beside its own.
    """

    def __init__(
        self,
        open_call: Callable[[], Awaitable[ChatCall]],
        *,
        opened: Callable[[], AbstractContextManager[None]],
        call_id: str,
        created_s: int,
        is_streamed: bool,
        includes_usage: bool,
        heartbeat_s: float,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self._open_call, self._opened, self._call_id, self._created_s = open_call, opened, call_id, created_s
        self._is_streamed, self._includes_usage, self._heartbeat_s = is_streamed, includes_usage, heartbeat_s
        self._told = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer is sent, or the client has gone; the call is left."""
        answering = asyncio.ensure_future(self._answer(scope, receive, send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (answering, gone):
                task.cancel()
            await asyncio.gather(answering, gone, return_exceptions=True)
        if not answering.cancelled():
            answering.result()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._opened():
                call = await self._open_call()
                try:
                    response = await (self._stream(call) if self._is_streamed else self._whole(call))
                    response.headers.update({"X-Request-Id": self._call_id, **self._told})
                    await response(scope, _never, send)
                finally:
                    call.leave()
        except FleetError as error:
            await error_response(shown(error))(scope, receive, send)

    async def _whole(self, call: ChatCall) -> Response:
        reply = await call.reply()
        completion = chat_completion(
            reply, call_id=self._call_id, created_s=self._created_s, model=call.engine.engine_id
        )
        return JSONResponse(completion.model_dump(mode="json"))

    async def _stream(self, call: ChatCall) -> Response:
        # What fails before the first piece still has a status of its own.
        first = await call.next(within_s=self._heartbeat_s)
        return event_stream(self._frames(call, first))

    async def _frames(self, call: ChatCall, first: ChatChunk | None) -> AsyncIterator[str]:
        pieces = ChatPieces(self._call_id, self._created_s, call.engine.engine_id, self._includes_usage)
        chunk = first
        try:
            while chunk is None or chunk.reply is None:
                if chunk is None:
                    yield HEARTBEAT
                else:
                    for document in pieces.text(chunk.text):
                        yield sse_frame(document)
                chunk = await call.next(within_s=self._heartbeat_s)
            for document in (*pieces.text(chunk.text), *pieces.end(chunk.reply)):
                yield sse_frame(document)
        except FleetError as error:
            # The status line is sent already, so a fault is told as the last frame.
            yield sse_frame(error_body(shown(error)))
        except Exception as error:
            _LOG.error("%s failed: %s", self._call_id, type(error).__name__)
            yield sse_frame(error_body(internal_error()))
        else:
            yield _DONE


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _never() -> dict[str, str]:
    """A receive for responses that look for the end of the connection: this module does."""
    await asyncio.Event().wait()
    return {"type": "http.disconnect"}
