"""Who is told outside of the fleet: targets of the settings, and what follows the log for them (LC-80)."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from fleet.config.notifications import PluginTargetSettings, TargetSettings
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ConfigError
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.dead_letters import RedisDeadLetters
from fleet.log.redis.feed import RedisFeed
from fleet.log.redis.log import RedisEventLog
from fleet.notifications.port import NotificationTarget, NotificationTargetPlugin, TargetParts
from fleet.notifications.redis import RedisNotificationBook
from fleet.secrets.port import SecretValue
from fleet.secrets.redis import RedisAccessTrail
from fleet.secrets.service import KnownSecrets
from fleet.telemetry.port import Meter
from fleet.wiring.desk.desk import open_desk
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.plugins import Chosen, Group, choose
from fleet.wiring.stores.secrets import check_secret, make_secret_broker, recorded_accesses

if TYPE_CHECKING:
    from fleet.notifications.service import Notifier


TARGETS: Group[NotificationTargetPlugin[Any]] = Group(
    "swe_fleet.notification_targets", "notification target", NotificationTargetPlugin
)
_USE = {"as_role": "devops", "tool": "notifications", "op": "send"}


def check_notifications(endpoints: Endpoints) -> None:
    """Every target can be told as far as the files say: its key is kept somewhere and granted, its certificates exist.

    Raises:
        ConfigError: there is no such kind, an option is wrong, no provider has a key, no grant covers its use, or a
            file is missing; says where and what to do.
    """
    for target in endpoints.notifications.targets:
        if (name := target.secret_name) is not None:
            of = f"notification target {target.name}"
            check_secret(endpoints, name, what="the key", of=of, tool=_USE["tool"], ops=[_USE["op"]])
        if isinstance(target, PluginTargetSettings):
            _target(endpoints, target, _unread)
        elif target.ca_file is not None and not target.ca_file.is_file():
            raise ConfigError(
                f"{endpoints.files.path('fleet.yaml')}: notifications.targets {target.name}: ca_file "
                f"{target.ca_file} is no file; give the certificates of the receiver's authority",
                key="notifications.targets",
            )


async def _unread() -> SecretValue:
    raise AssertionError("nothing is read before the start")


@asynccontextmanager
async def open_notifier(endpoints: Endpoints, settings: TargetSettings, *, meter: Meter) -> AsyncGenerator[Notifier]:
    """What follows the log for one target; its connections end with the block."""
    from fleet.notifications.service import Notifier, Subscription

    redis, cache = connect_redis(endpoints.redis_url), connect_redis(endpoints.cache_url)
    try:
        async with open_desk(endpoints) as planning:
            record = recorded_accesses(RedisAccessTrail(redis))
            broker = make_secret_broker(endpoints, environ=os.environ, record=record, known_secrets=KnownSecrets())
            yield Notifier(
                settings.name,
                _target(endpoints, settings, partial(broker.resolve, settings.secret_name or "", **_USE)),
                Subscription(frozenset(settings.events), frozenset(settings.projects)),
                log=RedisEventLog(redis),
                feed=RedisFeed(redis),
                book=RedisNotificationBook(redis),
                letters=RedisDeadLetters(redis, cache),
                state_of=planning.state,
                clock=SystemClock(),
                meter=meter,
            )
    finally:
        await redis.aclose()
        await cache.aclose()


async def tell_target(endpoints: Endpoints, settings: TargetSettings, *, meter: Meter) -> None:
    """Never returns: the target is told of what concerns it from here on, and of what it is owed."""
    async with open_notifier(endpoints, settings, meter=meter) as notifier:
        await notifier.run()


def _target(
    endpoints: Endpoints, settings: TargetSettings, secret: Callable[[], Awaitable[SecretValue]]
) -> NotificationTarget:
    chosen = _chosen(endpoints, settings)
    parts = TargetParts(secret=secret if settings.secret_name is not None else None, clock=SystemClock())
    return chosen.plugin.make(chosen.options, parts)


def _chosen(endpoints: Endpoints, settings: TargetSettings) -> Chosen[NotificationTargetPlugin[Any]]:
    names = [target.name for target in endpoints.notifications.targets]
    place = endpoints.files.place("fleet.yaml", f"notifications.targets.{names.index(settings.name)}.kind")
    where = f"{place}: notifications.targets {settings.name}"
    return choose(TARGETS, settings.kind, settings.options, where=where)
