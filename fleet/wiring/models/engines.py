"""Engines that run in actors of the fleet: which there are, what is in them, and how to call them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ConfigError, InvalidInput
from fleet.models.engine_config import ActorEngine, EngineConfig
from fleet.models.port import ChatModel, Engine, TokenSource, UsageLog
from fleet.models.profiles import ModelsConfig, load_models
from fleet.models.service.model_engine import ModelEngine
from fleet.models.service.queued_model import QueuedModel, behind_queue
from fleet.models.service.usage_logs import UsageLogs
from fleet.wiring.endpoints import Endpoints

_WAIT_S = 2.0
"""How long a call looks for an actor that is not there: its entry has others behind it."""


@dataclass(frozen=True, slots=True)
class EngineParts:
    """What an engine actor holds."""

    engine: Engine
    queued: QueuedModel
    """The same engine behind its fair queue: the way for calls."""
    config: ActorEngine


def served_engines(endpoints: Endpoints) -> tuple[ActorEngine, ...]:
    """The engines that this fleet runs itself, as `models.serve` lists them.

    Raises:
        ConfigError: an id is unknown, stands there twice, or names an engine that runs elsewhere.
    """
    listed = endpoints.models.serve
    if not listed:
        return ()
    config = _models(endpoints)
    if len(set(listed)) != len(listed):
        raise ConfigError("models.serve in fleet.yaml names an engine twice", listed=list(listed))
    engines: list[ActorEngine] = []
    for number, name in enumerate(listed):
        try:
            engine = config.engine(name)
        except InvalidInput as error:
            place = endpoints.files.place("fleet.yaml", f"models.serve.{number}")
            raise ConfigError(f"{place}: models.serve: {error.message}", **error.details) from error
        if not isinstance(engine, ActorEngine):
            raise ConfigError(
                f"models.serve in fleet.yaml names {name!r}, which runs elsewhere (kind {engine.kind}): list "
                "engines of kind vllm or local that have no base_url",
                engine=name,
            )
        if 0 < engine.gpus < engine.tensor_parallel:
            raise ConfigError(
                f"engine {name!r} has tensor_parallel {engine.tensor_parallel} and {engine.gpus} GPUs: raise `gpus`",
                engine=name,
            )
        engines.append(engine)
    return tuple(engines)


def _models(endpoints: Endpoints) -> ModelsConfig:
    return load_models(endpoints.files.document("models.yaml"))


def replica_names(engine: ActorEngine) -> tuple[str, ...]:
    """The names of the engine's actors."""
    return tuple(f"engine:{engine.engine_id}:{number}" for number in range(engine.replicas))


def is_there(engine: EngineConfig, endpoints: Endpoints) -> bool:
    """Whether anything can stand for the engine: one for actors that this fleet does not run has nobody."""
    if not isinstance(engine, ActorEngine) or engine.engine_id in endpoints.models.serve:
        return True
    return engine.as_server(endpoints.environ) is not None


def engine_replicas(endpoints: Endpoints, engine: ActorEngine) -> dict[str, ChatModel]:
    """The engine's actors by name, each a `ChatModel`; none when this fleet does not serve it. Nothing is connected."""
    from fleet.remote.engine import RayEngine
    from fleet.remote.resolver import ActorResolver

    if engine.engine_id not in endpoints.models.serve:
        return {}
    resolver = ActorResolver(wait_s=_WAIT_S)
    return {name: RayEngine(resolver, name) for name in replica_names(engine)}


def engine_usage(endpoints: Endpoints) -> UsageLogs | None:
    """The usage logs of all engines that this fleet serves; None when it serves none."""
    from fleet.remote.engine import RayEngine
    from fleet.remote.resolver import ActorResolver

    resolver = ActorResolver(wait_s=_WAIT_S)
    logs: dict[str, dict[str, UsageLog]] = {
        engine.engine_id: {name: RayEngine(resolver, name) for name in replica_names(engine)}
        for engine in served_engines(endpoints)
    }
    return UsageLogs(logs, SystemClock()) if logs else None


def engine_environment_of(engine: ActorEngine) -> Mapping[str, str]:
    """Variables that the engine's process must start with."""
    from fleet.models.engines.vllm_options import engine_environment

    return engine_environment(engine) if engine.kind == "vllm" else {}


def make_engine(endpoints: Endpoints, engine_id: str) -> EngineParts:
    """The engine behind actor `engine:<engine>:<n>`; it is loaded by `load`."""
    config = next(engine for engine in served_engines(endpoints) if engine.engine_id == engine_id)
    clock = SystemClock()
    engine = ModelEngine(_source(endpoints, config), config, clock=clock)
    queued = behind_queue(engine, config, clock, weights=_models(endpoints).tenant_weights)
    return EngineParts(engine, queued, config)


def _source(endpoints: Endpoints, config: ActorEngine) -> TokenSource:
    # The libraries are imported by the one process that uses them.
    if config.kind == "local":
        from fleet.wiring.models.weights import make_llama_source

        return make_llama_source(config, Path(endpoints.home), endpoints.llama, environ=endpoints.environ)
    from fleet.models.engines.vllm_engine import VllmTokenSource

    return VllmTokenSource(config, environ=endpoints.environ)
