"""The configured forge is checked before anything starts, and turned into the port it means."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.config.environment import load_settings
from fleet.config.settings import FleetSettings, ForgeSettings, HostedForgeSettings
from fleet.forge.local.change_requests import LocalChangeRequests
from fleet.forge.memory import MemoryChangeRequests
from fleet.forge.service import ChangeTarget, PushTarget
from fleet.kernel.errors import ConfigError
from fleet.wiring.change_requests import change_target, check_forge, make_change_requests
from fleet.wiring.endpoints import Endpoints

HOSTED = """
forge:
  kind: github
  url: https://api.github.com
  repository: team/app
  token: secret://forge-token
"""
PROVIDER = "providers: [{kind: environment, label: env, prefix: CI_SECRET_, secrets: [forge-token]}]\n"
GRANT = "grants: [{secret: forge-token, roles: [devops], tool: git, ops: [%s]}]\n"
GIT = "  git: https://github.com/team/app.git\n"


def settings_of(folder: Path, text: str) -> FleetSettings:
    """The settings of a fleet.yaml."""
    folder.mkdir(exist_ok=True)
    (folder / "fleet.yaml").write_text(text)
    return load_settings({"HOME": str(folder), "FLEET_CONFIG": str(folder)})


def endpoints_of(folder: Path, forge: ForgeSettings | None, secrets: str = "") -> Endpoints:
    """A fleet with this forge and these secrets."""
    folder.mkdir(exist_ok=True)
    if secrets:
        (folder / "secrets.yaml").write_text(secrets)
    url = "redis://127.0.0.1:1/0"
    return Endpoints(
        home=str(folder / "home"),
        config=str(folder),
        redis_url=url,
        cache_url=url,
        neo4j_uri="bolt://127.0.0.1:1",
        neo4j_user="neo4j",
        neo4j_password="x",
        neo4j_database="neo4j",
        node="local",
        pools={},
        council_shards=1,
        lease_ttl_s=15,
        sweep_s=5,
        record_dir=None,
        code_digest="sha256:" + "0" * 64,
        environ={},
        forge=forge,
    )


def hosted(folder: Path, text: str = HOSTED) -> HostedForgeSettings:
    """The forge of a fleet.yaml."""
    forge = settings_of(folder, text).forge
    assert isinstance(forge, HostedForgeSettings)
    return forge


def test_fleet_without_a_forge_opens_nothing(tmp_path: Path) -> None:
    endpoints = endpoints_of(tmp_path, settings_of(tmp_path / "config", "{}\n").forge)
    check_forge(endpoints)
    assert make_change_requests(endpoints) is None
    assert change_target(endpoints, MemoryChangeRequests()) is None


@pytest.mark.parametrize("text", ["forge: local\n", "forge: {kind: local}\n"])
def test_local_forge_writes_below_the_home_for_the_repository_of_the_story(tmp_path: Path, text: str) -> None:
    endpoints = endpoints_of(tmp_path, settings_of(tmp_path / "config", text).forge)
    changes = make_change_requests(endpoints)
    assert isinstance(changes, LocalChangeRequests)
    check_forge(endpoints)
    assert change_target(endpoints, changes) == ChangeTarget(changes, "main")


@pytest.mark.rule("RC-105", "RT-65")
def test_hosted_forge_needs_its_token_at_a_provider_and_granted_before_anything_starts(tmp_path: Path) -> None:
    forge = hosted(tmp_path / "config")
    with pytest.raises(ConfigError, match=r"no provider has secret 'forge-token', the token of forge github"):
        check_forge(endpoints_of(tmp_path, forge))
    with pytest.raises(
        ConfigError, match=r"grant it: \{secret: forge-token, roles: \[devops\], tool: git, ops: \[open"
    ):
        make_change_requests(endpoints_of(tmp_path, forge, PROVIDER + GRANT % "push_branch"))
    check_forge(endpoints_of(tmp_path, forge, PROVIDER + GRANT % "open_change_request"))


@pytest.mark.rule("RC-77", "RT-65")
def test_forge_that_branches_are_pushed_to_needs_the_grant_to_push(tmp_path: Path) -> None:
    forge = hosted(tmp_path / "config", HOSTED + GIT)
    with pytest.raises(ConfigError, match=r"ops: \[push_branch\]"):
        check_forge(endpoints_of(tmp_path, forge, PROVIDER + GRANT % "open_change_request"))
    endpoints = endpoints_of(tmp_path, forge, PROVIDER + GRANT % "open_change_request, push_branch")
    changes = make_change_requests(endpoints)
    assert changes is not None
    push = PushTarget("https://github.com/team/app.git", "git", "secret://forge-token")
    assert change_target(endpoints, changes) == ChangeTarget(changes, "main", "team/app", push=push)


@pytest.mark.rule("RC-77", "RT-58")
def test_forge_that_is_pushed_to_over_ssh_needs_its_key_and_the_keys_of_the_host_listed(tmp_path: Path) -> None:
    config = tmp_path / "config"
    forge = hosted(config, HOSTED + "  git: git@github.com:team/app.git\n")
    grants = GRANT % "open_change_request"
    endpoints = endpoints_of(tmp_path, forge, PROVIDER + grants)
    with pytest.raises(ConfigError, match=r"list it under targets\.git: github\.com/team/app"):
        check_forge(endpoints)
    shipped = (Path(__file__).parents[3] / "config" / "policy.yaml").read_text()
    target = "{github.com/team: {credentials: secret://deploy-key, host_keys: [ssh-ed25519 " + "A" * 68 + "]}}"
    (tmp_path / "policy.yaml").write_text(shipped.replace("  git: {}  ", f"  git: {target}\n  #", 1))
    with pytest.raises(ConfigError, match=r"no provider has secret 'deploy-key', the private key of the repository"):
        check_forge(endpoints)
    provider = PROVIDER.replace("[forge-token]", "[forge-token, deploy-key]")
    with pytest.raises(ConfigError, match=r"secret: deploy-key, roles: \[devops\], tool: git, ops: \[push_branch\]"):
        check_forge(endpoints_of(tmp_path, forge, provider + grants))
    more = "grants:\n" + "".join(
        f"- {{secret: {name}, roles: [devops], tool: git, ops: [{op}]}}\n"
        for name, op in (("forge-token", "open_change_request"), ("deploy-key", "push_branch"))
    )
    check_forge(endpoints_of(tmp_path, forge, provider + more))


@pytest.mark.rule("GL-22")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kind: github", "kind: bitbucket"),
        ("secret://forge-token", "ghp_0123456789abcdef"),
        ("secret://forge-token", "secret://Not A Name"),
        ("  token: secret://forge-token\n", ""),
        ("https://api.github.com", "https://user:pw@api.github.com"),
        ("https://api.github.com", "ftp://api.github.com"),
        ("team/app", "app"),
        ("team/app", "../app"),
        ("  url:", "  git: https://token@github.com/a/b\n  url:"),
        ("  url:", "  git: http://github.com/a/b\n  url:"),
        ("  url:", "  git: git:pw@github.com:a/b\n  url:"),
        ("  url:", "  git: git@github.com:-oProxyCommand=x\n  url:"),
    ],
)
def test_forge_that_is_configured_wrongly_stops_the_start_and_shows_no_token(
    tmp_path: Path, old: str, new: str
) -> None:
    with pytest.raises(ConfigError, match=r"forge") as caught:
        settings_of(tmp_path / "config", HOSTED.replace(old, new))
    assert "ghp_0123456789abcdef" not in str(caught.value)


def test_forge_off_this_machine_without_tls_is_refused(tmp_path: Path) -> None:
    forge = hosted(tmp_path / "config", HOSTED.replace("https://api", "http://api"))
    with pytest.raises(ConfigError, match="none of a forge"):
        check_forge(endpoints_of(tmp_path, forge))
