"""Every exception of the `openai` SDK as one error of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai

from fleet.adapters.llm.status_errors import ServerAnswer, error_of, is_refused_key, shown, timed_out
from fleet.errors import ModelError, ModelUnavailable, ReplyMalformed, ReplyRefused
from fleet.models import HttpEngine

__all__ = ["MAPPING", "answer_of", "refuses_key", "translate"]

_Make = Callable[[openai.OpenAIError, HttpEngine, str, dict[str, Any]], ModelError]


def answer_of(error: openai.APIError) -> ServerAnswer:
    """What the server answered."""
    if isinstance(error, openai.APIStatusError):
        # The SDK shows neither a page nor a list; the body was read before the error was raised.
        response = error.response
        text = response.text if response.is_stream_consumed or response.is_closed else ""
        return ServerAnswer(text or error.message, status=error.status_code, headers=response.headers, body=error.body)
    return ServerAnswer(f"{error.message} {error.code or ''}".strip(), status=None, headers={}, body=error.body)


def refuses_key(error: Exception) -> bool:
    """Whether the server refuses the key."""
    return isinstance(error, openai.APIStatusError) and is_refused_key(answer_of(error))


def _by_answer(error: openai.OpenAIError, engine: HttpEngine, where: str, details: dict[str, Any]) -> ModelError:
    assert isinstance(error, openai.APIError)
    return error_of(answer_of(error), engine, where, details)


def _no_answer(error: openai.OpenAIError, engine: HttpEngine, where: str, details: dict[str, Any]) -> ModelError:
    mend = "start the server or correct its address"
    if engine.base_url_env:
        mend = f"start the server, or set {engine.base_url_env} to its address"
    why = f" ({error.__cause__})" if error.__cause__ and str(error.__cause__) else ""
    return ModelUnavailable(f"{where}: {shown(str(error))}{why}; {mend}", **details)


def _late(error: openai.OpenAIError, engine: HttpEngine, where: str, details: dict[str, Any]) -> ModelError:
    return timed_out(where, details)


def _again(error: openai.OpenAIError, engine: HttpEngine, where: str, details: dict[str, Any]) -> ModelError:
    return ModelUnavailable(f"{where}: {shown(str(error))}; try again", **details)


def _hopeless(error: openai.OpenAIError, engine: HttpEngine, where: str, details: dict[str, Any]) -> ModelError:
    message = f"{where}: {shown(str(error))}; the server does not speak the OpenAI wire format, or the key is wrong"
    return ModelUnavailable(message, permanent=True, **details)


def _cut(error: openai.OpenAIError, engine: HttpEngine, where: str, details: dict[str, Any]) -> ModelError:
    message = f"{where}: the reply was cut off"
    return ReplyMalformed(message, problems=[message], **details)


def _withheld(error: openai.OpenAIError, engine: HttpEngine, where: str, details: dict[str, Any]) -> ModelError:
    return ReplyRefused(f"{where}: the content filter withheld the reply", **details)


MAPPING: dict[type[openai.OpenAIError], _Make] = {
    openai.APITimeoutError: _late,
    openai.APIConnectionError: _no_answer,
    openai.OAuthError: _hopeless,
    openai.AuthenticationError: _by_answer,
    openai.PermissionDeniedError: _by_answer,
    openai.NotFoundError: _by_answer,
    openai.RateLimitError: _by_answer,
    openai.ConflictError: _by_answer,
    openai.InternalServerError: _by_answer,
    openai.BadRequestError: _by_answer,
    openai.UnprocessableEntityError: _by_answer,
    openai.APIStatusError: _by_answer,
    openai.APIResponseValidationError: _hopeless,
    openai.LengthFinishReasonError: _cut,
    openai.ContentFilterFinishReasonError: _withheld,
    openai.WebSocketConnectionClosedError: _again,
    openai.WebSocketQueueFullError: _again,
    openai.APIError: _by_answer,
    openai.OpenAIError: _hopeless,
}
"""Every exception class of the SDK that a model call can raise -> our error. Most specific first."""


def translate(error: openai.OpenAIError, engine: HttpEngine, base_url: str) -> ModelError:
    """The model error that stands for an exception of the SDK."""
    make = next(row for cls, row in MAPPING.items() if isinstance(error, cls))
    where = f"engine {engine.engine_id!r} at {base_url}"
    return make(error, engine, where, {"engine": engine.engine_id, "base_url": base_url})
