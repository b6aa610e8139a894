"""What people ask of the fleet as a whole; reads need no actor (AP-94, AP-95, AP-98)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.desk.planning import ANSWER_S, Pending, asked, settled
from fleet.kernel.clock import Clock
from fleet.kernel.digest import digest_of_json
from fleet.kernel.ids import CommandId, Principal
from fleet.log.port import Command, Inbox
from fleet.owner.platform_view import PlatformView
from fleet.planning.platform_state import PLATFORM, PlatformState
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
        name: str,
        body: Mapping[str, Any],
        *,
        principal: Principal,
        key: str,
        timeout_s: float = ANSWER_S,
        trace_id: str = "",
    ) -> dict[str, Any] | Pending:
        """As `PlanningDesk.command`, for the platform's stream (AP-4)."""
        command = Command(
            command_id=CommandId(f"{principal}/{key}"),
            stream=PLATFORM,
            name=name,
            principal=principal,
            body=redact_json(dict(body)),
            trace_id=trace_id,
        )
        return await asked(self._inbox, command, timeout_s=timeout_s)

    async def denied(self, principal: Principal, action: str, what: str, *, rule_id: str) -> None:
        """Queue the record of an attempt on something hidden (CX-16); one within a minute stands for all like it.

        StoreUnavailable when it cannot be queued.
        """
        body = {"action": action, "object": what, "rule_id": rule_id}
        moment = digest_of_json({**body, "minute": self.now_ms // _MINUTE_MS}).hex[:32]
        command = Command(
            command_id=CommandId(f"{principal}/denied-{moment}"),
            stream=PLATFORM,
            name="record_denial",
            principal=principal,
            body=body,
        )
        await self._inbox.submit(command)

    async def overridden(self, principal: Principal, action: str, what: str, *, reason: str) -> None:
        """Record that somebody used the incident override, each time anew (CX-18).

        Returns once it is on record: StoreUnavailable when no shard answered, and then nothing may be shown.
        """
        self._overrides += 1
        body = {"action": action, "object": what, "reason": reason}
        moment = digest_of_json({**body, "ms": self.now_ms, "nth": self._overrides}).hex[:32]
        await self.require("record_override", body, principal=principal, key=f"override-{moment}")

    async def require(self, name: str, body: Mapping[str, Any], *, principal: Principal, key: str) -> dict[str, Any]:
        """As `command`, waiting up to a minute; StoreUnavailable when no shard answered."""
        return settled(await self.command(name, body, principal=principal, key=key, timeout_s=_PATIENCE_S), name)
