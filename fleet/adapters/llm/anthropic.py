"""Models behind Anthropic's Messages API, through the official SDK (extra `anthropic`).

Source: "Claude API: Streaming Messages" and "Handling stop reasons".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anthropic

from fleet.adapters.llm.anthropic_errors import refuses_key, translate
from fleet.adapters.llm.anthropic_request import LearnedForms
from fleet.adapters.llm.keys import ApiKey
from fleet.adapters.llm.partial import Partial, PartialUse
from fleet.adapters.llm.server_model import EventStream, ServerChatModel
from fleet.errors import ModelError, ReplyRefused
from fleet.models import ChatRequest, HttpEngine, TokenUsage

__all__ = ["AnthropicChatModel"]


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
                # message_stop, content_block_stop, thinking; and whatever is added, as the documentation asks.
                pass
        return ""

    async def _offered(self, key: str) -> Sequence[str]:
        return [model.id async for model in self._with(key).models.list(limit=1000)]

    def _error_of(self, error: Exception) -> ModelError | None:
        known = isinstance(error, anthropic.AnthropicError)
        return translate(error, self._engine, self._base_url) if known else None

    def _refuses_key(self, error: Exception) -> bool:
        return refuses_key(error)


def _read_delta(delta: Any, partial: Partial) -> str:
    match delta.type:
        case "text_delta":
            # The words beside a forced tool are not the reply.
            return "" if partial.is_forced else partial.add(delta.text or "")
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
    known = before or TokenUsage()
    written, read = (getattr(counted, f"cache_{part}_input_tokens", None) for part in ("creation", "read"))
    fresh = getattr(counted, "input_tokens", None)
    return TokenUsage(
        tokens_in=max(known.tokens_in, (fresh or 0) + (written or 0) + (read or 0)),
        tokens_out=counted.output_tokens or known.tokens_out,
        tokens_cached=known.tokens_cached if read is None else read,
    )


def _finish(reason: str | None, partial: Partial) -> str | None:
    return "stop" if partial.is_forced and reason == "tool_use" else reason


def _why(delta: Any) -> str:
    details = getattr(delta, "stop_details", None)
    category, explanation = (getattr(details, name, None) for name in ("category", "explanation"))
    return f" ({category}): {str(explanation or '')[:200]}" if category else ""
