"""`role:<role>:<n>`: one role agent; answers draft, critique, repair, vote, act and other requests of councils.

It thinks here: persona, models, prompts and the repair of what a model writes wrongly. What it wants done is its
answer; the owner of the story decides on it, has it carried out and keeps the record, so nothing here could be lost.
"""

from __future__ import annotations

from fleet.kernel.collector import all_alive

# What is imported stays: a search for garbage meanwhile would find none.
with all_alive():
    from actors.model_gauges import model_gauges, shown_as
    from actors.shell import Shell
    from fleet.models.figures import ModelFigures
    from fleet.models.port import AgentAnswer, AgentRequest
    from fleet.models.service.model_reporter import figures_of_routers
    from fleet.wiring.endpoints import Endpoints
    from fleet.wiring.models.figures import make_model_reporter
    from fleet.wiring.sandbox.services import make_role_parts


class RoleShell(Shell):
    """Thin shell over RoleAgent."""

    def __init__(self, name: str, endpoints: Endpoints) -> None:
        super().__init__(name, endpoints)
        parts = make_role_parts(endpoints, role=name.split(":")[1], telemetry=self.telemetry)
        self._agent, self._models = parts.agent, parts.models
        show = shown_as(model_gauges())
        self.background(make_model_reporter(endpoints, name, look=self._figures, show=show).run)

    async def ask(self, request: AgentRequest, *, request_id: str, budget_s: float) -> AgentAnswer:
        """Answer one request within `budget_s` seconds."""
        return await self._agent.ask(request, request_id=request_id, timeout_s=budget_s)

    async def _figures(self) -> tuple[ModelFigures, ...]:
        return figures_of_routers(self._models.stats())
