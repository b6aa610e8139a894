"""The models of a fleet for callers outside of its stories."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from fleet.config.settings import ChatFrontSettings
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ConfigError
from fleet.log.redis.connection import connect_redis
from fleet.models.profiles import ModelsConfig, load_models
from fleet.owner.spending.redis import RedisDaySpending
from fleet.wiring.endpoints import Endpoints, load_principals
from fleet.wiring.telemetry import NO_TELEMETRY, Telemetry

if TYPE_CHECKING:
    from fleet.desk.chat import ChatDesk
    from fleet.wiring.models.policies import EngineModels


FRONT_ROLE = "system"
"""What a grant of config/secrets.yaml names for keys that `/v1` uses."""


@dataclass(frozen=True, slots=True)
class ChatParts:
    """What a replica of `/v1` holds."""

    desk: ChatDesk
    models: EngineModels


def make_chat_parts(
    endpoints: Endpoints, settings: ChatFrontSettings, *, telemetry: Telemetry = NO_TELEMETRY
) -> ChatParts:
    """What answers `/v1`, for as long as it lives; ConfigError when the settings name an engine that is not there."""
    from fleet.context.service.counts import PromptCounts
    from fleet.desk.chat import ChatDesk, ChatLimits, EngineAccess
    from fleet.desk.principals import PrincipalSpending
    from fleet.remote.ports import RayPacks
    from fleet.remote.resolver import ActorResolver
    from fleet.remote.timed_ports import TimedModels
    from fleet.wiring.models.engines import engine_replicas, is_there
    from fleet.wiring.models.policies import make_models
    from fleet.wiring.models.tokenizers import make_pack_readers

    clock = SystemClock()
    models = load_models(endpoints.files.document("models.yaml"))
    _check_engines(models, settings, str(endpoints.files.path("serve.yaml")))
    # What other programs ask is theirs: a run that records its own replies records none of it.
    unrecorded = replace(endpoints, record_dir=None)
    routed = make_models(unrecorded, models, role=FRONT_ROLE, replicas=partial(engine_replicas, endpoints))
    desk = ChatDesk(
        models.model_copy(update={"engines": tuple(e for e in models.engines if is_there(e, endpoints))}),
        TimedModels(routed, meter=telemetry.meter, clock=clock, tracer=telemetry.tracer),
        spending=PrincipalSpending(RedisDaySpending(connect_redis(endpoints.redis_url)), models.budgets, clock),
        clock=clock,
        roles_of=load_principals(endpoints.principals_file).roles_of,
        access=EngineAccess(also=settings.also_offered, roles=settings.roles),
        limits=ChatLimits(timeout_s=settings.timeout_s),
        prompts=PromptCounts(RayPacks(ActorResolver()), make_pack_readers(endpoints)),
    )
    return ChatParts(desk, routed)


def _check_engines(models: ModelsConfig, settings: ChatFrontSettings, path: str) -> None:
    engines = {engine.engine_id for engine in models.engines}
    if unknown := sorted({*settings.also_offered, *settings.roles} - engines):
        raise ConfigError(
            f"{path}: chat names engines that models.yaml does not have: {', '.join(unknown)}",
            file=path,
            engines=unknown,
        )
