"""Answers commands on the fleet as a whole: any shard may, for the stream is claimed for one append only (EV-17)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fleet.errors import InvalidInput
from fleet.events import Payload
from fleet.ids import Principal
from fleet.planning import PLATFORM
from fleet.ports import Command, EventLog
from fleet.services.brief_claims import BriefClaims
from fleet.services.platform_commands import PLATFORM_COMMANDS, platform_result
from fleet.services.platform_view import PlatformView
from fleet.services.standing_delegations import DelegationRules
from fleet.story import Caller

__all__ = ["PlatformOwner"]


class PlatformOwner:
    """Writes the platform's stream.

    Args:
        view: of the stream, which is read anew for each decision.
        rules: of delegations.
    """

    def __init__(
        self,
        *,
        log: EventLog,
        claims: BriefClaims,
        view: PlatformView,
        rules: DelegationRules,
        roles_of: Callable[[Principal], frozenset[str]],
    ) -> None:
        self._log, self._claims, self._view, self._rules, self._roles_of = log, claims, view, rules, roles_of

    async def handle(self, command: Command) -> dict[str, Any]:
        """The result of the command. Raises what the domain refuses, and LeaseHeld while another owner is at it."""
        decide = PLATFORM_COMMANDS.get(command.name)
        if decide is None:
            raise InvalidInput(f"there is no command {command.name!r}", allowed=sorted(PLATFORM_COMMANDS))
        if command.command_id not in await self._log.commands(PLATFORM):
            caller = Caller(principal=command.principal, roles=self._roles_of(command.principal))

            async def payloads() -> Sequence[Payload]:
                return decide(self._rules, await self._view.state(), command, caller)

            await self._claims.record(
                PLATFORM, command.command_id, payloads, actor=command.principal, trace_id=command.trace_id
            )
        return platform_result(await self._view.state(), command)

    async def work(self) -> None:
        """Returns at once: the platform owes nothing beside commands."""
