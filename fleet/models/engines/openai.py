"""Any server with the OpenAI wire format, through the official SDK: hosted services, vLLM, llama.cpp, Ollama.

Source: OpenAI API reference, "Create chat completion" and its streaming events.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import openai

from fleet.kernel.errors import ModelError, ModelUnavailable, ReplyMalformed, ReplyRefused
from fleet.models.chat import ChatRequest, TokenUsage
from fleet.models.engine_config import HttpEngine
from fleet.models.engines.factory import ApiKey
from fleet.models.engines.server_model import EventStream, Partial, PartialUse, ServerChatModel, is_object
from fleet.models.engines.status_errors import ServerAnswer, error_of, is_refused_key, is_too_large, shown, timed_out
from fleet.models.presets import SchemaForm

_SCHEMA = re.compile(r"response_format|json_schema|json_object|schema|grammar|guided", re.I)
_MAX_NAMES = ("max_tokens", "max_completion_tokens")
_FORMS: tuple[SchemaForm, ...] = ("json_schema", "json_object_schema", "json_object", "none")
_THOUGHTS = ("reasoning_content", "reasoning")
"""Fields in which vLLM, llama.cpp and others send what a model thought, and take it back under the same name."""
_OPTIONAL = ("temperature", "top_p", "seed", "stop", "stream_options")


class LearnedDialect:
    """Each refusal takes one step down, for all later requests of this process."""

    def __init__(self, engine: HttpEngine) -> None:
        dialect = engine.dialect
        self._engine = engine
        self._known = dialect
        self._max_name = dialect.max_tokens_name
        self._renamed = False
        self._left_out: set[str] = set(dialect.left_out)
        self._refused_thoughts: set[str] = set()
        self._forms = list(_FORMS[_FORMS.index(dialect.schema_form) :])

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
        sent = {part.form for message in request.messages for part in message.reasoning} - self._refused_thoughts
        for name in sorted(sent, key=len, reverse=True):
            if re.search(rf"\b{name}\b", refusal):
                self._refused_thoughts.add(name)
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
        for part in message.get("reasoning") or ():
            # Templates that think between calls want it back; a server that refuses the field is not sent it again.
            if part["engine"] == self._engine.engine_id and part["form"] not in self._refused_thoughts:
                plain[part["form"]] = plain.get(part["form"], "") + part["text"]
        if uses := message.get("tool_uses"):
            plain["content"] = plain["content"] or None
            plain["tool_calls"] = [self._use(use) for use in uses]
        return plain

    def _use(self, use: Mapping[str, str]) -> dict[str, Any]:
        # Chat templates parse the arguments again, so what the model broke is not sent back as it was.
        arguments = use["arguments"] if is_object(use["arguments"]) else "{}"
        function = {"name": use["name"], "arguments": arguments}
        return {"id": use["id"], "type": "function", "function": function, **self._known.tool_use_extra}


_Make = Callable[[openai.OpenAIError, HttpEngine, str, dict[str, Any]], ModelError]


def answer_of(error: openai.APIError) -> ServerAnswer:
    """What the server answered."""
    if isinstance(error, openai.APIStatusError):
        # The SDK shows neither a page nor a list; the body was read before the error was raised.
        response = error.response
        text = response.text if response.is_stream_consumed or response.is_closed else ""
        return ServerAnswer(text or error.message, status=error.status_code, headers=response.headers, body=error.body)
    return ServerAnswer(f"{error.message} {error.code or ''}".strip(), status=None, headers={}, body=error.body)


def _by_answer(error: openai.OpenAIError, engine: HttpEngine, where: str, details: dict[str, Any]) -> ModelError:
    assert isinstance(error, openai.APIError)
    return error_of(answer_of(error), engine, where, details)


def _said(error: openai.OpenAIError) -> str:
    return shown(str(error)).rstrip(".")


def _no_answer(error: openai.OpenAIError, engine: HttpEngine, where: str, details: dict[str, Any]) -> ModelError:
    mend = "start the server or correct its address"
    if engine.base_url_env:
        mend = f"start the server, or set {engine.base_url_env} to its address"
    why = f" ({error.__cause__})" if error.__cause__ and str(error.__cause__) else ""
    return ModelUnavailable(f"{where}: {_said(error)}{why}; {mend}", **details)


def _late(error: openai.OpenAIError, engine: HttpEngine, where: str, details: dict[str, Any]) -> ModelError:
    return timed_out(where, details)


def _again(error: openai.OpenAIError, engine: HttpEngine, where: str, details: dict[str, Any]) -> ModelError:
    return ModelUnavailable(f"{where}: {_said(error)}; try again", **details)


def _hopeless(error: openai.OpenAIError, engine: HttpEngine, where: str, details: dict[str, Any]) -> ModelError:
    message = f"{where}: {_said(error)}; the server does not speak the OpenAI wire format, or the key is wrong"
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


class OpenAIServerModel(ServerChatModel):
    """What the APIs have in common that OpenAI's SDK speaks: client, key, models and errors."""

    def __init__(self, engine: HttpEngine, *, base_url: str, model: str, api_key: str | ApiKey = "") -> None:
        super().__init__(engine, base_url=base_url, model=model, api_key=api_key)
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

    async def _offered(self, key: str) -> Sequence[str]:
        return [model.id async for model in self._with(key).models.list()]

    def _error_of(self, error: Exception) -> ModelError | None:
        return translate(error, self._engine, self._base_url) if isinstance(error, openai.OpenAIError) else None

    def _refuses_key(self, error: Exception) -> bool:
        return isinstance(error, openai.APIStatusError) and is_refused_key(answer_of(error))


class OpenAIChatModel(OpenAIServerModel):
    """`ChatModel` over a server with the OpenAI wire format; tools are offered natively."""

    def __init__(self, engine: HttpEngine, *, base_url: str, model: str, api_key: str | ApiKey = "") -> None:
        super().__init__(engine, base_url=base_url, model=model, api_key=api_key)
        self._dialect = LearnedDialect(engine)

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
            for name in _THOUGHTS:
                if isinstance(thought := getattr(choice.delta, name, None), str) and thought:
                    partial.thinking(name).pieces.append(thought)
                    break  # some servers send the same words under both names
            text = partial.add(choice.delta.content or "")
            for piece in choice.delta.tool_calls or ():
                _add_use(piece, partial)
        return text


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
