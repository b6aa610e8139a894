"""Where a receiver may be connected to (RT-59)."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.extensions.operations.http import Lookup
from fleet.kernel.errors import PolicyDenied, ToolFailed
from fleet.policy.addresses import addresses_refusal


async def checked_address(host: str, port: int, *, allowed: Sequence[str], lookup: Lookup) -> str:
    """The numeric address to connect to, of a name that leads to no place that is refused.

    Raises:
        ToolFailed: the name has no address.
        PolicyDenied: one of its addresses is not public, and not in a network that is `allowed`.
    """
    try:
        found = await lookup(host, port)
    except (OSError, UnicodeError) as error:
        raise ToolFailed(f"the name {host} has no address", host=host) from error
    if (why := addresses_refusal(found, allowed=allowed)) is not None:
        raise PolicyDenied(
            f"{host} must not be connected to: {why}; list its network under `networks` of the target if yours",
            rule_id="RT-59",
            host=host,
        )
    return found[0]
