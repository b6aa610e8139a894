"""How the API server of a cluster is reached: a kubeconfig, or the account of the pod that this runs in.

The loader of the official client is not used. Of several files it takes the last `current-context` where kubectl takes
the first, it reads a token file once, logs what a failed exec plugin printed and goes on without a credential, and
leaves private keys in temporary files while the process lives (kubernetes 37.0).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import ssl
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fleet.config.document import parse_document
from fleet.kernel.errors import ConfigError
from fleet.web.kubernetes import Access
from fleet.web.trust import safe_address

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_EXEC_TIMEOUT_S = 60
_REFUSED = {
    "insecure-skip-tls-verify": "whoever sits between could read every Secret; give certificate-authority instead",
    "proxy-url": "is not supported; run this where the API server is reached directly",
    "tls-server-name": "is not supported; give a server address that the certificate names",
    "auth-provider": "is gone from Kubernetes since 1.26; use an exec plugin",
    "as": "is not supported; use a user of its own",
    "username": "passwords are gone from Kubernetes since 1.19; use a token or a certificate",
}
Section = dict[str, Any]


def find_access(environ: Mapping[str, str], *, kubeconfig: Path | None = None, context: str | None = None) -> Access:
    """The cluster that kubectl would talk to.

    Looked up in this order: the given file, `KUBECONFIG`, `~/.kube/config`, the service account of this pod.

    Raises:
        ConfigError: there is none of them, or it cannot be used; names the file and what is wrong in it.
    """
    named = [Path(part) for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    usual = Path(environ["HOME"], ".kube", "config") if environ.get("HOME") else None
    paths = [kubeconfig] if kubeconfig else named or ([usual] if usual and usual.is_file() else [])
    if paths:
        return _of_files(paths, context, environ)
    if host := environ.get("KUBERNETES_SERVICE_HOST"):
        host = f"[{host}]" if ":" in host else host
        url = f"https://{host}:{environ.get('KUBERNETES_SERVICE_PORT', '443')}"
        return Access(url, _trusting(cafile=_ACCOUNT / "ca.crt"), lambda: _token(_ACCOUNT / "token"))
    raise ConfigError(
        "no cluster is known: give --kubeconfig FILE, or set KUBECONFIG as for kubectl", file="kubeconfig"
    )


def _of_files(paths: list[Path], context: str | None, environ: Mapping[str, str]) -> Access:
    documents = [(path, parse_document(_read(path), file=str(path))) for path in paths]
    name = context or next((d["current-context"] for _, d in documents if d.get("current-context")), None)
    if not name:
        raise ConfigError(f"{paths[0]} names no current-context; give --context NAME", file=str(paths[0]))
    path, chosen = _named(documents, "contexts", "context", str(name))
    cluster_file, cluster = _named(documents, "clusters", "cluster", str(chosen.get("cluster")))
    user_file, user = (
        _named(documents, "users", "user", str(chosen["user"])) if chosen.get("user") else (path, Section())
    )
    for file, section in ((cluster_file, cluster), (user_file, user)):
        for key, why in _REFUSED.items():
            if section.get(key):
                raise ConfigError(f"{file}: {key} {why}", file=str(file))
    return _access(cluster_file, cluster, user_file, user, environ)


def _access(cluster_file: Path, cluster: Section, user_file: Path, user: Section, environ: Mapping[str, str]) -> Access:
    url = _checked(str(cluster.get("server", "")), cluster_file)
    if isinstance(user.get("exec"), dict):
        user = {**user, **_credential(user["exec"], user_file, environ)}
    tls = None
    if url.startswith("https:"):
        authority = _bytes(cluster, "certificate-authority", cluster_file)
        tls = _trusting(cadata=authority.decode("ascii", "replace") if authority else None)
        certificate, key = (_bytes(user, name, user_file) for name in ("client-certificate", "client-key"))
        if certificate and key:
            _present(tls, certificate, key, user_file)
    token, token_file = user.get("token"), user_file.parent / str(user.get("tokenFile") or "")
    # The kubelet and whoever else renews it do so in place.
    return Access(url, tls, (lambda: _token(token_file)) if user.get("tokenFile") else (lambda: token))


def _named(documents: list[tuple[Path, Section]], group: str, key: str, name: str) -> tuple[Path, Section]:
    for path, document in documents:
        for entry in document.get(group) or ():
            if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(key), dict):
                return path, entry[key]
    known = sorted(str(e.get("name")) for _, d in documents for e in d.get(group) or () if isinstance(e, dict))
    first = documents[0][0]
    raise ConfigError(f"{first}: there is no {key} {name!r}; known: {', '.join(known) or 'none'}", file=str(first))


def _credential(plugin: Section, file: Path, environ: Mapping[str, str]) -> Section:
    """What an exec plugin says, as keys of a user."""
    command = str(plugin.get("command", ""))
    if "/" in command:
        command = str(file.parent / command)
    version = str(plugin.get("apiVersion", "client.authentication.k8s.io/v1"))
    question = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    added = {str(v["name"]): str(v["value"]) for v in plugin.get("env") or ()}
    try:
        done = subprocess.run(
            [command, *map(str, plugin.get("args") or ())], capture_output=True, timeout=_EXEC_TIMEOUT_S, check=True,
            env={**environ, **added, "KUBERNETES_EXEC_INFO": json.dumps(question)}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        status = json.loads(done.stdout)["status"]
        keys = {"token": "token", "clientCertificateData": "client-certificate", "clientKeyData": "client-key"}
        return {key: str(status[name]).encode() if "-" in key else status[name] for name, key in keys.items()
                if status.get(name)}  # fmt: skip
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        # Neither its output nor its arguments are shown: both may hold credentials.
        hint = str(plugin.get("installHint") or "run `kubectl get namespaces` to see what it says")
        raise ConfigError(
            f"{file}: the exec plugin {command!r} gave no credential ({type(error).__name__}); {hint}", file=str(file)
        ) from None


def _bytes(section: Section, key: str, file: Path) -> bytes | None:
    """The value of `key`, of `key-data`, or of the file that `key` names."""
    if isinstance(section.get(key), bytes):
        return section[key]
    if data := section.get(f"{key}-data"):
        try:
            return base64.b64decode(str(data), validate=True)
        except binascii.Error:
            raise ConfigError(f"{file}: {key}-data is not base64", file=str(file)) from None
    return _read(file.parent / str(section[key])) if section.get(key) else None


def _trusting(*, cafile: Path | None = None, cadata: str | None = None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(cafile) if cafile else None, cadata=cadata)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the certificates of the cluster's authority cannot be read: {error}") from error


def _present(tls: ssl.SSLContext, certificate: bytes, key: bytes, file: Path) -> None:
    # The library takes files alone; this one is the user's own and gone at once.
    descriptor, name = tempfile.mkstemp()
    try:
        with os.fdopen(descriptor, "wb") as both:
            both.write(certificate + b"\n" + key)
        tls.load_cert_chain(name)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"{file}: client-certificate and client-key are no pair", file=str(file)) from error
    finally:
        Path(name).unlink()


def _checked(url: str, file: Path) -> str:
    if safe_address(url) is None:
        raise ConfigError(f"{file}: server must be https://host[:port]; http is for this machine alone", file=str(file))
    return url.rstrip("/")


def _token(file: Path) -> str:
    return _read(file).decode("ascii", "replace").strip()


def _read(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", file=str(path)) from error
