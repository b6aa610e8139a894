"""Every exception of the `anthropic` SDK as one error of ours. Source: "Claude API errors"."""

from __future__ import annotations

import anthropic

from fleet.adapters.llm.status_errors import ServerAnswer, error_of, is_refused_key, shown, timed_out
from fleet.errors import ModelError, ModelUnavailable
from fleet.models import HttpEngine

__all__ = ["answer_of", "refuses_key", "translate"]


def answer_of(error: anthropic.APIStatusError) -> ServerAnswer:
    """What the server answered; an error in the middle of a stream has the status that its type stands for."""
    return ServerAnswer(
        error.message, status=error.response.status_code, headers=error.response.headers, body=error.body
    )


def refuses_key(error: Exception) -> bool:
    """Whether the server refuses the key."""
    return isinstance(error, anthropic.APIStatusError) and is_refused_key(answer_of(error))


def translate(error: anthropic.AnthropicError, engine: HttpEngine, base_url: str) -> ModelError:
    """The model error that stands for an exception of the SDK."""
    where, details = f"engine {engine.engine_id!r} at {base_url}", {"engine": engine.engine_id, "base_url": base_url}
    match error:
        case anthropic.APIStatusError():
            return error_of(answer_of(error), engine, where, details)
        case anthropic.APITimeoutError():
            return timed_out(where, details)
        case anthropic.APIConnectionError():
            return ModelUnavailable(
                f"{where}: {shown(error.message)}; start the server or correct its address", **details
            )
        case anthropic.RetryableError():
            return ModelUnavailable(f"{where}: {shown(str(error))}; try again", **details)
        case _:
            # Answers of another shape, and credentials that the SDK would look for by itself.
            message = f"{where}: {shown(str(error))}; check base_url, kind and key in config/models.yaml"
            return ModelUnavailable(message, permanent=True, **details)
