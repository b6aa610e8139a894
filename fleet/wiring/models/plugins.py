"""Models that installed packages bring (docs/extending.md)."""

from __future__ import annotations

from typing import Any

from fleet.models.engine_config import ENGINE_KINDS, PluginEngine
from fleet.models.engines.factory import ApiKey
from fleet.models.port import ChatModel, ModelEnginePlugin, ModelParts
from fleet.models.profiles import ModelsConfig
from fleet.wiring.plugins import Chosen, Group, choose

MODEL_ENGINES: Group[ModelEnginePlugin[Any]] = Group(
    "swe_fleet.model_engines", "model engine", ModelEnginePlugin, ENGINE_KINDS
)


def check_engines(models: ModelsConfig) -> None:
    """Every engine is of a kind that there is, with options that it takes; ConfigError otherwise."""
    for engine in models.engines:
        if isinstance(engine, PluginEngine):
            _chosen(engine)


def plugin_model(engine: PluginEngine, key: ApiKey | None) -> ChatModel:
    """The model of this engine; nothing is connected yet. ConfigError as `check_engines`."""
    chosen = _chosen(engine)
    parts = ModelParts(engine_id=engine.engine_id, model=engine.model, key=key.get if key is not None else None)
    return chosen.plugin.make(chosen.options, parts)


def _chosen(engine: PluginEngine) -> Chosen[ModelEnginePlugin[Any]]:
    return choose(MODEL_ENGINES, engine.kind, engine.options, where=f"models.yaml: engine {engine.engine_id}")
