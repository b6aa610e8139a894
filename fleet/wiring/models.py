"""The models of a process by engine id, each behind its queue and its router."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fleet.adapters.clock import SystemClock
from fleet.adapters.llm import ChatModels, RecordingChatModel
from fleet.errors import ModelUnavailable
from fleet.models import ActorEngine, HttpEngine, ModelsConfig, RecordedEngine
from fleet.ports import ChatModel, Clock
from fleet.services.known_secrets import KnownSecrets
from fleet.services.queued_model import behind_queue
from fleet.services.routed_model import RoutedModel, RouterStats
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.model_keys import make_model_keys, wants_secret_keys
from fleet.wiring.recording import recording_redaction

__all__ = ["EngineModels", "make_models"]

Replicas = Callable[[ActorEngine], Mapping[str, ChatModel]]


def _nobody(engine: ActorEngine) -> Mapping[str, ChatModel]:
    return {}


class EngineModels(Mapping[str, ChatModel]):
    """The models of `bare`, routed: a server has its queue here, the actors of an engine have theirs in the actor.

    Recorded replies and mocks answer at once and stand as they are. Iteration lists the configured engines only.

    Args:
        bare: the model of each engine, as it is.
        replicas: the actors of an engine by name; none means that none is up here.
        record_dir: where replies are kept for replay; what is kept there is not asked again.
        redact: takes secrets out of what is kept.
    """

    def __init__(
        self,
        config: ModelsConfig,
        bare: Mapping[str, ChatModel],
        *,
        clock: Clock,
        replicas: Replicas = _nobody,
        record_dir: Path | None = None,
        redact: Callable[[str], str] = lambda text: text,
    ) -> None:
        self._redact = redact
        self._config, self._bare, self._clock = config, bare, clock
        self._replicas, self._record_dir = replicas, record_dir
        self._routers: dict[str, RoutedModel] = {}
        self._built: dict[str, ChatModel] = {}

    def __getitem__(self, engine_id: str) -> ChatModel:
        if engine_id not in self._built:
            self._built[engine_id] = self._build(engine_id)
        return self._built[engine_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._bare)

    def __len__(self) -> int:
        return len(self._bare)

    def refusal(self, engine_id: str) -> ModelUnavailable | None:
        """Why no call of this engine would go through now; None when one would, or when nothing is known of it."""
        router = self._routers.get(engine_id)
        return router.refusal() if router is not None else None

    def stats(self) -> tuple[RouterStats, ...]:
        """What the routers of this process did so far."""
        return tuple(router.stats() for router in self._routers.values())

    def _build(self, engine_id: str) -> ChatModel:
        engine = next((engine for engine in self._config.engines if engine.engine_id == engine_id), None)
        if engine is None:
            return self._bare[engine_id]
        model = self._routed(engine) if isinstance(engine, HttpEngine | ActorEngine) else self._bare[engine_id]
        if self._record_dir is None or isinstance(engine, RecordedEngine):
            return model
        return RecordingChatModel(model, self._record_dir, redact=self._redact)

    def _routed(self, engine: HttpEngine | ActorEngine) -> ChatModel:
        name = engine.engine_id
        replicas: Mapping[str, ChatModel] = self._replicas(engine) if isinstance(engine, ActorEngine) else {}
        if not replicas:
            # A server, also one that stands for actors which this fleet does not serve; without either this raises.
            bare = self._bare[name]
            replicas = {name: behind_queue(bare, engine, self._clock, weights=self._config.tenant_weights)}
        self._routers[name] = RoutedModel(replicas, self._clock, name, slots=engine.max_concurrency)
        return self._routers[name]


def make_models(endpoints: Endpoints, config: ModelsConfig, *, role: str, replicas: Replicas = _nobody) -> EngineModels:
    """The models that this process may ask, for calls of this role; nothing is connected yet."""
    record_dir = Path(endpoints.record_dir) if endpoints.record_dir else None
    known = KnownSecrets()
    key_of = make_model_keys(endpoints, role=role, known=known) if wants_secret_keys(config) else None
    return EngineModels(
        config,
        ChatModels(config, environ=endpoints.environ, key_of=key_of),
        clock=SystemClock(),
        replicas=replicas,
        record_dir=record_dir,
        redact=recording_redaction(config, endpoints.environ, known),
    )
