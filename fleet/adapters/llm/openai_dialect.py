"""What one server with the OpenAI wire format accepts: known from its preset, or learned from what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from fleet.adapters.llm.status_errors import is_too_large
from fleet.models import ChatRequest, HttpEngine
from fleet.models.presets import SchemaForm

__all__ = ["LearnedDialect", "is_object"]

_SCHEMA = re.compile(r"response_format|json_schema|json_object|schema|grammar|guided", re.I)
_MAX_NAMES = ("max_tokens", "max_completion_tokens")
_FORMS: tuple[SchemaForm, ...] = ("json_schema", "json_object_schema", "json_object", "none")
_OPTIONAL = ("temperature", "top_p", "seed", "stop", "stream_options")


class LearnedDialect:
    """Each refusal takes one step down, for all later requests of this process."""

    def __init__(self, engine: HttpEngine) -> None:
        known = engine.dialect
        self._engine = engine
        self._known = known
        self._max_name = known.max_tokens_name
        self._renamed = False
        self._left_out: set[str] = set(known.left_out)
        self._forms = list(_FORMS[_FORMS.index(known.schema_form) :])

    def values(self, request: ChatRequest, model: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """The fields of a request."""
        sampling = request.sampling
        optional: dict[str, Any] = {
            "temperature": float(sampling.temperature),
            "top_p": float(sampling.top_p),
            "seed": sampling.seed,
            "stop": list(sampling.stop) or None,
            "stream_options": {"include_usage": True},
        }
        values: dict[str, Any] = {
            "model": model,
            "messages": messages,
            self._max_name: min(sampling.max_tokens, self._engine.max_output),
            "stream": True,
            **{k: v for k, v in optional.items() if v is not None and k not in self._left_out},
        }
        if request.tools:
            values["tools"] = [{"type": "function", "function": offer.model_dump()} for offer in request.tools]
        if request.json_schema is not None and (form := self._response_format(request, request.json_schema)):
            values["response_format"] = form
        return values

    def messages(self, request: ChatRequest) -> list[dict[str, Any]]:
        """The conversation as this server takes it."""
        return [self._message(message.model_dump()) for message in request.messages]

    def step_down(self, refusal: str, request: ChatRequest) -> bool:
        """Whether the next request will be another one than this, because of the text of the refusal."""
        if is_too_large(refusal):
            return False
        other = _MAX_NAMES[1 - _MAX_NAMES.index(self._max_name)]
        if not self._renamed and self._names_limit(refusal, other):
            self._max_name, self._renamed = other, True
            return True
        if request.json_schema is not None and len(self._forms) > 1 and _SCHEMA.search(refusal):
            del self._forms[0]
            return True
        for name in _OPTIONAL:
            if name not in self._left_out and re.search(rf"\b{name}\b", refusal):
                self._left_out.add(name)
                return True
        return False

    def _names_limit(self, refusal: str, other: str) -> bool:
        # "Unsupported parameter: 'max_tokens' ... Use 'max_completion_tokens' instead", or an unknown field.
        if other == "max_completion_tokens":
            return other in refusal
        return re.search(rf"\b{self._max_name}\b", refusal) is not None

    def _response_format(self, request: ChatRequest, schema: Mapping[str, Any]) -> dict[str, Any] | None:
        if request.tools and not self._known.schema_with_tools:
            return None
        match self._forms[0]:
            case "json_schema":
                named = {"name": "reply", "strict": True, "schema": dict(schema)}
                return {"type": "json_schema", "json_schema": named}
            case "json_object_schema":
                # The form of llama.cpp's Python server.
                return {"type": "json_object", "schema": dict(schema)}
            case "json_object":
                return {"type": "json_object"}
            case _:
                return None

    def _message(self, message: dict[str, Any]) -> dict[str, Any]:
        plain: dict[str, Any] = {"role": message["role"], "content": message["content"]}
        if message["role"] == "tool":
            return {**plain, "tool_call_id": message["tool_use_id"] or ""}
        if uses := message.get("tool_uses"):
            plain["content"] = plain["content"] or None
            plain["tool_calls"] = [self._use(use) for use in uses]
        return plain

    def _use(self, use: Mapping[str, str]) -> dict[str, Any]:
        # Chat templates parse the arguments again, so what the model broke is not sent back as it was.
        arguments = use["arguments"] if is_object(use["arguments"]) else "{}"
        function = {"name": use["name"], "arguments": arguments}
        return {"id": use["id"], "type": "function", "function": function, **self._known.tool_use_extra}


def is_object(text: str) -> bool:
    """Whether the text is one JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
