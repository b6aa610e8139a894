"""What a run may reach: host patterns, targets and requests of the egress proxy, as values (RC-7, RT-59, check S11).

Pure: no socket, no clock, no name lookup. `egress.py` does what is decided here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

from fleet.kernel.errors import InvalidInput
from fleet.policy.addresses import addresses_refusal

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

HEAD_BYTES = 16 << 10
"""Most bytes of a request line and its headers together."""

RefusalReason = Literal[
    "host_not_listed",
    "port_not_listed",
    "address_literal",
    "odd_host",
    "malformed_request",
    "body_length_unknown",
    "header_too_large",
    "header_timeout",
    "too_many_connections",
    "not_resolved",
    "address_not_public",
    "connect_failed",
]

STATUS_OF_REFUSAL: dict[RefusalReason, tuple[int, str]] = {
    "host_not_listed": (403, "Forbidden"),
    "port_not_listed": (403, "Forbidden"),
    "address_literal": (403, "Forbidden"),
    "odd_host": (403, "Forbidden"),
    "malformed_request": (400, "Bad Request"),
    "body_length_unknown": (411, "Length Required"),
    "header_too_large": (431, "Request Header Fields Too Large"),
    "header_timeout": (408, "Request Timeout"),
    "too_many_connections": (503, "Service Unavailable"),
    "not_resolved": (502, "Bad Gateway"),
    "address_not_public": (403, "Forbidden"),
    "connect_failed": (502, "Bad Gateway"),
}
"""Reason -> what the client is answered."""

_DEFAULT_PORT = 443
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_METHOD = re.compile(rb"[A-Z]{1,20}")
_VISIBLE = re.compile(rb"[\x21-\x7e]+")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\x80-\xff\t]*)")
_DROPPED = frozenset({b"host", b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"content-length"})


class Refused(Exception):
    """The request goes nowhere; never leaves the proxy. `host` and `port` name its target as far as it was read."""

    def __init__(self, reason: RefusalReason, *, host: str = "", port: int = 0) -> None:
        super().__init__(reason)
        self.reason: RefusalReason = reason
        self.host, self.port = host, port


class Target(NamedTuple):
    """Where a connection shall go: a name in lower case without trailing dot, or an address in its one short form."""

    host: str
    port: int
    address: _Address | None = None

    @property
    def authority(self) -> str:
        """As a Host header has it; the port of plain HTTP is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 80 else f"{host}:{self.port}"


def parse_authority(text: str, *, default_port: int | None = None) -> Target:
    """The target of `host:port` (`[v6]:port`).

    Raises:
        Refused: `odd_host` for what is no plain ASCII host name (user info, percent signs, other scripts, empty
            labels); `address_literal` for a number that only some resolvers take for an address (decimal, hex, octal,
            short forms); `malformed_request` for a missing or wrong port.
    """
    shown = _shown(text)
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise Refused("odd_host", host=shown)
        return _address_target(host, _port(rest[1:] if rest else None, default_port, shown))
    host, colon, port = text.partition(":")
    name = _name(host, shown)
    number = _port(port if colon else None, default_port, shown)
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        return _address_target(name, number)
    return Target(name, number)


def _name(text: str, shown: str) -> str:
    name = text.lower().removesuffix(".")
    if not name.isascii() or len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise Refused("odd_host", host=shown)
    return name


def _address_target(text: str, port: int) -> Target:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise Refused("address_literal", host=_shown(text), port=port) from error
    if getattr(address, "scope_id", None) is not None:
        raise Refused("address_literal", host=_shown(text), port=port)
    return Target(str(address), port, address)


def _port(text: str | None, default: int | None, host: str) -> int:
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65_536:
        raise Refused("malformed_request", host=host)
    return int(text)


def _shown(text: str) -> str:
    """The text as a record may hold it: printable ASCII, at most 253 characters."""
    return text[:253].encode("ascii", "backslashreplace").decode("ascii").translate(_UNPRINTABLE)[:253]


_UNPRINTABLE = {n: "?" for n in (*range(32), 127)}


class _Pattern(NamedTuple):
    host: str
    port: int
    is_suffix: bool


@dataclass(frozen=True, slots=True)
class HostRules:
    """The hosts of one run: `host`, `host:port` or `.suffix` (every name below it), each with one port."""

    patterns: tuple[_Pattern, ...]

    @classmethod
    def parse(cls, hosts: Iterable[str]) -> HostRules:
        """The rules of these patterns; port 443 where none is given.

        Raises:
            InvalidInput: names every pattern that is none.
        """
        patterns: list[_Pattern] = []
        wrong: list[str] = []
        for text in hosts:
            is_suffix = text.startswith(".")
            try:
                target = parse_authority(text.removeprefix("."), default_port=_DEFAULT_PORT)
            except Refused:
                wrong.append(text)
                continue
            if is_suffix and (target.address is not None or "." not in target.host):
                wrong.append(text)
            patterns.append(_Pattern(target.host, target.port, is_suffix))
        if wrong:
            raise InvalidInput(
                f"hosts of the run: {', '.join(map(repr, wrong))}: write host, host:port, or .suffix with a dot in it, "
                "in plain ASCII",
                field="hosts",
                problems=wrong,
            )
        return cls(tuple(patterns))

    def check(self, target: Target) -> None:
        """Return when a pattern names the target, host and port; Refused says which of both no pattern has."""
        ports = {p.port for p in self.patterns if _fits(p, target)}
        if target.port in ports:
            return
        if ports:
            raise Refused("port_not_listed", host=target.host, port=target.port)
        reason: RefusalReason = "host_not_listed" if target.address is None else "address_literal"
        raise Refused(reason, host=target.host, port=target.port)


def _fits(pattern: _Pattern, target: Target) -> bool:
    if not pattern.is_suffix:
        return pattern.host == target.host
    # A name in another script is allowed only when it is listed itself: no one sees what it stands for.
    is_encoded = any(label.startswith("xn--") for label in target.host.removesuffix(pattern.host).split("."))
    return target.address is None and target.host.endswith(f".{pattern.host}") and not is_encoded


def choose_addresses(answers: Iterable[str], *, target: Target, allowed: Sequence[str] = ()) -> list[str]:
    """The addresses that may be connected to, in the resolver's order.

    Args:
        answers: what the one lookup of the name answered.
        allowed: networks that the owner of the fleet lists although they are not public.

    Raises:
        Refused: there is none, or one of them is refused: a name that also points inside is not trusted at all.
    """
    addresses = list(dict.fromkeys(answers))
    if not addresses:
        raise Refused("not_resolved", host=target.host, port=target.port)
    if addresses_refusal(addresses, allowed=allowed) is not None:
        raise Refused("address_not_public", host=target.host, port=target.port)
    return addresses


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """A request to the proxy: a tunnel, or one plain HTTP request that is passed on as `head` plus body."""

    target: Target
    is_tunnel: bool
    head: bytes = b""
    """The rewritten head: origin form, Host of the target, one request per connection."""
    body_bytes: int = 0


def parse_head(head: bytes) -> ProxyRequest:
    """The request that this head asks for: CONNECT, or the absolute form of plain HTTP.

    Args:
        head: up to and with the empty line.

    Raises:
        Refused: the head is no such request, or its target is no plain host.
    """
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    parts = lines[0].split(b" ")
    if len(parts) != 3 or not _METHOD.fullmatch(parts[0]) or parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Refused("malformed_request")
    method, uri = parts[0], parts[1]
    if not uri.isascii():
        raise Refused("odd_host", host=_shown(uri.decode("latin-1")))
    if not _VISIBLE.fullmatch(uri):
        raise Refused("malformed_request")
    if method == b"CONNECT":
        return ProxyRequest(parse_authority(uri.decode("ascii")), is_tunnel=True)
    target, path = _absolute(uri)
    fields = _fields(lines[1:], target)
    length = _body_length(fields, target)
    return ProxyRequest(target, False, _rewritten(method, path, target, fields, length), length or 0)


def _absolute(uri: bytes) -> tuple[Target, bytes]:
    scheme, mark, rest = uri.partition(b"://")
    if not mark or scheme.lower() != b"http" or b"#" in rest:
        raise Refused("malformed_request")
    end = next((n for n, byte in enumerate(rest) if byte in b"/?"), len(rest))
    path = rest[end:]
    target = parse_authority(rest[:end].decode("ascii"), default_port=80)
    return target, path if path.startswith(b"/") else b"/" + path


def _fields(lines: Sequence[bytes], target: Target) -> list[tuple[bytes, bytes]]:
    fields: list[tuple[bytes, bytes]] = []
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise Refused("malformed_request", host=target.host, port=target.port)
        fields.append(cast(tuple[bytes, bytes], match.groups()))
    return fields


def _body_length(fields: Sequence[tuple[bytes, bytes]], target: Target) -> int | None:
    if any(name.lower() == b"transfer-encoding" for name, _ in fields):
        raise Refused("body_length_unknown", host=target.host, port=target.port)
    lengths = [value.strip() for name, value in fields if name.lower() == b"content-length"]
    if len(lengths) > 1 or any(not re.fullmatch(rb"[0-9]{1,15}", value) for value in lengths):
        raise Refused("malformed_request", host=target.host, port=target.port)
    return int(lengths[0]) if lengths else None


def _rewritten(
    method: bytes, path: bytes, target: Target, fields: Sequence[tuple[bytes, bytes]], length: int | None
) -> bytes:
    named = {n.strip().lower() for name, value in fields if name.lower() == b"connection" for n in value.split(b",")}
    dropped = _DROPPED | named
    kept = [(n, v) for n, v in fields if n.lower() not in dropped and not n.lower().startswith(b"proxy-")]
    if length is not None:
        kept.append((b"Content-Length", b"%d" % length))
    # One request per connection: a second one could name another host behind the same address.
    lines = [
        b"%s %s HTTP/1.1" % (method, path),
        b"Host: " + target.authority.encode("ascii"),
        b"Connection: close",
        *(name + b": " + value for name, value in kept),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"
