"""Change requests of the configured forge: at the sandbox's node with the token, elsewhere by its actor (RC-105)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fleet.config.settings import HostedForgeSettings, LocalForgeSettings, PluginForgeSettings
from fleet.forge.port import ChangeRequests, ForgeParts, ForgePlugin
from fleet.forge.service import ChangeTarget, PushTarget
from fleet.kernel.errors import ConfigError
from fleet.log.redis.connection import connect_redis
from fleet.policy.commands.git import GitAddress, git_target, parse_git_address
from fleet.secrets.redis import RedisAccessTrail
from fleet.secrets.service import KnownSecrets, SecretBroker
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.plugins import Chosen, Group, choose
from fleet.wiring.sandbox.plugins import active_policy
from fleet.wiring.stores.secrets import check_secret, make_secret_broker, recorded_accesses

FORGES: Group[ForgePlugin[Any]] = Group("swe_fleet.forges", "forge", ForgePlugin, ("local",))
_USE = {"as_role": "devops", "tool": "git", "op": "open_change_request"}


def check_forge(endpoints: Endpoints) -> None:
    """The configured forge can be asked as far as the files say: its token is kept somewhere and granted.

    Raises:
        ConfigError: the address is of the wrong form, no provider has the token, or no grant covers its use.
    """
    forge = endpoints.forge
    if forge is None or isinstance(forge, LocalForgeSettings):
        return

    async def token() -> str:
        raise AssertionError("nothing is asked before the start")

    chosen = _chosen(endpoints, forge)
    chosen.plugin.make(chosen.options, ForgeParts(home=Path(endpoints.home), token=token if forge.token else None))
    pushed_to = parse_git_address(forge.git) if forge.git else None
    by_key = pushed_to is not None and pushed_to.scheme == "ssh"
    needed = [_USE["op"], *(["push_branch"] if pushed_to and not by_key else [])]
    of, secrets = f"forge {forge.kind}", [] if forge.token is None else [forge.token.removeprefix("secret://")]
    for name in secrets:
        check_secret(endpoints, name, what="the token", of=of, tool=_USE["tool"], ops=needed)
    if pushed_to and by_key:
        _check_key(endpoints, pushed_to)


def _chosen(endpoints: Endpoints, forge: HostedForgeSettings | PluginForgeSettings) -> Chosen[ForgePlugin[Any]]:
    return choose(
        FORGES, forge.kind, forge.options, where=f"{endpoints.files.place('fleet.yaml', 'forge.kind')}: forge"
    )


def _check_key(endpoints: Endpoints, address: GitAddress) -> None:
    """The branch can be pushed over ssh: the policy lists the place with its key and host keys, the key is granted."""
    policy = str(endpoints.files.path("policy.yaml"))
    target = git_target(active_policy(endpoints.files).targets.git, address)
    if target is None or target.credentials is None or not target.host_keys:
        raise ConfigError(
            f"{policy}: forge.git of fleet.yaml is the ssh address {address.url}; list it under targets.git: "
            f"{address.place}: {{credentials: secret://<private key>, host_keys: [<key of {address.host}>]}}",
            file=policy,
        )
    name = target.credentials.removeprefix("secret://")
    check_secret(
        endpoints, name, what="the private key", of=f"the repository {address.url}", tool="git", ops=["push_branch"]
    )


def make_change_requests(endpoints: Endpoints) -> ChangeRequests | None:
    """Change requests of the configured forge, None when there is none; ConfigError as `check_forge`."""
    from fleet.forge.local.change_requests import LocalChangeRequests

    match endpoints.forge:
        case None:
            return None
        case LocalForgeSettings() as forge:
            return LocalChangeRequests(forge.folder or Path(endpoints.home) / "change-requests")
        case forge:
            check_forge(endpoints)
            record = recorded_accesses(RedisAccessTrail(connect_redis(endpoints.redis_url)))
            broker = make_secret_broker(endpoints, environ=os.environ, record=record, known_secrets=KnownSecrets())
            chosen = _chosen(endpoints, forge)
            return chosen.plugin.make(chosen.options, _parts(endpoints, forge, broker))


def _parts(endpoints: Endpoints, forge: HostedForgeSettings | PluginForgeSettings, broker: SecretBroker) -> ForgeParts:
    """Each request asks the broker for the token, so that it may rotate."""
    home, reference = Path(endpoints.home), forge.token
    if reference is None:
        return ForgeParts(home=home, token=None)

    async def token() -> str:
        return (await broker.resolve(reference.removeprefix("secret://"), **_USE)).reveal()

    return ForgeParts(home=home, token=token)


def change_target(endpoints: Endpoints, changes: ChangeRequests) -> ChangeTarget | None:
    """Where a story's change request goes, None when no forge is configured."""
    match endpoints.forge:
        case None:
            return None
        case LocalForgeSettings() as forge:
            return ChangeTarget(changes, forge.base)
        case forge:
            push = PushTarget(forge.git, forge.git_user, forge.token) if forge.git else None
            return ChangeTarget(changes, forge.base, forge.repository, push=push)
