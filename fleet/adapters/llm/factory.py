"""From the configuration of an engine to the model that stands for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fleet.adapters.llm.mock import MockChatModel
from fleet.adapters.llm.recorded import RecordedChatModel, RecordingChatModel
from fleet.errors import InvalidInput
from fleet.models.profiles import HttpEngine, MockEngine, ModelsConfig, RecordedEngine
from fleet.ports import ChatModel

__all__ = ["ChatModels", "build_chat_model"]


def _unchanged(text: str) -> str:
    return text


def build_chat_model(
    engine: HttpEngine | RecordedEngine | MockEngine,
    *,
    environ: Mapping[str, str],
    record_dir: Path | None = None,
    redact: Callable[[str], str] = _unchanged,
) -> ChatModel:
    """The model of this engine; nothing is connected yet. With `record_dir` its replies are kept for replay.

    Args:
        environ: where the variables that the engine names are read: address, model name, key.
        redact: takes secrets out of what is recorded.
    """
    match engine:
        case HttpEngine():
            model: ChatModel = _http_model(engine, environ)
        case RecordedEngine():
            return RecordedChatModel(Path(engine.directory))
        case MockEngine():
            model = MockChatModel(engine)
    return model if record_dir is None else RecordingChatModel(model, record_dir, redact=redact)


def _http_model(engine: HttpEngine, environ: Mapping[str, str]) -> ChatModel:
    from fleet.adapters.llm.openai import OpenAIChatModel

    def of(name: str | None) -> str:
        return environ.get(name, "").strip() if name else ""

    return OpenAIChatModel(
        engine,
        base_url=of(engine.base_url_env) or engine.base_url,
        model=of(engine.model_env) or engine.model,
        api_key=of(engine.api_key_env),
    )


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
    ) -> None:
        self._config = config
        self._environ = dict(environ)
        self._record_dir = record_dir
        self._redact = redact
        self._built: dict[str, ChatModel] = {}

    def __getitem__(self, engine_id: str) -> ChatModel:
        if engine_id not in self._built:
            try:
                engine = self._config.engine(engine_id)
            except InvalidInput as error:
                raise KeyError(engine_id) from error
            self._built[engine_id] = build_chat_model(
                engine, environ=self._environ, record_dir=self._record_dir, redact=self._redact
            )
        return self._built[engine_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._config.profiles)

    def __len__(self) -> int:
        return len(self._config.profiles)
