"""Models that installed packages bring (docs/extending.md)."""

from __future__ import annotations

from typing import Any

from fleet.config.files import ConfigFiles
from fleet.models.engine_config import ENGINE_KINDS, PluginEngine
from fleet.models.engines.factory import ApiKey
from fleet.models.port import ChatModel, ModelEnginePlugin, ModelParts
from fleet.models.profiles import ModelsConfig
from fleet.wiring.plugins import Chosen, Group, choose

MODEL_ENGINES: Group[ModelEnginePlugin[Any]] = Group(
    "swe_fleet.model_engines", "model engine", ModelEnginePlugin, ENGINE_KINDS
)


def check_engines(models: ModelsConfig, files: ConfigFiles) -> None:
    """Every engine is of a kind that there is, with options that it takes; ConfigError otherwise."""
    for number, engine in enumerate(models.engines):
        if isinstance(engine, PluginEngine):
            _chosen(engine, files.place("models.yaml", f"engines.{number}.kind"))


def plugin_model(engine: PluginEngine, key: ApiKey | None) -> ChatModel:
    """The model of this engine; nothing is connected yet. ConfigError as `check_engines`."""
    chosen = _chosen(engine)
    parts = ModelParts(engine_id=engine.engine_id, model=engine.model, key=key.get if key is not None else None)
    return chosen.plugin.make(chosen.options, parts)


def _chosen(engine: PluginEngine, place: str = "models.yaml") -> Chosen[ModelEnginePlugin[Any]]:
    return choose(MODEL_ENGINES, engine.kind, engine.options, where=f"{place}: engine {engine.engine_id}")
