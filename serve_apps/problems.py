"""Errors as RFC 9457 problem documents; one HTTP row per class (AP-7, AP-20..AP-46)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from fleet.kernel.errors import FleetError, InvalidInput, MalformedRequest, NotFound, Retry, all_error_classes
from fleet.redaction.redact_json import redact_json

_LOG = logging.getLogger(__name__)

HTTP_STATUS: Mapping[str, int] = {
    "malformed_request": 400,
    "idempotency_key_required": 400,
    "unauthenticated": 401,
    "policy_denied": 403,
    "approval_required": 403,
    "not_found": 404,
    "invalid_transition": 409,
    "gate_closed": 409,
    "already_claimed": 409,
    "version_conflict": 409,
    "quorum_not_reached": 409,
    "budget_exceeded": 409,
    "outcome_unknown": 409,
    "precondition_failed": 412,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "invalid_input": 422,
    "idempotency_mismatch": 422,
    "context_too_large": 422,
    "precondition_required": 428,
    "rate_limited": 429,
    "internal_error": 500,
    "log_corrupted": 500,
    "log_regressed": 500,
    "unsupported_schema": 500,
    "nondeterministic_plan": 500,
    "config_error": 500,
    "reply_malformed": 502,
    "reply_refused": 502,
    "tool_failed": 502,
    "store_unavailable": 503,
    "commit_unknown": 503,
    "lease_held": 503,
    "ownership_lost": 503,
    "sandbox_unavailable": 503,
    "model_unavailable": 503,
    "tool_timeout": 504,
    "model_timeout": 504,
    "store_full": 507,
}
"""The row of each code. `config_error` stops a start and never reaches HTTP; its row is the last resort."""

assert {cls.code for cls in all_error_classes()} <= set(HTTP_STATUS)


def internal_error() -> FleetError:
    """What a caller is told of a fault of ours: that it happened, and nothing of its inside (AP-7)."""
    return FleetError("something went wrong inside the front; its log has the cause")


def told(error: FleetError, doing: str) -> FleetError:
    """The error as a caller may see it: of a fault of the owner nothing but that it happened (AP-7)."""
    if error.code != FleetError.code and "unknown_code" not in error.details:
        return error
    _LOG.error("%s failed: %s", doing, error.message)
    return internal_error()


def problem_response(error: FleetError, *, instance: str, status: int | None = None) -> JSONResponse:
    """The problem document of an error, with `Retry-After` where the same call may come again.

    `status` replaces that of the error's row where the web framework has a more precise one.
    """
    status = HTTP_STATUS[error.code] if status is None else status
    details: dict[str, Any] = {k: v for k, v in error.details.items() if k not in ("problems",)}
    body = {
        **details,
        "type": f"urn:swe-fleet:problem:{error.code}",
        "title": error.code.replace("_", " "),
        "status": status,
        "detail": error.message,
        "instance": instance,
        "code": error.code,
        "retry": error.retry.value,
        "errors": error.details.get("problems", []),
    }
    body = redact_json(body)
    wait_s = error.details.get("retry_after_s", 2)
    headers = {"Retry-After": str(wait_s)} if error.retry is Retry.LATER else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, status_code=status, headers=headers, media_type="application/problem+json")


def validation_problem(request: Request, error: RequestValidationError) -> JSONResponse:
    """The problem document of a request that the wire models refuse; every pointer is listed (GL-15)."""
    items = error.errors()
    problems = [
        {"pointer": "/" + "/".join(str(p) for p in e["loc"][1:]), "code": e["type"], "message": e["msg"]} for e in items
    ]
    text = "; ".join(f"{p['pointer']}: {p['message']}" for p in problems)
    if any(e["type"] == "json_invalid" for e in items):
        return problem_response(MalformedRequest(f"the body is not JSON: {text}"), instance=request.url.path)
    return problem_response(InvalidInput(text, problems=problems), instance=request.url.path)


def http_problem(request: Request, error: HTTPException) -> JSONResponse:
    """The problem document of what the web framework itself refuses, such as an unknown path."""
    refusal: FleetError = NotFound(f"there is nothing at {request.url.path}")
    if error.status_code != 404:
        refusal = MalformedRequest(f"{request.method} {request.url.path}: {error.detail}")
    response = problem_response(refusal, instance=request.url.path, status=error.status_code)
    response.headers.update(error.headers or {})
    return response
