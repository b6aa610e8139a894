"""A gRPC call as the HTTP call that its annotation names, and the answer as a message (google.api.http)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import grpc
from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from fleet.kernel.errors import InvalidInput

_FIELD = re.compile(r"\{(\w+)\}")
_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    412: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    428: grpc.StatusCode.FAILED_PRECONDITION,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
    507: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


@dataclass(frozen=True, slots=True)
class HttpCall:
    """One request to the front."""

    method: str
    target: str
    """Path and query, quoted."""
    body: bytes | None = None
    """JSON; None without a body."""


def http_call(method: MethodDescriptor, request: Message) -> HttpCall:
    """The request that the annotation of this method names.

    Raises InvalidInput for a value in the path that is empty or would name another route.
    """
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb: str = rule.WhichOneof("pattern")
    template: str = getattr(rule, verb)
    fields: dict[str, Any] = MessageToDict(request, preserving_proto_field_name=True)
    path = _FIELD.sub(lambda match: _segment(match[1], str(fields.pop(match[1], ""))), template)
    match rule.body:
        case "":
            query = urlencode([(name, one) for name, value in sorted(fields.items()) for one in _each(value)])
            return HttpCall(verb.upper(), f"{path}?{query}" if query else path)
        case "*":
            return HttpCall(verb.upper(), path, json.dumps(fields).encode())
        case name:
            return HttpCall(verb.upper(), path, json.dumps(fields.get(name, {})).encode())


def message_of(method: MethodDescriptor, value: Any) -> Message:
    """The answer; what the message has no field for is left out."""
    return ParseDict(value, method.output_type._concrete_class(), ignore_unknown_fields=True)


def status_of(http_status: int) -> grpc.StatusCode:
    """The status of an HTTP status that tells of an error."""
    return _STATUS.get(http_status, grpc.StatusCode.INTERNAL)


def _segment(name: str, value: str) -> str:
    if not value or "/" in value or value in (".", ".."):
        raise InvalidInput(f"{name} is {value[:80]!r}: give one name, without a slash", field=name)
    return quote(value, safe="")


def _each(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]
