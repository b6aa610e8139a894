"""Errors of `/v1` in OpenAI's shape: `{"error": {message, type, param, code}}` (AP-122)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from fleet.kernel.errors import BudgetExceeded, FleetError, ModelTimeout, ModelUnavailable, Retry
from fleet.redaction.redact import redact
from serve_apps.problems import HTTP_STATUS, internal_error

ErrorType = Literal["invalid_request_error", "insufficient_quota", "requests", "permission_error", "server_error"]

_STATUS: Mapping[str, int] = {"invalid_input": 400, "context_too_large": 400, "store_full": 503}
"""Where OpenAI's status differs from that of the error's row."""
_CODES: Mapping[str, str] = {
    "unauthenticated": "invalid_api_key",
    "rate_limited": "rate_limit_exceeded",
    "context_too_large": "context_length_exceeded",
    "invalid_input": "invalid_value",
    "not_found": "model_not_found",
    "malformed_request": "invalid_json",
    "reply_refused": "content_filter",
}
"""Ours -> the code by which OpenAI's clients know it; every other code stays as it is."""
_ADDRESS = re.compile(r"( at)? ?\b[a-z][a-z0-9+.-]*://[^\s;,'\"]+")


class ErrorDetail(BaseModel):
    """What is wrong and where."""

    model_config = ConfigDict(extra="forbid")

    message: str
    type: ErrorType
    param: str | None = None
    """Path of the field, as `messages.0.content`."""
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every refusal of `/v1`."""

    model_config = ConfigDict(extra="forbid")

    error: ErrorDetail


def error_body(error: FleetError) -> dict[str, Any]:
    """The error in OpenAI's shape; `openai_code` and `field` of its details name code and field."""
    param = error.details.get("field")
    detail = ErrorDetail(
        message=error.message,
        type=_type_of(error),
        param=param if isinstance(param, str) else None,
        code=error.details.get("openai_code") or _CODES.get(error.code, error.code),
    )
    return ErrorBody(error=detail).model_dump()


def error_response(error: FleetError, *, status: int | None = None) -> JSONResponse:
    """The answer for an error; OpenAI's clients read from its headers whether and when to come again."""
    status = status or _STATUS.get(error.code, HTTP_STATUS[error.code])
    comes_again = error.retry is Retry.LATER and not error.details.get("permanent")
    headers = {"X-Should-Retry": "true" if comes_again else "false", "X-Fleet-Code": error.code}
    if comes_again:
        headers["Retry-After"] = str(error.details.get("retry_after_s", 2))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error_body(error), status_code=status, headers=headers)


def shown(error: FleetError) -> FleetError:
    """The error as a caller may see it: no address of an engine, and of a fault of ours only that it happened."""
    if error.code == FleetError.code:
        return internal_error()
    model = " ".join(["the model", *([repr(error.details["engine"])] if "engine" in error.details else [])])
    if isinstance(error, ModelUnavailable) and not error.details.get("queued"):
        kept = {name: error.details[name] for name in ("permanent", "retry_after_s") if name in error.details}
        return ModelUnavailable(f"{model} cannot answer now; ask its operator if it stays so", **kept)
    if isinstance(error, ModelTimeout) and not error.details.get("queued"):
        return ModelTimeout(f"{model} did not answer in time; ask for less, or again later")
    # A caller's own words, or those of a provider, may hold a key.
    return type(error)(redact(_ADDRESS.sub("", error.message)).text, **error.details)


def _type_of(error: FleetError) -> ErrorType:
    status = HTTP_STATUS[error.code]
    if isinstance(error, BudgetExceeded):
        return "insufficient_quota"
    if status == 429:
        return "requests"
    if status == 403:
        return "permission_error"
    return "server_error" if status >= 500 else "invalid_request_error"
