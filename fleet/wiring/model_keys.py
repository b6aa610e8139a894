"""Keys of model servers that stand in a secret store: resolved in the process that calls, for its role (RT-65)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fleet.adapters.redis import RedisAccessTrail, connect_redis
from fleet.errors import FleetError, ModelUnavailable, StoreError
from fleet.models import HttpEngine, ModelsConfig
from fleet.services.known_secrets import KnownSecrets
from fleet.services.secret_broker import SecretBroker
from fleet.tools import parse_reference
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.secrets import make_secret_broker, recorded_accesses

if TYPE_CHECKING:
    from fleet.adapters.llm import KeyOf

__all__ = ["SecretKey", "make_model_keys", "wants_secret_keys"]

MODEL_TOOL, MODEL_OP = "model", "call"
"""What a grant in config/secrets.yaml names for the key of a model."""


class SecretKey:
    """An `ApiKey` that asks the broker at every call; the broker keeps the value for its short life."""

    def __init__(self, reference: str, broker: SecretBroker, known: KnownSecrets, *, role: str) -> None:
        name = parse_reference(reference)
        assert name is not None, "the configuration of an engine takes references alone"
        self._name = name
        self._broker = broker
        self._known = known
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
    return any(isinstance(engine, HttpEngine) and engine.api_key for engine in models.engines)


def make_model_keys(
    endpoints: Endpoints, *, role: str, known: KnownSecrets, environ: Mapping[str, str] | None = None
) -> KeyOf:
    """From a reference to a key, for calls of this role. Nothing is read before the first call.

    Args:
        known: where values are registered for redaction.
        environ: where the environment provider looks; that of the process, when none is given.
    """
    record = recorded_accesses(RedisAccessTrail(connect_redis(endpoints.redis_url)))
    seen = os.environ if environ is None else environ
    broker = make_secret_broker(endpoints, environ=seen, record=record, known=known)
    return lambda reference: SecretKey(reference, broker, known, role=role)
