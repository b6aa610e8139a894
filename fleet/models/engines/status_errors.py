"""From what a model server answers to one error of ours: by status first, by the provider's wording where it must be.

The one place where wording decides. Shapes: the error pages of OpenAI, Anthropic, Gemini, Groq, OpenRouter and Ollama
(named in fleet/models/presets.py).
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from fleet.kernel.errors import (
    ContextTooLarge,
    ModelError,
    ModelTimeout,
    ModelUnavailable,
    ReplyMalformed,
    ReplyRefused,
)
from fleet.models.engine_config import HttpEngine

_CONTEXT = re.compile(
    r"context[ _](length|size|window|limit)|maximum context|too many tokens|prompt is too long|input is too long"
    r"|exceeds? the (maximum|available)[^.]{0,40}tokens|input token count[^.]{0,40}exceeds",
    re.I,
)
_REFUSED = re.compile(r"content[ _](filter|policy)|safety|moderation|flagged|usage policies", re.I)
_KEY = re.compile(
    r"api[ _-]?key (not valid|is invalid|expired|not found)|API_KEY_INVALID|invalid (api|x-api)[ _-]?key", re.I
)
_BROKE = re.compile(r"insufficient_quota|credit balance|spend limit", re.I)
_TOOL = re.compile(r"tool_use_failed|failed_generation", re.I)
_HTML = re.compile(r"<(?:script|style)\b.*?</(?:script|style)>|<[^>]*>", re.I | re.S)

_TYPES: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "insufficient_quota": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "requests": 429,
    "tokens": 429,
    "api_error": 500,
    "server_error": 500,
    "internal_server_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
    # Names of google.rpc.Code.
    "invalid_argument": 400,
    "unauthenticated": 401,
    "permission_denied": 403,
    "resource_exhausted": 429,
    "internal": 500,
    "unavailable": 503,
    "deadline_exceeded": 504,
}
"""Types of errors that come in the middle of a reply, after status 200 -> the status that they would have had."""

_WAIT = frozenset({408, 409, 425, 429, 498, 499})
_MAX_WAIT_S = 3600
_MAX_WORDING = 20_000


class ServerAnswer:
    """An answer that is an error, however it came.

    Args:
        text: the body as it came, or what the SDK made of it.
        status: of the answer; 200 for an error in the middle of a stream, None where it is not known.
        headers: names in lower case.
        body: the decoded body where the SDK has one.
    """

    def __init__(self, text: str, *, status: int | None, headers: Mapping[str, str], body: object) -> None:
        document = _error_in(_decoded(text, body))
        message = _mapping(document).get("message")
        self.wording = text[:_MAX_WORDING]
        """Everything that the server wrote, for the tables below."""
        self.text = shown(message if isinstance(message, str) and message else text)
        """What a person is shown."""
        self.headers = headers
        self.error = document
        self.status = status if status is not None and status != 200 else _status_in(document)
        """Of the error, not of the stream that it came in."""


def error_of(answer: ServerAnswer, engine: HttpEngine, where: str, details: Mapping[str, Any]) -> ModelError:
    """The error that stands for the answer; its detail `retry_after_s` says when the server can be asked again."""
    make, mend = _row(answer, engine)
    facts = dict(details)
    if answer.status is not None:
        facts["status"] = answer.status
    wait = retry_after_s(answer.headers, answer.error)
    if wait is not None and make is _unavailable:
        facts["retry_after_s"] = wait
    status = "" if answer.status is None else f"HTTP {answer.status}, "
    return make(f"{where}: {status}{answer.text}; {mend}", facts)


def is_refused_key(answer: ServerAnswer) -> bool:
    """Whether it is the key that the server refuses. Gemini says so with status 400."""
    return answer.status == 401 or (answer.status in (400, 403) and bool(_KEY.search(answer.wording)))


def is_too_large(text: str) -> bool:
    """Whether a refusal says that prompt and reply do not fit into the model's context."""
    return bool(_CONTEXT.search(text))


def retry_after_s(headers: Mapping[str, str], error: object = None, *, now_s: float | None = None) -> int | None:
    """Seconds to wait, at most an hour: header Retry-After (RFC 9110 section 10.2.3), or Gemini's RetryInfo."""
    text = headers.get("retry-after", "").strip() or _retry_info(error)
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return min(math.ceil(float(text)), _MAX_WAIT_S)
    try:
        at_s = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0, math.ceil(at_s - (time.time() if now_s is None else now_s))), _MAX_WAIT_S)


def shown(text: str) -> str:
    """At most 500 characters of what a server wrote, on one line; of an HTML page only its words."""
    plain = _HTML.sub(" ", text[:20_000]) if text.lstrip().startswith("<") else text[:2000]
    return " ".join(plain.split())[:500] or "an empty answer"


_Make = Callable[[str, dict[str, Any]], ModelError]


def _row(answer: ServerAnswer, engine: HttpEngine) -> tuple[_Make, str]:
    status, text = answer.status, answer.wording
    if is_refused_key(answer):
        return _hopeless, engine.how_to_give_a_key
    if status is not None and 300 <= status < 400:
        to = shown(answer.headers.get("location", "another place"))
        return _hopeless, f"it redirects to {to}, which is not followed; set base_url to the address that answers"
    if status == 402 or (status in (400, 403, 429) and _BROKE.search(text)):
        return _hopeless, "the account has no credit, or its limit is reached; add credit or raise the limit"
    if status in _WAIT:
        return _unavailable, "wait, or lower max_concurrency in config/models.yaml"
    if status == 413 or is_too_large(text):
        return _too_large, "shorten the prompt, or use an engine with a larger context"
    return _by_wording(status, text)


def _by_wording(status: int | None, text: str) -> tuple[_Make, str]:
    if status is not None and status >= 500 and status != 501:
        return _unavailable, "try again, or look at the server's log"
    if _TOOL.search(text):
        return _malformed, "the model wrote a tool call that the server cannot read"
    if _REFUSED.search(text):
        return _refused, "the provider's rules forbid this request"
    match status:
        case 403:
            return _hopeless, "the key may not use this model"
        case 404 | 405:
            return _hopeless, "check base_url (most end with /v1) and the model name"
        case None:
            return _unavailable, "the server failed in the middle of the reply; try again"
        case _:
            return _hopeless, "the server refuses the request itself"


def _decoded(text: str, body: object) -> object:
    try:
        return json.loads(text) if text.lstrip()[:1] in ("{", "[") else body
    except (ValueError, RecursionError):
        return body


def _error_in(body: Any) -> Any:
    """The error of a body: `{"error": {...}}`, or Gemini's list of one such."""
    first: Any = body[0] if isinstance(body, list) and body else body  # pyright: ignore[reportUnknownVariableType]
    return _mapping(first).get("error", first)  # pyright: ignore[reportUnknownArgumentType]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _status_in(error: Any) -> int | None:
    facts = _mapping(error)
    for key in ("code", "status_code", "type", "status"):
        value = facts.get(key)
        if isinstance(value, int) and 400 <= value < 600:
            return value
        if isinstance(value, str) and value.isascii() and value.lower() in _TYPES:
            return _TYPES[value.lower()]
    return None


def _retry_info(error: object) -> str:
    details = _mapping(error).get("details")
    for item in details if isinstance(details, list) else ():  # pyright: ignore[reportUnknownVariableType]
        delay = _mapping(item).get("retryDelay")
        if isinstance(delay, str):
            return delay.removesuffix("s")
    return ""


def _unavailable(message: str, details: dict[str, Any]) -> ModelError:
    return ModelUnavailable(message, **details)


def _hopeless(message: str, details: dict[str, Any]) -> ModelError:
    return ModelUnavailable(message, permanent=True, **details)


def _too_large(message: str, details: dict[str, Any]) -> ModelError:
    return ContextTooLarge(message, **details)


def _refused(message: str, details: dict[str, Any]) -> ModelError:
    return ReplyRefused(message, **details)


def _malformed(message: str, details: dict[str, Any]) -> ModelError:
    return ReplyMalformed(message, problems=[message], **details)


def timed_out(where: str, details: Mapping[str, Any]) -> ModelTimeout:
    """The deadline came first."""
    return ModelTimeout(
        f"{where} did not answer in time; raise timeout_s in config/models.yaml or use a faster engine", **details
    )
