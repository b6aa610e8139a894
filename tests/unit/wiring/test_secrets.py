"""The broker that the composition root builds from config/secrets.yaml."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import ConfigError, NotFound, PolicyDenied, StoreUnavailable
from fleet.policy.secret_grants import SecretAccess
from fleet.secrets.memory import MemoryAccessTrail
from fleet.secrets.service import KnownSecrets, SecretBroker
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.stores.secrets import make_secret_broker, recorded_accesses
from tests.support.secret_places import secret_file

USE = {"as_role": "devops", "tool": "kubectl", "op": "apply"}


@pytest.fixture
def lines() -> list[SecretAccess]:
    return []


@pytest.fixture
def broker_of(tmp_path: Path, lines: list[SecretAccess]) -> Callable[[str], SecretBroker]:
    """Makes the broker of a secrets.yaml."""
    overlay = tmp_path / "config"
    overlay.mkdir()

    async def record(line: SecretAccess) -> None:
        lines.append(line)

    def make(text: str) -> SecretBroker:
        (overlay / "secrets.yaml").write_text(text)
        url = "redis://127.0.0.1:1/0"
        endpoints = Endpoints(
            home=str(tmp_path),
            config=str(overlay),
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
        )
        return make_secret_broker(
            endpoints,
            environ={"CI_SECRET_OF_ENVIRONMENT": "from-environment"},
            record=record,
            known_secrets=KnownSecrets(),
            clock=MemoryClock(),
        )

    return make


async def test_every_kind_of_provider_is_built_and_asked(
    broker_of: Callable[[str], SecretBroker], lines: list[SecretAccess], tmp_path: Path
) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    secret_file(folder / "of-file", "from-file")
    token = secret_file(tmp_path / "token", "t0ken")
    names = ["of-file", "of-environment", "of-mount", "of-cluster", "of-vault", "of-login"]
    grants = "\n".join(f"  - {{secret: {n}, roles: [devops], tool: kubectl, ops: [apply]}}" for n in names)
    broker = broker_of(f"""
providers:
  - {{kind: file, label: file, path: {folder}, secrets: [of-file]}}
  - {{kind: environment, label: env, prefix: CI_SECRET_, secrets: [of-environment]}}
  - {{kind: kubernetes-mount, label: pod, mount: {tmp_path}, secrets: [of-mount]}}
  - {{kind: kubernetes, label: cluster, url: "http://127.0.0.1:1", namespace: fleet, token_file: {token}, ca_file: null,
     secrets: {{of-cluster: {{secret: a, key: b}}}}}}
  - {{kind: vault, label: vault, url: "http://127.0.0.1:1", auth: {{kind: token, token_file: {token}}},
     secrets: {{of-vault: {{path: a, key: b}}}}}}
  - {{kind: vault, label: login, url: "http://127.0.0.1:1", auth: {{kind: kubernetes, role: r, token_file: {token}}},
     secrets: {{of-login: {{path: a, key: b}}}}}}
grants:
{grants}
""")

    assert (await broker.resolve("of-file", **USE)).reveal() == "from-file"
    assert (await broker.resolve("of-environment", **USE)).reveal() == "from-environment"
    with pytest.raises(NotFound):
        await broker.resolve("of-mount", **USE)
    for name in ("of-cluster", "of-vault", "of-login"):
        with pytest.raises(StoreUnavailable, match="Connect(ion)?Error"):
            await broker.resolve(name, **USE)

    assert [line.provider for line in lines] == ["file", "env", "pod", "cluster", "vault", "login"]


async def test_packaged_config_denies_everything(broker_of: Callable[[str], SecretBroker]) -> None:
    with pytest.raises(PolicyDenied):
        await broker_of("providers: []\ngrants: []\n").resolve("deploy-token", **USE)


def test_grant_to_a_role_that_does_not_exist_stops_the_start(broker_of: Callable[[str], SecretBroker]) -> None:
    with pytest.raises(ConfigError, match=r"line \d+: grants.0.roles.0: roles.yaml has no role 'devopps'"):
        broker_of("""
providers: [{kind: file, label: f, path: /x, secrets: [a]}]
grants: [{secret: a, roles: [devopps], tool: kubectl, ops: [apply]}]
""")


async def test_audit_line_goes_to_the_process_log_and_to_the_trail(caplog: pytest.LogCaptureFixture) -> None:
    trail = MemoryAccessTrail()
    line = SecretAccess(
        name="deploy-token", provider="vault", role="devops", tool="kubectl", op="apply", outcome="resolved", at_ms=1
    )
    with caplog.at_level("INFO", logger="fleet.secrets"):
        await recorded_accesses(trail)(line)
    assert await trail.newest() == [line]
    assert [SecretAccess.model_validate_json(r.getMessage()) for r in caplog.records] == [line]
