"""Change requests of the configured forge: at the sandbox's node with the token, elsewhere by its actor (RC-105)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from fleet.adapters.redis import RedisAccessTrail, connect_redis
from fleet.config import HostedForgeSettings, LocalForgeSettings, SecretsSettings
from fleet.errors import ConfigError
from fleet.ports import ChangeRequests
from fleet.services.known_secrets import KnownSecrets
from fleet.services.secret_broker import SecretBroker
from fleet.services.workbench import ChangeTarget, PushTarget
from fleet.tools import SecretPolicy
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.secrets import make_secret_broker, recorded_accesses

if TYPE_CHECKING:
    from fleet.adapters.forge import ClosableChangeRequests

__all__ = ["change_target", "check_forge", "hosted_change_requests", "make_change_requests"]

_USE = {"as_role": "devops", "tool": "git", "op": "open_change_request"}


def check_forge(endpoints: Endpoints) -> None:
    """The configured forge can be asked as far as the files say: its token is kept somewhere and granted.

    Raises:
        ConfigError: the address is of the wrong form, no provider has the token, or no grant covers its use.
    """
    forge = endpoints.forge
    if not isinstance(forge, HostedForgeSettings):
        return
    from fleet.adapters.forge import change_requests_for

    change_requests_for(forge.kind, forge.url, token=str)
    path = str(endpoints.files.path("secrets.yaml"))
    secrets = endpoints.files.load("secrets.yaml", SecretsSettings)
    if not any(forge.secret in provider.secrets for provider in secrets.providers):
        raise ConfigError(
            f"{path}: no provider has secret {forge.secret!r}, the token of forge {forge.kind}; name it under the "
            "provider that holds it",
            file=path,
            secret=forge.secret,
        )
    policy = SecretPolicy(grants=secrets.grants)
    needed = [_USE["op"], *(["push_branch"] if forge.git else [])]
    missing = [op for op in needed if not policy.allows(forge.secret, role="devops", tool="git", op=op)]
    if missing:
        raise ConfigError(
            f"{path}: forge {forge.kind} needs secret {forge.secret!r}; grant it: "
            f"{{secret: {forge.secret}, roles: [devops], tool: git, ops: [{', '.join(missing)}]}}",
            file=path,
            secret=forge.secret,
        )


def make_change_requests(endpoints: Endpoints) -> ClosableChangeRequests | None:
    """Change requests of the configured forge, None when there is none; ConfigError as `check_forge`."""
    from fleet.adapters.forge import LocalChangeRequests

    match endpoints.forge:
        case None:
            return None
        case LocalForgeSettings() as forge:
            return LocalChangeRequests(forge.folder or Path(endpoints.home) / "change-requests")
        case HostedForgeSettings() as forge:
            check_forge(endpoints)
            record = recorded_accesses(RedisAccessTrail(connect_redis(endpoints.redis_url)))
            broker = make_secret_broker(endpoints, environ=os.environ, record=record, known=KnownSecrets())
            return hosted_change_requests(forge, broker)
        case _:
            assert_never(endpoints.forge)


def hosted_change_requests(forge: HostedForgeSettings, broker: SecretBroker) -> ClosableChangeRequests:
    """Change requests of a hosted forge; each request asks the broker for the token, so that it may rotate."""
    from fleet.adapters.forge import change_requests_for

    async def token() -> str:
        return (await broker.resolve(forge.secret, **_USE)).reveal()

    return change_requests_for(forge.kind, forge.url, token=token)


def change_target(endpoints: Endpoints, changes: ChangeRequests) -> ChangeTarget | None:
    """Where a story's change request goes, None when no forge is configured."""
    match endpoints.forge:
        case None:
            return None
        case LocalForgeSettings() as forge:
            return ChangeTarget(changes, forge.base)
        case HostedForgeSettings() as forge:
            push = PushTarget(forge.git, forge.git_user, forge.token) if forge.git else None
            return ChangeTarget(changes, forge.base, forge.repository, push=push)
        case _:
            assert_never(endpoints.forge)
