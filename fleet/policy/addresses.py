"""Which network addresses a tool or a run may be connected to (RT-59). Pure: whoever connects resolves the names."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NETWORK = ipaddress.ip_network

# Forms of IPv6 that stand for an IPv4 address: what a router makes of them cannot be seen from here.
_EMBEDDING = tuple(
    _NETWORK(n) for n in ("::ffff:0:0/96", "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)
# What the registries of special purposes name and versions of Python do not all take for such (or took for it once).
_SPECIAL = tuple(
    _NETWORK(n)
    for n in (
        *("192.0.0.0/24", "192.88.99.0/24", "240.0.0.0/4"),
        *("fec0::/10", "5f00::/16", "::ffff:0:0:0/96", "100::/32", "2001::/23", "3fff::/20"),
    )
)
# The addresses that are handed out to the public; the rest of IPv6 is kept for later.
_UNICAST = _NETWORK("2000::/3")
# Services of the machine that other rules do not cover, because their addresses count as public.
_METADATA = tuple(
    _NETWORK(n) for n in ("168.63.129.16/32", "169.254.0.0/16", "fd00:ec2::254/128", "100.100.100.200/32")
)


def host_is_listed(host: str, listed: Iterable[str]) -> bool:
    """Whether the host is one of the names, or is below one of the `.suffix` entries. Upper case does not matter."""
    name = host.lower().rstrip(".")
    return any(name == entry or (entry.startswith(".") and name.endswith(entry)) for entry in map(str.lower, listed))


def address_refusal(address: str, *, allowed: Sequence[str] = ()) -> str | None:
    """Why this address must not be connected to; None when it may be.

    Args:
        address: numeric, without brackets.
        allowed: networks of the owner that may be reached although they are not public (`10.1.2.0/24`). Link-local
            addresses, metadata services, multicast and embedded forms stay refused.

    Source: rule RT-59; IANA special-purpose address registries.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return f"{address!r} is no numeric address"
    if (why := _never(parsed)) is not None:
        return f"{address} is {why}"
    if any(parsed in _NETWORK(network) for network in allowed):
        return None
    is_special = any(parsed in network for network in _SPECIAL) or (parsed.version == 6 and parsed not in _UNICAST)
    return f"{address} is not public" if is_special or not parsed.is_global else None


def addresses_refusal(addresses: Iterable[str], *, allowed: Sequence[str] = ()) -> str | None:
    """Why a name with these addresses must not be connected to: it has none, or one of them is refused.

    One refused address refuses the name: a name that leads to both is a way to choose between them later.
    """
    listed = list(addresses)
    if not listed:
        return "the name has no address"
    return next((why for address in listed if (why := address_refusal(address, allowed=allowed))), None)


def _never(address: _Address) -> str | None:
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        return "bound to an interface"
    if address.is_loopback:
        return None
    if any(address in network for network in _METADATA):
        return "an address of the machine's own metadata service"
    if address.is_multicast:
        return "a multicast address"
    if address.is_link_local:
        return "a link-local address"
    if address.is_unspecified:
        return "the unspecified address"
    if any(address in network for network in _EMBEDDING):
        return "a form of an IPv4 address within IPv6"
    return None
