"""From the configuration of an engine to the model that stands for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast

from fleet.kernel.errors import InvalidInput, ModelUnavailable
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatReply, ChatRequest
from fleet.models.engine_config import ActorEngine, AnyEngine, HttpEngine, MockEngine, PluginEngine, RecordedEngine
from fleet.models.engines.mock import MockChatModel
from fleet.models.engines.recorded import RecordedChatModel, RecordingChatModel
from fleet.models.port import ChatModel
from fleet.models.profiles import ModelsConfig
from fleet.models.prompts.tool_text import tool_uses_in, with_tools_as_text
from fleet.models.replies.tool_calls import TextToolForm

HIDDEN = "[REDACTED]"


class ApiKey(Protocol):
    """Where a model finds its key. It is asked before every call, so that a key that was rotated is seen."""

    async def get(self) -> str:
        """The present key, empty when there is none. ModelUnavailable names the reference and what to do."""
        ...

    async def renewed(self, refused: str) -> str | None:
        """Another key than the one that the server has just refused; None when there is no other."""
        ...

    def hide(self, text: str) -> str:
        """The text without the key."""
        ...


class GivenKey:
    """A key that does not change while the process lives."""

    def __init__(self, value: str) -> None:
        self._value = value

    async def get(self) -> str:
        """See `ApiKey.get`."""
        return self._value

    async def renewed(self, refused: str) -> str | None:
        """See `ApiKey.renewed`: there is no other."""
        return None

    def hide(self, text: str) -> str:
        """See `ApiKey.hide`. What is shorter than a key could be an ordinary word, and stays."""
        return text.replace(self._value, HIDDEN) if len(self._value) >= 6 else text


class TextToolsChatModel:
    """A model that is told of tools in words. A request without tools passes unchanged."""

    def __init__(self, inner: ChatModel, form: TextToolForm) -> None:
        self._inner = inner
        self._form: TextToolForm = form

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """See `ChatModel.complete`."""
        asked = self._asked(request)
        reply = await self._inner.complete(asked, request_id=request_id, timeout_s=timeout_s, tag=tag)
        return self._with_uses(request, reply)

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncGenerator[ChatChunk]:
        """See `ChatModel.stream`. The pieces are as the model wrote them, its calls among them."""
        asked = self._asked(request)
        inner = self._inner.stream(asked, request_id=request_id, timeout_s=timeout_s, tag=tag)
        # Every adapter's stream is a generator; closing it gives the connection back.
        async with aclosing(cast("AsyncGenerator[ChatChunk]", inner)) as chunks:
            async for chunk in chunks:
                yield chunk if chunk.reply is None else ChatChunk(reply=self._with_uses(request, chunk.reply))

    async def abort(self, request_id: str) -> None:
        """See `ChatModel.abort`."""
        await self._inner.abort(request_id)

    async def health(self) -> None:
        """See `ChatModel.health`."""
        await self._inner.health()

    async def close(self) -> None:
        """The model behind it is closed, where it can be."""
        closing: Any = getattr(self._inner, "close", None)
        if closing is not None:
            await closing()

    def _asked(self, request: ChatRequest) -> ChatRequest:
        has_uses = any(message.tool_uses or message.role == "tool" for message in request.messages)
        return with_tools_as_text(request, self._form) if request.tools or has_uses else request

    def _with_uses(self, request: ChatRequest, reply: ChatReply) -> ChatReply:
        # What was cut off may be half a call.
        if not request.tools or reply.finish_reason != "stop":
            return reply
        parsed = tool_uses_in(reply.text, self._form, request.tools)
        if not parsed.uses:
            return reply.model_copy(update={"text": parsed.text})
        return reply.model_copy(
            update={"text": parsed.text, "tool_uses": parsed.uses, "finish_reason": "tool_use"},
        )


KeyOf = Callable[[str], ApiKey]
"""From a reference `secret://NAME` to the key; the value is fetched at the first call."""
PluginModel = Callable[[PluginEngine, ApiKey | None], ChatModel]
"""Makes the model that a package brings. ConfigError."""


def _no_plugins(engine: PluginEngine, key: ApiKey | None) -> ChatModel:
    raise ModelUnavailable(
        f"engine {engine.engine_id!r} is of kind {engine.kind!r}, which a package brings, and none is looked for here",
        engine=engine.engine_id,
        permanent=True,
    )


def _unchanged(text: str) -> str:
    return text


def build_chat_model(
    engine: AnyEngine,
    *,
    environ: Mapping[str, str],
    record_dir: Path | None = None,
    redact: Callable[[str], str] = _unchanged,
    key_of: KeyOf | None = None,
    plugin: PluginModel = _no_plugins,
) -> ChatModel:
    """The model of this engine; nothing is connected yet. With `record_dir` its replies are kept for replay.

    Args:
        environ: where the variables that the engine names are read: address, model name, key.
        redact: takes secrets out of what is recorded.
        key_of: where keys are that the engine names as `secret://NAME`.
        plugin: makes a model of a kind that is not the fleet's own.
    """
    match engine:
        case HttpEngine():
            model = _http_model(engine, environ, key_of)
        case ActorEngine() if (server := engine.as_server(environ)) is not None:
            model = _http_model(server, environ, key_of)
        case ActorEngine():
            raise ModelUnavailable(
                f"engine {engine.engine_id!r} runs in actors of a fleet, and none is up here: start it with `fleet up`",
                engine=engine.engine_id,
                permanent=True,
            )
        case RecordedEngine():
            return RecordedChatModel(Path(engine.directory))
        case MockEngine():
            model = MockChatModel(engine)
        case PluginEngine():
            made = plugin(engine, _key(engine, key_of) if engine.api_key else None)
            model = made if "tools" in engine.capabilities else TextToolsChatModel(made, engine.tool_form)
    return model if record_dir is None else RecordingChatModel(model, record_dir, engine=engine, redact=redact)


def _http_model(engine: HttpEngine, environ: Mapping[str, str], key_of: KeyOf | None) -> ChatModel:
    def of(name: str | None) -> str:
        return environ.get(name, "").strip() if name else ""

    base_url, name = of(engine.base_url_env) or engine.base_url, of(engine.model_env) or engine.model
    key = _key(engine, key_of) if engine.api_key else GivenKey(of(engine.api_key_env))
    model = _speaking(engine, base_url=base_url, model=name, key=key)
    return model if "tools" in engine.capabilities else TextToolsChatModel(model, engine.tool_form)


def _key(engine: HttpEngine | PluginEngine, key_of: KeyOf | None) -> ApiKey:
    if key_of is None:
        raise ModelUnavailable(
            f"engine {engine.engine_id!r} takes its key from {engine.api_key}, and this process has no secret store; "
            "call it through a running fleet (`fleet up`), or use api_key_env",
            engine=engine.engine_id,
            permanent=True,
        )
    assert engine.api_key
    return key_of(engine.api_key)


def _speaking(engine: HttpEngine, *, base_url: str, model: str, key: ApiKey) -> ChatModel:
    # The SDKs cost a second and 60 MB each, so that each is loaded by who uses it.
    if engine.kind == "anthropic":
        if find_spec("anthropic") is None:
            raise ModelUnavailable(
                f"engine {engine.engine_id!r} is of kind anthropic, whose client is not installed here: "
                "install the extra `anthropic` (`swe-fleet[anthropic]`)",
                engine=engine.engine_id,
                permanent=True,
            )
        from fleet.models.engines.anthropic import AnthropicChatModel

        return AnthropicChatModel(engine, base_url=base_url, model=model, api_key=key)
    if engine.api == "responses":
        from fleet.models.engines.responses import ResponsesChatModel

        return ResponsesChatModel(engine, base_url=base_url, model=model, api_key=key)
    from fleet.models.engines.openai import OpenAIChatModel

    return OpenAIChatModel(engine, base_url=base_url, model=model, api_key=key)


class ChatModels(Mapping[str, ChatModel]):
    """All models by engine id, built when first asked for; `recorded:DIR` is an engine id too.

    Iteration lists the configured engines only.
    """

    def __init__(
        self,
        config: ModelsConfig,
        *,
        environ: Mapping[str, str],
        record_dir: Path | None = None,
        redact: Callable[[str], str] = _unchanged,
        key_of: KeyOf | None = None,
        plugin: PluginModel = _no_plugins,
    ) -> None:
        self._config = config
        self._environ = dict(environ)
        self._record_dir = record_dir
        self._redact = redact
        self._key_of = key_of
        self._plugin = plugin
        self._built: dict[str, ChatModel] = {}

    def __getitem__(self, engine_id: str) -> ChatModel:
        if engine_id not in self._built:
            try:
                engine = self._config.engine(engine_id)
            except InvalidInput as error:
                raise KeyError(engine_id) from error
            self._built[engine_id] = build_chat_model(
                engine,
                environ=self._environ,
                record_dir=self._record_dir,
                redact=self._redact,
                key_of=self._key_of,
                plugin=self._plugin,
            )
        return self._built[engine_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._config.profiles)

    def __len__(self) -> int:
        return len(self._config.profiles)
