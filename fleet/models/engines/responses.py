"""Servers with OpenAI's Responses API, through the official SDK. What a model thought between calls of tools goes back.

Source: OpenAI API reference, "Create a model response" and its streaming events; guides "Reasoning models" (encrypted
reasoning items) and "Conversation state" (requests that nothing is stored of).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import openai

from fleet.kernel.errors import ModelError, ReplyRefused
from fleet.models.chat import ChatMessage, ChatRequest, Reasoning, TokenUsage, ToolUse
from fleet.models.engine_config import HttpEngine
from fleet.models.engines.factory import ApiKey
from fleet.models.engines.openai import OpenAIServerModel, answer_of
from fleet.models.engines.server_model import EventStream, Partial, PartialThought, PartialUse, is_object
from fleet.models.engines.status_errors import ServerAnswer, error_of, is_too_large

REASONING = "reasoning"
"""Type of the items that hold what a model thought, and the form under which they are kept."""

_ENCRYPTED = "reasoning.encrypted_content"
_SCHEMA = re.compile(r"text\.format|response_format|json_schema|json_object|schema|grammar", re.I)
_UNREADABLE = re.compile(r"encrypted[ _]content|reasoning[ _]item|type '?\"?reasoning|item with id|\brs_\w+", re.I)
_NO_REASONING = re.compile(rf"encrypted content is not supported|{re.escape(_ENCRYPTED)}|['\"`.]include\b", re.I)
_OPTIONAL = ("temperature", "top_p")
_FEWEST_TOKENS = 16
"""The API refuses a smaller limit of a reply."""
_LONGEST_ID = 64


class LearnedResponses:
    """What the server takes of a request. Each refusal takes one step down, for all later requests of this process.

    Nothing is stored at the server, so it sends what the model thought in encrypted form, and gets it back with the
    calls of tools that it led to. A model that does not think refuses to be asked for it, and is not asked again.
    """

    def __init__(self, engine: HttpEngine) -> None:
        self._engine = engine
        self._left_out: set[str] = set(engine.dialect.left_out)
        self._forms = ["json_schema", "json_object", "none"]
        self._is_thinking = True
        self._unreadable: set[str] = set()

    def values(self, request: ChatRequest, model: str) -> dict[str, Any]:
        """The fields of a request. The API has no seed and no stop sequences."""
        sampling = request.sampling
        optional = {"temperature": float(sampling.temperature), "top_p": float(sampling.top_p)}
        values: dict[str, Any] = {
            "model": model,
            "input": [item for message in request.messages for item in self._items(message)],
            "max_output_tokens": max(_FEWEST_TOKENS, min(sampling.max_tokens, self._engine.max_output)),
            "stream": True,
            "store": False,
            **{name: value for name, value in optional.items() if name not in self._left_out},
        }
        if self._is_thinking:
            values["include"] = [_ENCRYPTED]
        if request.tools:
            values["tools"] = [
                # Unless told otherwise the API makes every argument a required one.
                {"type": "function", "strict": False, **offer.model_dump()}
                for offer in request.tools
            ]
        if request.json_schema is not None and (form := self._format(request, request.json_schema)):
            values["text"] = {"format": form}
        return values

    def step_down(self, refusal: str, request: ChatRequest) -> bool:
        """Whether the next request will be another one than this, because of the text of the refusal."""
        if is_too_large(refusal):
            return False
        # Items that another key or an older model encrypted cannot be read; the newer ones can.
        sent = {_digest(part) for message in request.messages for part in message.reasoning if self._goes_back(part)}
        if sent and _UNREADABLE.search(refusal):
            self._unreadable |= sent
            return True
        if self._is_thinking and _NO_REASONING.search(refusal):
            self._is_thinking = False
            return True
        if request.json_schema is not None and len(self._forms) > 1 and _SCHEMA.search(refusal):
            del self._forms[0]
            return True
        for name in _OPTIONAL:
            if name not in self._left_out and re.search(rf"\b{name}\b", refusal):
                self._left_out.add(name)
                return True
        return False

    def _format(self, request: ChatRequest, schema: Mapping[str, Any]) -> dict[str, Any] | None:
        if request.tools and not self._engine.dialect.schema_with_tools:
            return None
        match self._forms[0]:
            case "json_schema":
                return {"type": "json_schema", "name": "reply", "strict": True, "schema": dict(schema)}
            case "json_object":
                return {"type": "json_object"}
            case _:
                return None

    def _goes_back(self, part: Reasoning) -> bool:
        is_own = part.engine == self._engine.engine_id and part.form == REASONING
        return is_own and bool(part.opaque) and _digest(part) not in self._unreadable

    def _items(self, message: ChatMessage) -> list[dict[str, Any]]:
        if message.role == "tool":
            call = (message.tool_use_id or "")[:_LONGEST_ID]
            return [{"type": "function_call_output", "call_id": call, "output": message.content}]
        items: list[dict[str, Any]] = []
        if message.content.strip() or not message.tool_uses:
            items.append({"role": message.role, "content": message.content})
        items += [_call(use) for use in message.tool_uses]
        # The API refuses an item of reasoning that nothing follows, as of a reply that was cut off.
        thoughts = [part for part in message.reasoning if self._goes_back(part) and part.place < len(items)]
        for part in reversed(thoughts):
            items.insert(part.place, _thought(part))
        return items


def _digest(part: Reasoning) -> str:
    return hashlib.sha256(part.opaque.encode()).hexdigest()


def _call(use: ToolUse) -> dict[str, Any]:
    # What the model broke is not sent back as it was.
    arguments = use.arguments if is_object(use.arguments) else "{}"
    return {"type": "function_call", "call_id": use.id[:_LONGEST_ID], "name": use.name, "arguments": arguments}


def _thought(part: Reasoning) -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": part.text}] if part.text else []
    named = {"id": part.id} if part.id else {}
    return {"type": REASONING, **named, "summary": summary, "encrypted_content": part.opaque}


class ResponsesChatModel(OpenAIServerModel):
    """`ChatModel` over the Responses API; tools are offered natively, and nothing is stored at the server."""

    def __init__(self, engine: HttpEngine, *, base_url: str, model: str, api_key: str | ApiKey = "") -> None:
        super().__init__(engine, base_url=base_url, model=model, api_key=api_key)
        self._learned = LearnedResponses(engine)

    async def _open(self, request: ChatRequest, model: str, key: str, partial: Partial) -> EventStream:
        while True:
            create: Any = self._with(key).responses.create
            try:
                return await create(**self._learned.values(request, model))
            except (openai.BadRequestError, openai.UnprocessableEntityError, openai.NotFoundError) as error:
                if not self._learned.step_down(answer_of(error).wording, request):
                    raise

    def _read(self, event: Any, partial: Partial) -> str:
        match event.type:
            case "response.created":
                partial.model = event.response.model or partial.model
            case "response.output_text.delta":
                return partial.add(event.delta or "")
            case "response.output_item.added" if event.item.type == "function_call":
                partial.uses.append(PartialUse(id=event.item.call_id or "", name=event.item.name or ""))
            case "response.function_call_arguments.delta":
                partial.uses[-1].pieces.append(event.delta or "")
            case "response.output_item.done" if event.item.type == "function_call":
                # The whole arguments; a reply that was cut off has only the pieces.
                partial.uses[-1].pieces = [event.item.arguments or ""]
            case "response.output_item.done" if event.item.type == REASONING:
                partial.thoughts.append(_thought_of(event.item, partial.place))
            case "response.refusal.delta" | "response.refusal.done":
                said = getattr(event, "refusal", "") or getattr(event, "delta", "")
                raise ReplyRefused(f"{self._where}: the model refused: {str(said)[:200]}", **self._details)
            case "response.completed" | "response.incomplete":
                partial.usage = _usage(event.response.usage) or partial.usage
                partial.model = event.response.model or partial.model
                partial.finish = _finish(event.response)
            case "response.failed":
                raise self._failed(event.response.error)
            case "error":
                raise self._failed(event)
            case _:
                # Beginnings, parts and summaries that also come whole; and whatever is added.
                pass
        return ""

    def _failed(self, error: Any) -> ModelError:
        facts = {name: getattr(error, name, None) or "" for name in ("message", "code")}
        answer = ServerAnswer(
            f"{facts['message']} {facts['code']}".strip(), status=None, headers={}, body={"error": facts}
        )
        return error_of(answer, self._engine, self._where, self._details)


def _thought_of(item: Any, place: int) -> PartialThought:
    thought = PartialThought(REASONING, place, id=item.id or "")
    thought.pieces += ["\n\n".join(part.text for part in item.summary or () if part.text)]
    thought.opaque += [item.encrypted_content] if item.encrypted_content else []
    return thought


def _usage(counted: Any) -> TokenUsage | None:
    if counted is None:
        return None
    details = getattr(counted, "input_tokens_details", None)
    return TokenUsage(
        tokens_in=counted.input_tokens or 0,
        tokens_out=counted.output_tokens or 0,
        tokens_cached=getattr(details, "cached_tokens", 0) or 0,
    )


def _finish(response: Any) -> str:
    if response.status != "incomplete":
        return "stop"
    reason = getattr(response.incomplete_details, "reason", None)
    return "length" if reason in (None, "max_output_tokens") else str(reason)
