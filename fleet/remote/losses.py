"""The port Losses over the actor `notary`, whose process alone has the key that signs them."""

from __future__ import annotations

from fleet.audit.port import AcceptedLoss
from fleet.kernel.errors import StoreUnavailable, ToolTimeout
from fleet.kernel.ids import CommandId, Principal, StreamId
from fleet.remote.patience import Calls, PatientCalls

_ANSWER_S = 30.0


class RayLosses:
    """Asks the notary. A call that was cut off is repeated: the same loss is accepted once."""

    def __init__(self, calls: Calls) -> None:
        self._calls = PatientCalls(calls)

    async def accept(
        self, stream: StreamId, *, by: Principal, reason: str, command_id: CommandId | None = None
    ) -> AcceptedLoss:
        """See the port; StoreUnavailable too when the notary did not answer in time and may still be at it."""
        try:
            return await self._calls.call(
                "notary",
                "accept_loss",
                stream,
                by=by,
                reason=reason,
                command_id=command_id,
                timeout_s=_ANSWER_S,
                found_within_s=0.0,
            )
        except ToolTimeout as error:
            raise StoreUnavailable(error.message, **error.details) from error
