"""What people ask of the fleet as a whole; reads need no actor (AP-94, AP-95, AP-98)."""

from __future__ import annotations

from typing import Any

from fleet.desk.planning import ANSWER_S, Pending, asked, settled
from fleet.kernel.clock import Clock
from fleet.kernel.digest import digest_of_json
from fleet.kernel.ids import CommandId, Principal
from fleet.log.port import Command, Inbox
from fleet.owner.platform_view import PlatformView
from fleet.planning.platform_state import PLATFORM, PlatformState
from fleet.projects.platform_commands import AnyPlatformCommand, RecordDenial, RecordOverride
from fleet.redaction.redact_json import redact_json

_PATIENCE_S = 60.0
_MINUTE_MS = 60_000


class PlatformDesk:
    """Commands on the fleet go to a shard; reads come from the log."""

    def __init__(self, *, view: PlatformView, inbox: Inbox, clock: Clock) -> None:
        self._view, self._inbox, self._clock = view, inbox, clock
        self._overrides = 0

    @property
    def now_ms(self) -> int:
        """The present, in milliseconds since 1970 UTC."""
        return self._clock.now_ms()

    async def state(self) -> PlatformState:
        """The fleet as recorded now. StoreUnavailable."""
        return await self._view.state()

    async def command(
        self,
        sent: AnyPlatformCommand,
        *,
        principal: Principal,
        key: str,
        timeout_s: float = ANSWER_S,
        trace_id: str = "",
    ) -> dict[str, Any] | Pending:
        """As `PlanningDesk.command`, for the platform's stream (AP-4)."""
        return await asked(self._inbox, _queued(sent, principal, key, trace_id), timeout_s=timeout_s)

    async def denied(self, principal: Principal, action: str, what: str, *, rule_id: str) -> None:
        """Queue the record of an attempt on something hidden (CX-16); one within a minute stands for all like it.

        StoreUnavailable when it cannot be queued.
        """
        sent = RecordDenial(action=action, object=what, rule_id=rule_id)
        moment = digest_of_json({**sent.body(), "minute": self.now_ms // _MINUTE_MS}).hex[:32]
        await self._inbox.submit(_queued(sent, principal, f"denied-{moment}"))

    async def overridden(self, principal: Principal, action: str, what: str, *, reason: str) -> None:
        """Record that somebody used the incident override, each time anew (CX-18).

        Returns once it is on record: StoreUnavailable when no shard answered, and then nothing may be shown.
        """
        self._overrides += 1
        sent = RecordOverride(action=action, object=what, reason=reason)
        moment = digest_of_json({**sent.body(), "ms": self.now_ms, "nth": self._overrides}).hex[:32]
        await self.require(sent, principal=principal, key=f"override-{moment}")

    async def require(self, sent: AnyPlatformCommand, *, principal: Principal, key: str) -> dict[str, Any]:
        """As `command`, waiting up to a minute; StoreUnavailable when no shard answered."""
        return settled(await self.command(sent, principal=principal, key=key, timeout_s=_PATIENCE_S), sent.command)


def _queued(sent: AnyPlatformCommand, principal: Principal, key: str, trace_id: str = "") -> Command:
    return Command(
        command_id=CommandId(f"{principal}/{key}"),
        stream=PLATFORM,
        name=sent.command,
        principal=principal,
        body=redact_json(sent.body()),
        trace_id=trace_id,
    )
