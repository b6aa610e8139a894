"""The models of a process by engine id, each behind its queue and its router."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.kernel.clock import Clock, SystemClock
from fleet.kernel.errors import FleetError, ModelUnavailable, StoreError
from fleet.log.redis.connection import connect_redis
from fleet.models.engine_config import ActorEngine, HttpEngine, PluginEngine, RecordedEngine
from fleet.models.engines.factory import ChatModels
from fleet.models.engines.recorded import RecordingChatModel
from fleet.models.port import ChatModel
from fleet.models.profiles import ModelsConfig
from fleet.models.service.queued_model import behind_queue
from fleet.models.service.routed_model import RoutedModel, RouterStats
from fleet.policy.secret_refs import parse_reference
from fleet.secrets.redis import RedisAccessTrail
from fleet.secrets.service import KnownSecrets, SecretBroker
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.models.plugins import plugin_model
from fleet.wiring.stores.redaction import with_engine_keys
from fleet.wiring.stores.secrets import make_secret_broker, recorded_accesses

if TYPE_CHECKING:
    from fleet.models.engines.factory import KeyOf

MODEL_TOOL, MODEL_OP = "model", "call"
"""What a grant in config/secrets.yaml names for the key of a model."""


class SecretKey:
    """An `ApiKey` that asks the broker at every call; the broker keeps the value for its short life."""

    def __init__(self, reference: str, broker: SecretBroker, known_secrets: KnownSecrets, *, role: str) -> None:
        name = parse_reference(reference)
        assert name is not None, "the configuration of an engine takes references alone"
        self._name = name
        self._broker = broker
        self._known = known_secrets
        self._role = role

    async def get(self) -> str:
        """See `ApiKey.get`."""
        try:
            value = await self._broker.resolve(self._name, as_role=self._role, tool=MODEL_TOOL, op=MODEL_OP)
        except FleetError as error:
            raise self._missing(error) from error
        return value.reveal()

    async def renewed(self, refused: str) -> str | None:
        """See `ApiKey.renewed`: the store is read again, since the key may have been rotated."""
        self._broker.forget(self._name)
        value = await self.get()
        return value if value != refused else None

    def hide(self, text: str) -> str:
        """See `ApiKey.hide`: no secret of this process is in the text."""
        return self._known.redact(text).text

    def _missing(self, error: FleetError) -> ModelUnavailable:
        grant = f"{{secret: {self._name}, roles: [{self._role}], tool: {MODEL_TOOL}, ops: [{MODEL_OP}]}}"
        facts = {} if isinstance(error, StoreError) else {"permanent": True}
        return ModelUnavailable(
            f"the key secret://{self._name} cannot be had: {error.message}; config/secrets.yaml needs a provider that "
            f"serves it and the grant {grant}",
            secret=self._name,
            role=self._role,
            reason=error.code,
            **facts,
        )


def wants_secret_keys(models: ModelsConfig) -> bool:
    """Whether an engine takes its key from a secret store."""
    return any(isinstance(engine, HttpEngine | PluginEngine) and engine.api_key for engine in models.engines)


def make_model_keys(
    endpoints: Endpoints, *, role: str, known_secrets: KnownSecrets, environ: Mapping[str, str] | None = None
) -> KeyOf:
    """From a reference to a key, for calls of this role. Nothing is read before the first call.

    Args:
        known: where values are registered for redaction.
        environ: where the environment provider looks; that of the process, when none is given.
    """
    record = recorded_accesses(RedisAccessTrail(connect_redis(endpoints.redis_url)))
    seen = os.environ if environ is None else environ
    broker = make_secret_broker(endpoints, environ=seen, record=record, known_secrets=known_secrets)
    return lambda reference: SecretKey(reference, broker, known_secrets, role=role)


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
        """Why no call of this engine would go through now. None when one would, or when nothing is known of it."""
        router = self._routers.get(engine_id)
        return router.refusal() if router is not None else None

    def stats(self) -> tuple[RouterStats, ...]:
        """What the routers of this process did so far."""
        return tuple(router.stats() for router in self._routers.values())

    def _build(self, engine_id: str) -> ChatModel:
        engine = next((engine for engine in self._config.engines if engine.engine_id == engine_id), None)
        if engine is None:
            return self._bare[engine_id]
        is_behind_queue = isinstance(engine, HttpEngine | ActorEngine | PluginEngine)
        model = self._routed(engine) if is_behind_queue else self._bare[engine_id]
        if self._record_dir is None or isinstance(engine, RecordedEngine):
            return model
        # A replay has no probe to follow: it is told what this one led to.
        strategy = self._config.strategy_of(engine_id).strategy
        resolved = engine.model_copy(update={"strategy": strategy})
        return RecordingChatModel(model, self._record_dir, engine=resolved, redact=self._redact)

    def _routed(self, engine: HttpEngine | ActorEngine | PluginEngine) -> ChatModel:
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
    known_secrets = KnownSecrets()
    key_of = make_model_keys(endpoints, role=role, known_secrets=known_secrets) if wants_secret_keys(config) else None
    secrets = with_engine_keys(config, endpoints.environ, known_secrets)
    return EngineModels(
        config,
        ChatModels(config, environ=endpoints.environ, key_of=key_of, plugin=plugin_model),
        clock=SystemClock(),
        replicas=replicas,
        record_dir=record_dir,
        # The digest of a request is that of the request as sent: what is taken out does not change what replays.
        redact=lambda text: secrets.redact(text).text,
    )
