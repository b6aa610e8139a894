"""Calls of tools as the product makes them, without the policy in front."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import JsonValue

from fleet.kernel.errors import PolicyDenied
from fleet.kernel.ids import Digest, Principal, RunKey, StoryId
from fleet.kernel.types import EffectClass
from fleet.policy.rules.calls import Obligations, ToolCall
from fleet.policy.secret_refs import references_in
from fleet.secrets.port import SecretValue
from fleet.tools.port import ToolContext


def call_of(tool: str, op: str, /, **args: JsonValue) -> ToolCall:
    """A call with these arguments."""
    return ToolCall(tool=tool, op=op, args=args)


def context_of(
    *,
    tree: Digest | None = None,
    environment: str | None = None,
    timeout_s: int = 20,
    hosts: tuple[str, ...] = (),
    role: str = "developer",
    effect: EffectClass = "PURE",
) -> ToolContext:
    """What the product knows of a call in a test."""
    return ToolContext(
        story_id=StoryId("st-1"),
        principal=Principal("agent:developer-001"),
        role=role,
        phase="BUILD",
        key=RunKey("ab" * 32),
        epoch=1,
        obligations=Obligations(is_recorded=True, effect=effect, timeout_s=timeout_s, output_limit_kb=512, hosts=hosts),
        tree=tree,
        environment=environment,
    )


class TableOfSecrets:
    """Gives values from a table, to one role."""

    def __init__(self, values: Mapping[str, str], *, role: str = "developer") -> None:
        self._values = values
        self._role = role

    async def resolve_arguments(
        self, arguments: JsonValue, *, as_role: str, tool: str, op: str
    ) -> Mapping[str, SecretValue]:
        """The value of every reference; PolicyDenied for another role."""
        if as_role != self._role:
            raise PolicyDenied(f"role {as_role} may not", rule_id="RT-65")
        return {
            r.pointer: SecretValue(self._values[r.name], name=r.name, provider="table", version=None, ttl_s=60)
            for r in references_in(arguments)
        }


def certificates(folder: Path, *names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server with these names, and of a client that trusts it alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "server.pem", folder / "server.key"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(public, private)
    return server, ssl.create_default_context(cafile=str(public))


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
