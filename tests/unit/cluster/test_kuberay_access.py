"""Which API server is asked, and as whom: the cases of a kubeconfig, and those that are refused by name."""

from __future__ import annotations

import base64
import datetime
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cluster.kuberay.api import KubeApi, Reference
from cluster.kuberay.kubeconfig import find_access
from fleet.kernel.errors import ConfigError, PolicyDenied
from tests.support.http_stand_in import Reply, Request, serving_http
from tests.support.kubernetes_objects import TOKEN, ObjectServer, kubeconfig_of, serving_objects, status


def written(folder: Path, document: dict[str, Any], name: str = "config") -> Path:
    """The document as a file."""
    file = folder / name
    file.write_text(yaml.safe_dump(document))
    return file


def config(*, cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> dict[str, Any]:
    """A kubeconfig with these keys."""
    found = kubeconfig_of("http://127.0.0.1:8001")
    found["clusters"][0]["cluster"] |= cluster or {}
    if user is not None:
        found["users"][0]["user"] = user
    return found


def program(folder: Path, text: str, name: str = "plugin") -> Path:
    """A shell program."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o700)
    return file


async def test_token_of_a_kubeconfig_is_sent(tmp_path: Path) -> None:
    async with serving_objects(ObjectServer()) as url:
        access = find_access({}, kubeconfig=written(tmp_path, kubeconfig_of(url)))
        assert await KubeApi(access).get(Reference("Namespace", "", "x")) is None


async def test_token_file_is_read_at_each_request(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old\n")
    async with serving_objects(ObjectServer()) as url:
        document = kubeconfig_of(url)
        document["users"][0]["user"] = {"tokenFile": "token"}
        api = KubeApi(find_access({}, kubeconfig=written(tmp_path, document)))
        with pytest.raises(PolicyDenied):
            await api.get(Reference("Namespace", "", "x"))
        (tmp_path / "token").write_text(TOKEN)
        assert await api.get(Reference("Namespace", "", "x")) is None


def test_files_of_kubeconfig_are_merged_and_the_first_wins(tmp_path: Path) -> None:
    first = written(tmp_path, {"current-context": "stand-in", "contexts": None}, "first")
    second = written(tmp_path, {**kubeconfig_of("http://localhost:1"), "current-context": "other"}, "second")

    access = find_access({"KUBECONFIG": f"{first}:{second}"})

    assert (access.url, access.token()) == ("http://localhost:1", TOKEN)


def test_file_of_the_home_is_used_when_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    written(tmp_path / ".kube", config())

    assert find_access({"HOME": str(tmp_path)}).url == "http://127.0.0.1:8001"


def test_context_can_be_chosen(tmp_path: Path) -> None:
    document = config()
    document["contexts"].append({"name": "other", "context": {"cluster": "two"}})
    document["clusters"].append({"name": "two", "cluster": {"server": "http://localhost:2/"}})

    access = find_access({}, kubeconfig=written(tmp_path, document), context="other")

    assert (access.url, access.token()) == ("http://localhost:2", None)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"current-context": ""}, "names no current-context; give --context"),
        ({"current-context": "nobody", "contexts": [{"name": "a"}]}, "there is no context 'nobody'; known: a"),
        ({"current-context": "a", "contexts": []}, "known: none"),
        (config(cluster={"server": "http://example.com"}), "server must be https"),
        (config(cluster={"server": "https://[::"}), "server must be https"),
        (config(cluster={"insecure-skip-tls-verify": True}), "insecure-skip-tls-verify whoever sits between"),
        (config(cluster={"proxy-url": "http://p"}), "proxy-url is not supported"),
        (config(cluster={"tls-server-name": "x"}), "tls-server-name is not supported"),
        (config(user={"auth-provider": {"name": "gcp"}}), "use an exec plugin"),
        (config(user={"username": "me", "password": "hunter2"}), "use a token or a certificate"),
        (config(cluster={"server": "https://h", "certificate-authority-data": "???"}), "is not base64"),
        (config(cluster={"server": "https://h", "certificate-authority": "nowhere.pem"}), "cannot read"),
        (config(cluster={"server": "https://h", "certificate-authority-data": "AAAA"}), "cannot be read"),
        (config(cluster={"server": "https://h"}, user={"client-certificate-data": "AAAA", "client-key-data": "AAAA"}),
         "are no pair"),
        (config(user={"exec": {"command": "no-such-program", "installHint": "install it"}}), "install it"),
        (config(user={"exec": {"command": "false"}}), "run `kubectl get namespaces`"),
        (config(user={"exec": {"command": "echo", "args": ["{}"]}}), "gave no credential \\(KeyError\\)"),
    ],
)  # fmt: skip
def test_kubeconfig_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, document: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        find_access({"PATH": "/usr/bin:/bin"}, kubeconfig=written(tmp_path, document))

    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "no cluster is known"),
        ({"HOME": "/nonexistent"}, "no cluster is known"),
        ({"KUBECONFIG": "/nonexistent/config"}, "cannot read"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "certificates of the cluster's authority cannot be read"),
    ],
)
def test_missing_cluster_is_named(environ: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        find_access(environ)


def test_token_file_that_is_gone_is_named(tmp_path: Path) -> None:
    access = find_access({}, kubeconfig=written(tmp_path, config(user={"tokenFile": "gone"})))

    with pytest.raises(ConfigError, match="cannot read"):
        access.token()


def test_exec_plugin_gives_the_token_and_sees_its_variables(tmp_path: Path) -> None:
    answer = json.dumps({"status": {"token": "from-plugin"}})
    file = program(tmp_path, f"""test "$REGION" = here && test -n "$KUBERNETES_EXEC_INFO" && echo '{answer}'""")
    plugin = {"command": f"./{file.name}", "args": ["get-token"], "env": [{"name": "REGION", "value": "here"}]}

    access = find_access({"PATH": "/usr/bin:/bin"}, kubeconfig=written(tmp_path, config(user={"exec": plugin})))

    assert access.token() == "from-plugin"


def signed(name: str, by: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None) -> tuple[Any, Any]:
    """A certificate and its key; without `by` it is an authority."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    loopback = x509.DNSName("localhost")
    authority = by[0] if by else None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([loopback]), critical=False)
    )
    return builder.sign(by[1] if by else key, hashes.SHA256()), key


def pem(part: Any) -> bytes:
    """As text."""
    if isinstance(part, x509.Certificate):
        return part.public_bytes(serialization.Encoding.PEM)
    form = serialization.PrivateFormat.PKCS8
    return part.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


async def test_server_and_client_show_certificates_of_the_authority_of_the_kubeconfig(tmp_path: Path) -> None:
    authority = signed("authority")
    for name in ("server", "client"):
        certificate, key = signed("localhost", authority)
        (tmp_path / f"{name}.pem").write_bytes(pem(certificate))
        (tmp_path / f"{name}.key").write_bytes(pem(key))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=pem(authority[0]).decode())
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    asked: list[Request] = []

    def answer(request: Request) -> Reply:
        asked.append(request)
        return status(404, "NotFound", "not found")

    async with serving_http(answer, tls=tls) as url:
        server = {"server": url.replace("127.0.0.1", "localhost")}
        server["certificate-authority-data"] = base64.b64encode(pem(authority[0])).decode()
        user = {"client-certificate": "client.pem", "client-key-data": ""}
        user["client-key-data"] = base64.b64encode((tmp_path / "client.key").read_bytes()).decode()
        access = find_access({}, kubeconfig=written(tmp_path, config(cluster=server, user=user)))
        assert await KubeApi(access).get(Reference("Namespace", "", "x")) is None

    assert "authorization" not in asked[0].headers
