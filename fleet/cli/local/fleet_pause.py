"""`fleet pause` and `fleet unpause`: no step starts in any story, until they go on (PL-50)."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from fleet.cli.endpoints import endpoints_of
from fleet.cli.exit_codes import DONE
from fleet.cli.local.local_principals import local_principal
from fleet.cli.output import Output
from fleet.cli.settings import needed_addresses, settings
from fleet.planning.platform_state import FleetPause
from fleet.projects.platform_commands import AnyPlatformCommand, PauseFleet, ResumeFleet
from fleet.wiring.desk.desk import open_platform_desk
from fleet.wiring.endpoints import Endpoints


def pause(output: Output, *, reason: str) -> int:
    """No step of any story starts from here on."""
    return _sent(output, PauseFleet(reason=reason), said="the fleet is paused")


def unpause(output: Output, *, note: str) -> int:
    """The paused fleet goes on."""
    return _sent(output, ResumeFleet(note=note), said="the fleet goes on")


async def read_pause(endpoints: Endpoints) -> FleetPause | None:
    """What holds the whole of a running fleet back. StoreUnavailable."""
    async with open_platform_desk(endpoints) as desk:
        return (await desk.state()).pause


def _sent(output: Output, sent: AnyPlatformCommand, *, said: str) -> int:
    async def work() -> dict[str, Any]:
        fleet_settings = settings()
        async with open_platform_desk(endpoints_of(fleet_settings, needed_addresses(fleet_settings))) as desk:
            key = f"{sent.command}/{secrets.token_hex(8)}"
            return await desk.require(sent, principal=local_principal(), key=key)

    result = asyncio.run(work())
    output.say(said)
    output.result(result)
    return DONE
