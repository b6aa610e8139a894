"""The gRPC front: every call is a call of the REST front in the same process, so both have the same rules."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError, Message
from starlette.types import ASGIApp

from fleet.kernel.errors import FleetError, MalformedRequest, PayloadTooLarge, ToolTimeout
from serve_apps.problems import HTTP_STATUS, internal_error
from serve_apps.rpc.in_process import Reply, asked
from serve_apps.rpc.transcode import HttpCall, http_call, message_of, status_of
from serve_apps.rpc.v1 import coach_pb2, context_pb2, planning_pb2, sessions_pb2, workspace_pb2

RPC_FILES = (planning_pb2, context_pb2, coach_pb2, workspace_pb2, sessions_pb2)
"""The services, one in each."""

_HEADERS = frozenset({"authorization", "idempotency-key", "if-match", "traceparent", "tracestate", "x-fleet-role"})
_OWNER_S = 60.0
"""How long a command waits for its owner; REST answers 202 instead and lets its client ask again."""
_LOOK_S = 0.5
_LOG = logging.getLogger(__name__)


_M = TypeVar("_M", bound=Message)


class RpcContext(Protocol):
    """What gRPC and Serve both give a call."""

    def invocation_metadata(self) -> Any:
        """Names and values that the client sent."""
        ...

    def set_code(self, code: grpc.StatusCode) -> None:
        """The status of the call."""
        ...

    def set_details(self, details: str) -> None:
        """The text beside the status."""
        ...

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str]]) -> None:
        """What is sent behind the answer."""
        ...


class NoRpcCalls:
    """The same calls of an application that answers none: a client that names it is told so, and nothing else."""


class RpcCalls:
    """The calls of all services, by their names; nothing is kept between two calls.

    An error has the gRPC status of its HTTP status; its details begin with the code of the error, which also stands in
    the trailing metadata `fleet-error`.
    """

    app: ASGIApp
    """The REST front."""
    ends_stream_by_error = True
    """Serve passes the status of a refused stream on when the call raises, gRPC itself when it just ends."""

    async def WatchStory(  # noqa: N802
        self, raw: bytes, grpc_context: RpcContext
    ) -> AsyncIterator[planning_pb2.Event]:
        """Events of one story as they are recorded."""
        try:
            request = self._admitted(planning_pb2.WatchStoryRequest, raw, grpc_context)
        except FleetError as error:
            refused = _Refused({"code": error.code, "detail": error.message}, HTTP_STATUS[error.code])
            _fail(grpc_context, refused.problem, refused.status)
            if self.ends_stream_by_error:
                raise refused from None
            return
        chosen = [("types", one) for one in request.types]
        query = urlencode([("storyId", request.story_id), ("after", str(request.after)), *chosen], quote_via=quote)
        call = HttpCall("GET", f"/api/events/stream?{query}")
        async with self._asked(call, grpc_context) as reply:
            if reply.status >= 400:
                refused = _Refused(json.loads(await reply.body()), reply.status)
                _fail(grpc_context, refused.problem, refused.status)
                if self.ends_stream_by_error:
                    raise refused
                return
            async for frame in _frames(reply):
                yield ParseDict(frame, planning_pb2.Event(), ignore_unknown_fields=True)

    async def call(self, method: MethodDescriptor, raw: bytes, context: RpcContext) -> Message:
        """The answer to one call; an empty message beside a status that tells of an error."""
        try:
            request = self._admitted(method.input_type._concrete_class, raw, context)
            call = http_call(method, request)
            answer = await self._json(call, context)
            if "status_url" in answer:
                await self._carried_out(answer, context)
                # The same request with the same key has its answer now (AP-2).
                answer = await self._json(call, context)
            return message_of(method, answer)
        except FleetError as error:
            _fail(context, {"code": error.code, "detail": error.message}, HTTP_STATUS[error.code])
            return method.output_type._concrete_class()
        except _Refused as refused:
            _fail(context, refused.problem, refused.status)
            return method.output_type._concrete_class()
        except Exception:
            # Serve would send the traceback.
            _LOG.exception("%s failed", method.full_name)
            fault = internal_error()
            _fail(context, {"code": fault.code, "detail": fault.message}, 500)
            return method.output_type._concrete_class()

    def _admitted(self, kind: type[_M], raw: bytes, context: RpcContext) -> _M:
        """The message of a known caller: whose it is and how long it is are looked at before what is in it."""
        # A front of another process looks for itself.
        if (state := getattr(self.app, "state", None)) is not None:
            state.registry.authenticate(_metadata(context).get("authorization"))
            limit = state.settings.max_body_bytes
            if len(raw) > limit:
                raise PayloadTooLarge(f"a message may have {limit} bytes", limit=limit)
        try:
            return kind.FromString(raw)
        except DecodeError as error:
            raise MalformedRequest(f"the message is no {kind.DESCRIPTOR.full_name}") from error

    async def _carried_out(self, queued: dict[str, Any], context: RpcContext) -> None:
        """The owner has carried out a command that was queued."""
        look = HttpCall("GET", queued["status_url"])
        try:
            async with asyncio.timeout(_OWNER_S):
                while (outcome := await self._json(look, context))["status"] == "pending":
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise ToolTimeout(
                f"no owner answered within {_OWNER_S:g} s; the command stays queued: call again with the same "
                "idempotency-key",
                command_id=queued["command_id"],
            ) from None
        if outcome["problem"] is not None:
            raise _Refused(outcome["problem"], HTTP_STATUS.get(outcome["problem"].get("code", ""), 500))

    async def _json(self, call: HttpCall, context: RpcContext) -> dict[str, Any]:
        async with self._asked(call, context) as reply:
            answer = json.loads(await reply.body())
        if reply.status >= 400:
            raise _Refused(answer, reply.status)
        return answer

    @asynccontextmanager
    async def _asked(self, call: HttpCall, context: RpcContext) -> AsyncGenerator[Reply]:
        headers = [(name, value) for name, value in _metadata(context).items() if name in _HEADERS]
        async with asked(self.app, call, headers) as reply:
            yield reply


class RpcFront(RpcCalls):
    """The calls over a front that is given; under Serve the deployment has it already."""

    ends_stream_by_error = False

    def __init__(self, app: ASGIApp) -> None:
        self.app = app


class _Refused(Exception):
    """The front answered with a problem document."""

    def __init__(self, problem: Mapping[str, Any], status: int) -> None:
        super().__init__(problem, status)
        self.problem, self.status = problem, status


def _fail(context: RpcContext, problem: Mapping[str, Any], status: int) -> None:
    code = str(problem.get("code", "internal_error"))
    context.set_code(status_of(status))
    context.set_details(f"{code}: {problem.get('detail') or problem.get('message') or ''}")
    context.set_trailing_metadata([("fleet-error", code)])


async def _frames(reply: Reply) -> AsyncIterator[dict[str, Any]]:
    """The documents of server-sent events."""
    rest = b""
    async for piece in reply.pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield json.loads(line[5:])


def _metadata(context: RpcContext) -> dict[str, str]:
    sent = [(str(name).lower(), value) for name, value in context.invocation_metadata() or ()]
    return {name: value for name, value in sent if isinstance(value, str)}


def _unary(method: MethodDescriptor) -> Callable[..., Any]:
    async def unary(self: RpcCalls, raw: bytes, grpc_context: RpcContext) -> Message:
        return await self.call(method, raw, grpc_context)

    unary.__name__ = method.name
    unary.__doc__ = f"The call `{method.full_name}`."
    return unary


def _unanswered(method: MethodDescriptor) -> Callable[..., Any]:
    def refuse(grpc_context: RpcContext) -> None:
        grpc_context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        grpc_context.set_details("unimplemented: name the application `fleet` in the metadata of the call")

    async def unary(self: NoRpcCalls, raw: bytes, grpc_context: RpcContext) -> Message:
        refuse(grpc_context)
        return method.output_type._concrete_class()

    async def stream(self: NoRpcCalls, raw: bytes, grpc_context: RpcContext) -> AsyncIterator[Message]:
        refuse(grpc_context)
        for nothing in ():
            yield nothing

    return stream if method.server_streaming else unary


for _file in RPC_FILES:
    for _service in _file.DESCRIPTOR.services_by_name.values():
        for _method in _service.methods:
            setattr(NoRpcCalls, _method.name, _unanswered(_method))
            if not _method.server_streaming:
                setattr(RpcCalls, _method.name, _unary(_method))
