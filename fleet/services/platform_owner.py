"""Answers commands on the fleet as a whole: any shard may, for the stream is claimed for one append only (EV-17)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fleet.errors import InvalidInput, StoreUnavailable
from fleet.events import Payload
from fleet.ids import Principal, StreamId
from fleet.planning import PLATFORM
from fleet.ports import Command, EventLog, Losses
from fleet.services.brief_claims import BriefClaims
from fleet.services.platform_commands import PLATFORM_COMMANDS, needs_admin, platform_result
from fleet.services.platform_view import PlatformView
from fleet.services.standing_delegations import DelegationRules
from fleet.story import Caller

__all__ = ["PlatformOwner"]

_ACCEPT_LOSS = "accept_loss"


class PlatformOwner:
    """Writes the platform's stream.

    Args:
        view: of the stream, which is read anew for each decision.
        rules: of delegations.
        losses: where a person gives up what a stream lost; None while there is no notary to sign it.
    """

    def __init__(
        self,
        *,
        log: EventLog,
        claims: BriefClaims,
        view: PlatformView,
        rules: DelegationRules,
        roles_of: Callable[[Principal], frozenset[str]],
        losses: Losses | None = None,
    ) -> None:
        self._log, self._claims, self._view, self._rules, self._roles_of = log, claims, view, rules, roles_of
        self._losses = losses

    async def handle(self, command: Command) -> dict[str, Any]:
        """The result of the command. Raises what the domain refuses, and LeaseHeld while another owner is at it."""
        caller = Caller(principal=command.principal, roles=self._roles_of(command.principal))
        if command.name == _ACCEPT_LOSS:
            return await self._accept_loss(command, caller)
        decide = PLATFORM_COMMANDS.get(command.name)
        if decide is None:
            known = sorted([*PLATFORM_COMMANDS, _ACCEPT_LOSS])
            raise InvalidInput(f"there is no command {command.name!r}", allowed=known)
        if command.command_id not in await self._log.commands(PLATFORM):

            async def payloads() -> Sequence[Payload]:
                return decide(self._rules, await self._view.state(), command, caller)

            await self._claims.record(
                PLATFORM, command.command_id, payloads, actor=command.principal, trace_id=command.trace_id
            )
        return platform_result(await self._view.state(), command)

    async def _accept_loss(self, command: Command, caller: Caller) -> dict[str, Any]:
        """The signed record of the notary, which no event repeats: the stream in question may be the platform's own.

        Raises PolicyDenied for all but admins, and as `Losses.accept`.
        """
        needs_admin(caller)
        if self._losses is None:
            raise StoreUnavailable("no notary is wired to this shard: use `fleet accept-loss`")
        stream, reason = StreamId(str(command.body.get("stream") or "")), str(command.body.get("reason") or "")
        done = await self._losses.accept(stream, by=caller.principal, reason=reason, command_id=command.command_id)
        return {"is_new": done.is_new, "loss": done.loss.model_dump(mode="json")}

    async def work(self) -> None:
        """Returns at once: the platform owes nothing beside commands."""
