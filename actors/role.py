"""`role:<role>:<n>`: one role agent; answers draft, critique, repair, vote and other requests of councils."""

from __future__ import annotations

from actors.shell import Shell
from fleet.ports import AgentAnswer, AgentRequest
from fleet.wiring import Endpoints, make_role_agent

__all__ = ["RoleShell"]


class RoleShell(Shell):
    """Thin shell over RoleAgent."""

    def __init__(self, name: str, endpoints: Endpoints) -> None:
        super().__init__(name, endpoints)
        self._agent = make_role_agent(endpoints, role=name.split(":")[1])

    async def ask(self, request: AgentRequest, *, request_id: str, budget_s: float) -> AgentAnswer:
        """Answer one request within `budget_s` seconds."""
        return await self._agent.ask(request, request_id=request_id, timeout_s=budget_s)
