"""`fleet audit access`: who used which secret."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from fleet.cli.endpoints import endpoints_of
from fleet.cli.exit_codes import DONE
from fleet.cli.output import Output, shown
from fleet.cli.settings import needed_addresses, settings
from fleet.policy.secret_grants import SecretAccess
from fleet.wiring.stores.secrets import open_access_trail


def accesses(output: Output, *, secret: str | None, limit: int) -> int:
    """The newest uses of secrets are printed, the newest first; no line has a value or a hash of one."""

    async def read() -> list[SecretAccess]:
        fleet_settings = settings()
        async with open_access_trail(endpoints_of(fleet_settings, needed_addresses(fleet_settings))) as trail:
            return await trail.newest(limit=limit)

    return report_of(output, asyncio.run(read()), secret=secret)


def report_of(output: Output, lines: Sequence[SecretAccess], *, secret: str | None = None) -> int:
    """The lines are printed; those of one secret if it is named."""
    chosen = [line for line in lines if secret in (None, line.name)]
    for line in chosen:
        at = datetime.fromtimestamp(line.at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        kept = f" from {line.provider}" if line.provider else ""
        why = f" ({line.error})" if line.error else ""
        used = f"{line.role} {line.tool}.{line.op} {line.name}{kept}: {line.outcome}{why}"
        output.say(shown(f"{at} {used}"))
    if not chosen:
        output.say("no use of a secret is on record" + (f" for {shown(secret)}" if secret else ""))
    output.result({"accesses": [line.model_dump(mode="json") for line in chosen], "read": len(lines)})
    return DONE
