"""Answers commands on the fleet as a whole: any shard may, for the stream is claimed for one append only (EV-17)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fleet.audit.port import Losses
from fleet.events.payload import Payload
from fleet.kernel.errors import StoreUnavailable
from fleet.kernel.ids import CommandId, Principal
from fleet.log.port import Command, EventLog
from fleet.owner.brief_claims import BriefClaims
from fleet.owner.platform_view import PlatformView
from fleet.planning.platform_state import PLATFORM
from fleet.projects.platform_commands import AcceptLoss, DelegationRules, PlatformFacts, parse_platform_command
from fleet.story.commands.command import Caller


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
        asked = parse_platform_command(command.name, command.body)
        if isinstance(asked, AcceptLoss):
            return await self._accept_loss(asked, command.command_id, caller)
        if command.command_id not in await self._log.commands(PLATFORM):

            async def payloads() -> Sequence[Payload]:
                facts = PlatformFacts(caller, command.command_id, self._rules.now_ms(), self._rules)
                return asked.decide(await self._view.state(), facts)

            await self._claims.record(
                PLATFORM, command.command_id, payloads, actor=command.principal, trace_id=command.trace_id
            )
        state = await self._view.state()
        told = {"version": state.version, "is_paused": state.pause is not None}
        return told | asked.made(state, command.command_id)

    async def _accept_loss(self, asked: AcceptLoss, command_id: CommandId, caller: Caller) -> dict[str, Any]:
        """The signed record of the notary, which no event repeats: the stream in question may be the platform's own.

        Raises PolicyDenied for all but admins, and as `Losses.accept`.
        """
        caller.require("admin")
        if self._losses is None:
            raise StoreUnavailable("no notary is wired to this shard: use `fleet accept-loss`")
        done = await self._losses.accept(asked.stream, by=caller.principal, reason=asked.reason, command_id=command_id)
        return {"is_new": done.is_new, "loss": done.loss.model_dump(mode="json")}

    async def work(self) -> None:
        """Returns at once: the platform owes nothing beside commands."""
