"""Models behind Anthropic's Messages API, through the official SDK (extra `anthropic`).

Source: "Claude API: Streaming Messages" and "Handling stop reasons".
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import anthropic
from anthropic import transform_schema

from fleet.kernel.errors import ModelError, ModelUnavailable, ReplyRefused
from fleet.models.chat import ChatMessage, ChatRequest, Reasoning, TokenUsage, ToolUse
from fleet.models.engine_config import HttpEngine
from fleet.models.engines.factory import ApiKey
from fleet.models.engines.server_model import EventStream, Partial, PartialThought, PartialUse, ServerChatModel
from fleet.models.engines.status_errors import ServerAnswer, error_of, is_refused_key, is_too_large, shown, timed_out

REPLY_TOOL = "reply"
"""Name of the tool that a structured reply is forced into, where the output format is not taken."""

_FORMAT = re.compile(r"output_config|output_format|schema|grammar|structured output", re.I)
_FORCED = re.compile(r"tool_choice|thinking", re.I)


class LearnedForms:
    """How this model takes a schema: as output format, as a forced tool, not at all. Each refusal is one step down.

    Temperature, top_p and seed are not sent: the API has no seed, and its present models refuse the other two.
    """

    def __init__(self, engine: HttpEngine) -> None:
        self._engine = engine
        self._forms = ["format", "tool", "none"] if "json_schema" in engine.capabilities else ["none"]

    def is_reply_tool(self, request: ChatRequest) -> bool:
        """Whether the reply of this request comes as the arguments of a tool."""
        return request.json_schema is not None and not request.tools and self._forms[0] == "tool"

    def step_down(self, refusal: str, request: ChatRequest) -> bool:
        """Whether the next request will be another one than this, because of the text of the refusal."""
        pattern = _FORMAT if self._forms[0] == "format" else _FORCED
        if request.json_schema is None or len(self._forms) == 1 or is_too_large(refusal) or not pattern.search(refusal):
            return False
        del self._forms[0]
        return True

    def values(self, request: ChatRequest, model: str) -> dict[str, Any]:
        """The fields of a request."""
        sampling = request.sampling
        values: dict[str, Any] = {
            "model": model,
            "messages": _messages(request, self._engine.engine_id),
            "max_tokens": min(sampling.max_tokens, self._engine.max_output),
            "stream": True,
        }
        if system := "\n\n".join(m.content for m in request.messages if m.role == "system" and m.content):
            values["system"] = system
        if request.tools:
            # A conversation grows turn by turn: what was sent before is read from the cache.
            _mark(values)
        # A stop sequence of white space alone is refused.
        if stops := [stop for stop in sampling.stop if stop.strip()]:
            values["stop_sequences"] = stops
        if request.tools:
            values["tools"] = [
                {"name": offer.name, "description": offer.description, "input_schema": _as_object(offer.parameters)}
                for offer in request.tools
            ]
        return values | self._thinking(values["max_tokens"], request) | self._structured(request)

    def _thinking(self, max_tokens: int, request: ChatRequest) -> dict[str, Any]:
        asked = self._engine.thinking
        # A reply that is forced into a tool goes without, and so does one that has no room for both.
        if asked is None or self.is_reply_tool(request) or (isinstance(asked, int) and asked >= max_tokens):
            return {}
        kind = {"type": "adaptive"} if asked == "adaptive" else {"type": "enabled", "budget_tokens": asked}
        return {"thinking": kind}

    def _structured(self, request: ChatRequest) -> dict[str, Any]:
        schema = request.json_schema
        if schema is None or self._forms[0] == "none":
            return {}
        if self._forms[0] == "format":
            # The API knows fewer keywords than we check; the SDK moves the others into descriptions.
            return {"output_config": {"format": {"type": "json_schema", "schema": transform_schema(schema)}}}
        if request.tools:
            return {}
        tool = {"name": REPLY_TOOL, "description": "Give the reply in this form.", "input_schema": schema}
        return {"tools": [tool], "tool_choice": {"type": "tool", "name": REPLY_TOOL}}


def _as_object(schema: dict[str, Any]) -> dict[str, Any]:
    return schema if schema.get("type") == "object" else {"type": "object", **schema}


def _mark(values: dict[str, Any]) -> None:
    """Cache marks at the end of the rules and of the last two messages of the user. They are no part of the content."""
    kept = {"type": "ephemeral"}
    if "system" in values:
        values["system"] = [{"type": "text", "text": values["system"], "cache_control": kept}]
    asked = [message for message in values["messages"] if message["role"] == "user"]
    for message in asked[-2:]:
        message["content"][-1] = {**message["content"][-1], "cache_control": kept}


def _messages(request: ChatRequest, engine: str) -> list[dict[str, Any]]:
    """User and assistant in turns: all results of one turn stand in one user message, as the API demands."""
    turns: list[dict[str, Any]] = []
    for message in request.messages:
        if message.role == "system":
            continue
        role, blocks = "assistant" if message.role == "assistant" else "user", _blocks(message, engine)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    # A request needs a message, and a prompt may be a system message alone.
    return turns or [{"role": "user", "content": [{"type": "text", "text": "Begin."}]}]


def _blocks(message: ChatMessage, engine: str) -> list[dict[str, Any]]:
    if message.role == "tool":
        result = {"type": "tool_result", "tool_use_id": _id(message.tool_use_id or ""), "content": message.content}
        return [result]
    # An empty text block is refused.
    text: list[dict[str, Any]] = [{"type": "text", "text": message.content}] if message.content.strip() else []
    uses = [
        {"type": "tool_use", "id": _id(use.id), "name": use.name, "input": _input(use)} for use in message.tool_uses
    ]
    blocks = [*text, *uses]
    # The API wants its thoughts back where they stood, and as it signed them.
    for part in reversed([part for part in message.reasoning if part.engine == engine]):
        blocks.insert(part.place, _thought(part))
    return blocks


def _thought(part: Reasoning) -> dict[str, Any]:
    if part.form == "redacted_thinking":
        return {"type": part.form, "data": part.opaque}
    return {"type": "thinking", "thinking": part.text, "signature": part.opaque}


def _input(use: ToolUse) -> dict[str, Any]:
    try:
        value = json.loads(use.arguments or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _id(text: str) -> str:
    """Ids of uses may come from another provider; here they hold letters, digits, `_` and `-` only."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text) or "_"


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


class AnthropicChatModel(ServerChatModel):
    """`ChatModel` over the Messages API. Tokens read from the prompt cache are counted as cached, and as input too."""

    def __init__(self, engine: HttpEngine, *, base_url: str, model: str, api_key: str | ApiKey = "") -> None:
        super().__init__(engine, base_url=base_url, model=model, api_key=api_key)
        self._forms = LearnedForms(engine)
        self._client = anthropic.AsyncAnthropic(
            # The SDK adds the version itself.
            base_url=base_url.rstrip("/").removesuffix("/v1"),
            api_key="none",
            max_retries=0,
            timeout=None,
            http_client=self._http,
            default_headers=engine.headers,
        )

    def _with(self, key: str) -> anthropic.AsyncAnthropic:
        return self._client.with_options(api_key=key) if key else self._client

    async def _open(self, request: ChatRequest, model: str, key: str, partial: Partial) -> EventStream:
        while True:
            try:
                partial.is_forced = self._forms.is_reply_tool(request)
                return await self._with(key).messages.create(**self._forms.values(request, model))  # pyright: ignore[reportUnknownVariableType]
            except anthropic.BadRequestError as error:
                if not self._forms.step_down(error.message, request):
                    raise

    def _read(self, event: Any, partial: Partial) -> str:
        match event.type:
            case "message_start":
                partial.model = event.message.model or partial.model
                partial.usage = _usage(event.message.usage, partial.usage)
            case "content_block_start" if event.content_block.type == "tool_use" and not partial.is_forced:
                partial.uses.append(PartialUse(id=event.content_block.id, name=event.content_block.name))
            case "content_block_start" if event.content_block.type in ("thinking", "redacted_thinking"):
                # Each block is signed by itself.
                opaque = getattr(event.content_block, "data", None) or getattr(event.content_block, "signature", None)
                thought = PartialThought(event.content_block.type, partial.place)
                thought.opaque += [opaque] if opaque else []
                partial.thoughts.append(thought)
            case "content_block_start" if event.content_block.type == "text":
                return partial.add(event.content_block.text or "")
            case "content_block_delta":
                return _read_delta(event.delta, partial)
            case "message_delta":
                partial.usage = _usage(event.usage, partial.usage)
                partial.finish = _finish(event.delta.stop_reason, partial) or partial.finish
                if partial.finish == "refusal":
                    raise ReplyRefused(f"{self._where}: the model refused{_why(event.delta)}", **self._details)
            case _:
                # message_stop, content_block_stop; and whatever is added, as the documentation asks.
                pass
        return ""

    async def _offered(self, key: str) -> Sequence[str]:
        return [model.id async for model in self._with(key).models.list(limit=1000)]

    def _error_of(self, error: Exception) -> ModelError | None:
        is_theirs = isinstance(error, anthropic.AnthropicError)
        return translate(error, self._engine, self._base_url) if is_theirs else None

    def _refuses_key(self, error: Exception) -> bool:
        return refuses_key(error)


def _read_delta(delta: Any, partial: Partial) -> str:
    match delta.type:
        case "text_delta":
            # The words beside a forced tool are not the reply.
            return "" if partial.is_forced else partial.add(delta.text or "")
        case "thinking_delta":
            partial.thoughts[-1].pieces.append(delta.thinking or "")
        case "signature_delta":
            partial.thoughts[-1].opaque.append(delta.signature or "")
        case "input_json_delta" if partial.is_forced:
            return partial.add(delta.partial_json or "")
        case "input_json_delta":
            partial.uses[-1].pieces.append(delta.partial_json or "")
        case _:
            pass
    return ""


def _usage(counted: Any, before: TokenUsage | None) -> TokenUsage | None:
    """The sums so far: later events repeat what they know of earlier ones, and leave out the rest."""
    if counted is None:
        return before
    sums = before or TokenUsage()
    written, read = (getattr(counted, f"cache_{part}_input_tokens", None) for part in ("creation", "read"))
    fresh = getattr(counted, "input_tokens", None)
    return TokenUsage(
        tokens_in=max(sums.tokens_in, (fresh or 0) + (written or 0) + (read or 0)),
        tokens_out=counted.output_tokens or sums.tokens_out,
        tokens_cached=sums.tokens_cached if read is None else read,
    )


def _finish(reason: str | None, partial: Partial) -> str | None:
    return "stop" if partial.is_forced and reason == "tool_use" else reason


def _why(delta: Any) -> str:
    details = getattr(delta, "stop_details", None)
    category, explanation = (getattr(details, name, None) for name in ("category", "explanation"))
    return f" ({category}): {str(explanation or '')[:200]}" if category else ""
