"""From the configuration of an engine to the model that stands for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from fleet.adapters.llm.keys import ApiKey, GivenKey
from fleet.adapters.llm.mock import MockChatModel
from fleet.adapters.llm.recorded import RecordedChatModel, RecordingChatModel
from fleet.adapters.llm.text_tools import TextToolsChatModel
from fleet.errors import InvalidInput, ModelUnavailable
from fleet.models import ActorEngine, HttpEngine, MockEngine, ModelsConfig, RecordedEngine
from fleet.ports import ChatModel

__all__ = ["ChatModels", "KeyOf", "build_chat_model"]

KeyOf = Callable[[str], ApiKey]
"""From a reference `secret://NAME` to the key; the value is fetched at the first call."""


def _unchanged(text: str) -> str:
    return text


def build_chat_model(
    engine: HttpEngine | ActorEngine | RecordedEngine | MockEngine,
    *,
    environ: Mapping[str, str],
    record_dir: Path | None = None,
    redact: Callable[[str], str] = _unchanged,
    key_of: KeyOf | None = None,
) -> ChatModel:
    """The model of this engine; nothing is connected yet. With `record_dir` its replies are kept for replay.

    Args:
        environ: where the variables that the engine names are read: address, model name, key.
        redact: takes secrets out of what is recorded.
        key_of: where keys are that the engine names as `secret://NAME`.
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
    return model if record_dir is None else RecordingChatModel(model, record_dir, redact=redact)


def _http_model(engine: HttpEngine, environ: Mapping[str, str], key_of: KeyOf | None) -> ChatModel:
    def of(name: str | None) -> str:
        return environ.get(name, "").strip() if name else ""

    base_url, name = of(engine.base_url_env) or engine.base_url, of(engine.model_env) or engine.model
    key = _key(engine, key_of) if engine.api_key else GivenKey(of(engine.api_key_env))
    model = _speaking(engine, base_url=base_url, model=name, key=key)
    return model if "tools" in engine.capabilities else TextToolsChatModel(model, engine.tool_form)


def _key(engine: HttpEngine, key_of: KeyOf | None) -> ApiKey:
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
        from fleet.adapters.llm.anthropic import AnthropicChatModel

        return AnthropicChatModel(engine, base_url=base_url, model=model, api_key=key)
    from fleet.adapters.llm.openai import OpenAIChatModel

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
    ) -> None:
        self._config = config
        self._environ = dict(environ)
        self._record_dir = record_dir
        self._redact = redact
        self._key_of = key_of
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
            )
        return self._built[engine_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._config.profiles)

    def __len__(self) -> int:
        return len(self._config.profiles)
