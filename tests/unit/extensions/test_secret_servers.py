"""Vault and the Kubernetes API by HTTP: every answer they may give, slow servers, TLS, and tokens that stay inside."""

from __future__ import annotations

import asyncio
import base64
import datetime
import ipaddress
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from fleet.extensions.stores.kubernetes_secrets import KubernetesKey, KubernetesSecrets, secrets_client
from fleet.extensions.stores.secrets_http import SecretHttp
from fleet.extensions.stores.vault_secrets import KubernetesLogin, TokenFile, VaultKey, VaultSecrets
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import ConfigError, FleetError, NotFound, PolicyDenied, StoreUnavailable
from fleet.secrets.port import SecretProvider, SecretValue
from tests.support.http_stand_in import Reply, serving_http
from tests.support.kubernetes_secrets import FakeApiServer
from tests.support.secret_places import leaks, secret_file
from tests.support.vault_server import FakeVault

TOKEN = "hvs.CAESIJ-token"


def vault_at(url: str, token: Path, **changes: Any) -> VaultSecrets:
    timeout_s, ca_file = changes.pop("timeout_s", 5.0), changes.pop("ca_file", None)
    options: dict[str, Any] = {
        "mount": "secret",
        "namespace": None,
        "auth": TokenFile(token),
        "keys": {"token": VaultKey("ci/deploy", "token")},
        "clock": MemoryClock(),
        "ttl_s": 30,
    }
    return VaultSecrets("vault", SecretHttp(url, ca_file=ca_file, timeout_s=timeout_s), **(options | changes))


def cluster_at(url: str, token: Path, **changes: Any) -> KubernetesSecrets:
    options: dict[str, Any] = {
        "namespace": "fleet",
        "keys": {"token": KubernetesKey("deploy", "token.txt")},
        "ttl_s": 30,
    }
    client = secrets_client(url, token_file=token, ca_file=None, timeout_s=0.3)
    return KubernetesSecrets("cluster", client, **(options | changes))


@pytest.fixture
def token(tmp_path: Path) -> Path:
    return secret_file(tmp_path / "token", f"{TOKEN}\n")


@pytest.fixture
def vault() -> FakeVault:
    fake = FakeVault(tokens={TOKEN}, jwts={"fleet": TOKEN})
    fake.put("ci/deploy", token="tr0ub4dor")
    return fake


@pytest.fixture
def api() -> FakeApiServer:
    fake = FakeApiServer(tokens={TOKEN})
    fake.put("fleet/deploy", **{"token.txt": b"tr0ub4dor"})
    return fake


async def resolve(provider: SecretProvider) -> SecretValue:
    return await provider.resolve("token", as_role="devops", tool="kubectl", op="apply")


async def failing(provider: SecretProvider, expected: type[FleetError], match: str = ".") -> FleetError:
    with pytest.raises(expected, match=match) as caught:
        await resolve(provider)
    for value in ("tr0ub4dor", TOKEN, base64.b64encode(b"tr0ub4dor").decode()):
        assert leaks(caught.value, value) == []
    return caught.value


FAULTS = [
    (Reply(400, {"errors": ["tr0ub4dor"]}), StoreUnavailable, "400"),
    (Reply(401, {}), PolicyDenied, "401"),
    (Reply(403, {"errors": ["tr0ub4dor"]}), PolicyDenied, "403"),
    (Reply(404, {"errors": []}), NotFound, "is not at provider"),
    (Reply(307, {}, headers={"location": "http://127.0.0.1:1/"}), StoreUnavailable, "307"),
    (Reply(429, {}), StoreUnavailable, "429"),
    (Reply(500, {"errors": ["tr0ub4dor"]}), StoreUnavailable, "500"),
    (Reply(503, {"errors": ["Vault is sealed"]}), StoreUnavailable, "503"),
    (Reply(200, raw=b'{"data": {"data": {"token": "tr0ub4dor"'), StoreUnavailable, "answer is no"),
    (Reply(200, raw=b"\xff\xfetr0ub4dor"), StoreUnavailable, "answer is no"),
    (Reply(200, raw=b"[" * 100_000), StoreUnavailable, "answer is no"),
    (Reply(200, ["tr0ub4dor"]), StoreUnavailable, "answer is no"),
    (Reply(200, raw=b" " * 1_100_000 + b"{}"), StoreUnavailable, "answer is no"),
    (Reply(200, {"data": "tr0ub4dor"}), StoreUnavailable, "answer is no"),
    (Reply(hang=True), StoreUnavailable, "did not answer in 0.3 s"),
    (Reply(drip=True), StoreUnavailable, "did not answer in 0.3 s"),
]


@pytest.mark.parametrize(("fault", "expected", "match"), FAULTS, ids=range(len(FAULTS)))
@pytest.mark.parametrize("kind", ["vault", "kubernetes"])
async def test_every_bad_answer_has_its_error_and_shows_nothing(
    vault: FakeVault,
    api: FakeApiServer,
    token: Path,
    kind: str,
    fault: Reply,
    expected: type[FleetError],
    match: str,
) -> None:
    vault.fault = api.fault = fault
    async with serving_http(vault.answer if kind == "vault" else api.answer) as url:
        provider = vault_at(url, token, timeout_s=0.3) if kind == "vault" else cluster_at(url, token)

        await failing(provider, expected, match)


@pytest.mark.parametrize("make", [vault_at, cluster_at])
async def test_server_that_is_not_there_is_unavailable(token: Path, make: Any) -> None:
    await failing(make("http://127.0.0.1:1", token), StoreUnavailable, "Connect(ion)?Error")


@pytest.mark.parametrize("make", [vault_at, cluster_at])
@pytest.mark.parametrize("content", ["", "two words", "a\nb", "\u00fc", "x" * 20_000], ids=range(5))
async def test_token_file_without_a_token_is_refused(tmp_path: Path, make: Any, content: str) -> None:
    await failing(make("http://127.0.0.1:1", secret_file(tmp_path / "t", content)), PolicyDenied, "holds no token")


@pytest.mark.parametrize("make", [vault_at, cluster_at])
async def test_token_file_that_is_missing_is_refused(tmp_path: Path, make: Any) -> None:
    await failing(make("http://127.0.0.1:1", tmp_path / "nowhere"), PolicyDenied, "cannot be read")


async def test_vault_token_that_others_may_read_is_refused(token: Path) -> None:
    token.chmod(0o644)

    await failing(vault_at("http://127.0.0.1:1", token), PolicyDenied, "set 0600")


async def test_vault_reads_the_newest_version_or_the_one_that_is_asked_for(vault: FakeVault, token: Path) -> None:
    vault.put("ci/deploy", token="newer-value")
    async with serving_http(vault.answer) as url:
        newest = await resolve(vault_at(url, token))
        first = await resolve(vault_at(url, token, keys={"token": VaultKey("ci/deploy", "token", 1)}))
        await failing(vault_at(url, token, keys={"token": VaultKey("ci/deploy", "token", 9)}), NotFound)

    assert (newest.reveal(), newest.version) == ("newer-value", "2")
    assert (first.reveal(), first.version) == ("tr0ub4dor", "1")


async def test_vault_that_answers_with_another_version_is_not_believed(vault: FakeVault, token: Path) -> None:
    vault.fault = Reply(document={"data": {"data": {"token": "tr0ub4dor"}, "metadata": {"version": 2}}})
    async with serving_http(vault.answer) as url:
        await failing(vault_at(url, token, keys={"token": VaultKey("ci/deploy", "token", 1)}), StoreUnavailable)


async def test_vault_key_that_is_missing_or_no_text(vault: FakeVault, token: Path) -> None:
    vault.put("ci/deploy", other="tr0ub4dor", token=["tr0ub4dor"])
    async with serving_http(vault.answer) as url:
        await failing(vault_at(url, token), StoreUnavailable, "holds no text")
        vault.put("ci/deploy", other="tr0ub4dor")
        await failing(vault_at(url, token), NotFound, "no key token")


async def test_vault_is_asked_in_its_namespace_and_told_the_use(vault: FakeVault, token: Path) -> None:
    vault.namespace = "team/fleet"
    async with serving_http(vault.answer) as url:
        await failing(vault_at(url, token), PolicyDenied)
        await resolve(vault_at(url, token, namespace="team/fleet"))

    assert vault.requests[-1].headers["x-fleet-use"] == "devops kubectl.apply"


async def test_rotated_vault_token_is_used_at_once(vault: FakeVault, token: Path) -> None:
    async with serving_http(vault.answer) as url:
        provider = vault_at(url, token)
        await resolve(provider)
        vault.tokens = {"hvs.next"}
        await failing(provider, PolicyDenied)
        secret_file(token, "hvs.next")

        assert (await resolve(provider)).reveal() == "tr0ub4dor"


async def test_login_is_kept_for_four_fifths_of_its_lease(vault: FakeVault, token: Path) -> None:
    clock = MemoryClock()
    async with serving_http(vault.answer) as url:
        provider = vault_at(url, token, auth=KubernetesLogin("fleet", "kubernetes", token), clock=clock)
        await resolve(provider)
        clock.advance(79.9)
        await resolve(provider)
        assert vault.logins == 1
        clock.advance(0.1)
        await resolve(provider)

    assert vault.logins == 2
    assert TOKEN not in [request.headers.get("x-vault-token") for request in vault.requests]


async def test_login_that_was_revoked_is_done_again_once(vault: FakeVault, token: Path) -> None:
    async with serving_http(vault.answer) as url:
        provider = vault_at(url, token, auth=KubernetesLogin("fleet", "kubernetes", token))
        await resolve(provider)
        vault.tokens.clear()
        await resolve(provider)
        assert vault.logins == 2
        vault.fault = Reply(403, {"errors": ["permission denied"]})

        await failing(provider, PolicyDenied, "refuses the login")


async def test_uses_at_one_time_all_survive_a_revoked_login(vault: FakeVault, token: Path) -> None:
    async with serving_http(vault.answer) as url:
        provider = vault_at(url, token, auth=KubernetesLogin("fleet", "kubernetes", token))
        await resolve(provider)
        vault.tokens.clear()

        values = await asyncio.gather(*(resolve(provider) for _ in range(6)))

    assert {value.reveal() for value in values} == {"tr0ub4dor"}


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(400, {"errors": ["invalid role"]}), PolicyDenied),
        (Reply(503, {}), StoreUnavailable),
        (Reply(200, {"auth": {"client_token": "", "lease_duration": 1}}), StoreUnavailable),
        (Reply(200, {"auth": None}), StoreUnavailable),
        (Reply(200, raw=b"{"), StoreUnavailable),
        (Reply(hang=True), StoreUnavailable),
    ],
    ids=range(6),
)
async def test_login_that_fails_has_its_error(
    vault: FakeVault, token: Path, reply: Reply, expected: type[FleetError]
) -> None:
    vault.fault = reply
    async with serving_http(vault.answer) as url:
        login = KubernetesLogin("fleet", "kubernetes", token)

        await failing(vault_at(url, token, auth=login, timeout_s=0.3), expected)


async def test_cluster_is_told_the_use_and_names_the_version(api: FakeApiServer, token: Path) -> None:
    async with serving_http(api.answer) as url:
        value = await resolve(cluster_at(url, token))

    assert (value.reveal(), value.version) == ("tr0ub4dor", "101")
    assert api.requests[0].headers["user-agent"] == "swe-fleet (devops kubectl.apply)"


async def test_cluster_key_that_is_missing_or_no_base64(api: FakeApiServer, token: Path) -> None:
    secret = {"kind": "Secret", "metadata": {"resourceVersion": "1"}}
    async with serving_http(api.answer) as url:
        api.objects["fleet/deploy"] = {}
        await failing(cluster_at(url, token), NotFound, "no key token.txt")
        for data in ("tr0ub4dor!", 7, "\u00fc"):
            api.fault = Reply(document={**secret, "data": {"token.txt": data}})
            await failing(cluster_at(url, token), StoreUnavailable, "no base64")
        api.fault = replace(api.fault, document={"kind": "ConfigMap", "metadata": {}, "data": {"token.txt": "eA=="}})
        await failing(cluster_at(url, token), StoreUnavailable, "no object of kind Secret")


@pytest.mark.parametrize(
    "url",
    [
        "http://vault.example.com",
        "https://u:hunter2@h",
        "ftp://h",
        "https://h?x=1",
        "https://h#x",
        "h",
        "",
        "https://",
        "https://h:port",
    ],
)
def test_address_that_would_show_the_token_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SecretHttp(url, ca_file=None, timeout_s=1)
    assert "hunter2" not in caught.value.message


def test_certificates_that_cannot_be_read_are_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")

    for path in (tmp_path / "ca.pem", tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=path.name):
            SecretHttp("https://h", ca_file=path, timeout_s=1)


async def test_certificate_that_nobody_vouches_for_is_refused_and_the_configured_one_is_trusted(
    vault: FakeVault, token: Path, tmp_path: Path
) -> None:
    ca_file, tls = self_signed(tmp_path)
    async with serving_http(vault.answer, tls=tls) as url:
        await failing(vault_at(url, token), StoreUnavailable, "certificate is not trusted")
        assert vault.requests == []

        assert (await resolve(vault_at(url, token, ca_file=ca_file))).reveal() == "tr0ub4dor"


def self_signed(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for this machine's loopback, as file and as the server's context."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "server.pem", folder / "server.key"
    public.write_bytes(certificate.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return public, context
