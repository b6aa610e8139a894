"""`context`: builds what each role may see of a story."""

from __future__ import annotations

from fleet.kernel.collector import all_alive

# What is imported stays: a search for garbage meanwhile would find none.
with all_alive():
    from actors.shell import Shell
    from fleet.context.port import CountRequest, Pack, PackActivity, PackRequest
    from fleet.kernel.clock import SystemClock
    from fleet.models.weights import TokenizerId
    from fleet.remote.timed_ports import TimedPacks
    from fleet.wiring.desk.contexts import make_context_service
    from fleet.wiring.endpoints import Endpoints


class ContextShell(Shell):
    """Thin shell over ContextService."""

    def __init__(self, name: str, endpoints: Endpoints) -> None:
        super().__init__(name, endpoints)
        self._made = make_context_service(endpoints)
        self._service = TimedPacks(self._made, meter=self.telemetry.meter, clock=SystemClock())

    async def pack(self, request: PackRequest) -> Pack:
        """The context pack of one role in one phase."""
        return await self._service.pack(request)

    async def count(self, request: CountRequest) -> int:
        """The tokens of these texts, as the models of a role count them."""
        return await self._service.count(request)

    async def tokens(self, tokenizers: tuple[TokenizerId | None, ...], texts: tuple[str, ...]) -> int:
        """The tokens of these texts for the tokenizer that counts the most."""
        return await self._made.tokens(tokenizers, texts)

    async def activity(self, projects: frozenset[str] | None) -> PackActivity:
        """What this actor did for stories of these projects since it began; None for all."""
        return await self._made.activity(projects)
