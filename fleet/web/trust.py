"""Which addresses a token may be sent to, and whose certificates count."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import httpx2

from fleet.kernel.errors import ConfigError

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
"""Hosts that are this machine: plain HTTP to them can be read by nobody else."""
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")


def safe_address(url: str, *, allow_http: bool = False) -> httpx2.URL | None:
    """The address, or None where no secret may be sent to it.

    One may over TLS and to this machine, and the address has neither user nor query nor fragment. A caller words the
    refusal, and shows no more of the text than its own rules allow: what is no address may hold a password.

    Args:
        allow_http: plain HTTP to other machines as well.
    """
    try:
        found = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        return None
    is_safe = found.scheme == "https" or (found.scheme == "http" and (allow_http or found.host in LOOPBACK))
    is_plain = _HOST.fullmatch(found.host) and not (found.userinfo or found.query or found.fragment)
    return found if is_safe and is_plain else None


def trust_of(ca_file: Path | None, *, key: str | None = None) -> ssl.SSLContext:
    """Checks certificates against the authorities of the file, or against the usual ones.

    Args:
        key: the setting that names the file, for the message.

    Raises:
        ConfigError: the file cannot be read, or holds no certificate.
    """
    if ca_file is None:
        return httpx2.create_ssl_context(trust_env=False)
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:
        of, named = (f" ({key})", {"key": key}) if key else ("", {})
        raise ConfigError(f"cannot read the certificates {ca_file}{of}: {error}", file=str(ca_file), **named) from error
