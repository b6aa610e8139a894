"""Any server with the OpenAI wire format, through the official SDK: hosted services, vLLM, llama.cpp, Ollama.

Source: OpenAI API reference, "Create chat completion" and its streaming events.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import openai

from fleet.adapters.llm.keys import ApiKey
from fleet.adapters.llm.openai_dialect import LearnedDialect
from fleet.adapters.llm.openai_errors import answer_of, refuses_key, translate
from fleet.adapters.llm.partial import Partial, PartialUse
from fleet.adapters.llm.server_model import EventStream, ServerChatModel
from fleet.errors import ModelError, ReplyRefused
from fleet.models import ChatRequest, TokenUsage
from fleet.models.engines import HttpEngine

__all__ = ["OpenAIChatModel"]


class OpenAIChatModel(ServerChatModel):
    """`ChatModel` over a server with the OpenAI wire format; tools are offered natively."""

    def __init__(self, engine: HttpEngine, *, base_url: str, model: str, api_key: str | ApiKey = "") -> None:
        super().__init__(engine, base_url=base_url, model=model, api_key=api_key)
        self._dialect = LearnedDialect(engine)
        # The SDK wants some key; servers on the own machine ignore it. The real one comes with each request.
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key="none",
            max_retries=0,
            timeout=None,
            http_client=self._http,
            default_headers=engine.headers,
        )

    def _with(self, key: str) -> openai.AsyncOpenAI:
        return self._client.with_options(api_key=key) if key else self._client

    async def _open(self, request: ChatRequest, model: str, key: str, partial: Partial) -> EventStream:
        while True:
            values = self._dialect.values(request, model, self._dialect.messages(request))
            try:
                return await self._with(key).chat.completions.create(**values)  # pyright: ignore[reportUnknownVariableType]
            except (openai.BadRequestError, openai.UnprocessableEntityError, openai.InternalServerError) as error:
                if not self._dialect.step_down(answer_of(error).wording, request):
                    raise

    def _read(self, event: Any, partial: Partial) -> str:
        if event.usage is not None:
            details = getattr(event.usage, "prompt_tokens_details", None)
            partial.usage = TokenUsage(
                tokens_in=event.usage.prompt_tokens or 0,
                tokens_out=event.usage.completion_tokens or 0,
                tokens_cached=getattr(details, "cached_tokens", 0) or 0,
            )
        partial.model = event.model or partial.model
        text = ""
        for choice in (event.choices or ())[:1]:
            partial.finish = choice.finish_reason or partial.finish
            if getattr(choice.delta, "refusal", None):
                raise ReplyRefused(f"{self._where}: the model refused: {choice.delta.refusal[:200]}", **self._details)
            text = partial.add(choice.delta.content or "")
            for piece in choice.delta.tool_calls or ():
                _add_use(piece, partial)
        return text

    async def _offered(self, key: str) -> Sequence[str]:
        return [model.id async for model in self._with(key).models.list()]

    def _error_of(self, error: Exception) -> ModelError | None:
        return translate(error, self._engine, self._base_url) if isinstance(error, openai.OpenAIError) else None

    def _refuses_key(self, error: Exception) -> bool:
        return refuses_key(error)


def _add_use(piece: Any, partial: Partial) -> None:
    """A use comes in pieces that share an index. Some servers number nothing, and send whole uses, each with its id."""
    index = piece.index if isinstance(piece.index, int) else max(0, len(partial.uses) - 1)
    new = index >= len(partial.uses) or bool(piece.id and partial.uses[index].id and partial.uses[index].id != piece.id)
    if new:
        partial.uses.append(PartialUse())
        index = len(partial.uses) - 1
    use = partial.uses[index]
    use.id = piece.id or use.id
    if piece.function is not None:
        use.name = piece.function.name or use.name
        use.pieces.append(piece.function.arguments or "")
