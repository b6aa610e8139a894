"""Named agents of councils over HTTP: an admin adds seats with a model policy of their own (AP-79, CN-16)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import JSONResponse, Response

from fleet.desk.councils import CouncilDesk, NamedAgentLine, agent_lines
from fleet.desk.platform import PlatformDesk
from fleet.kernel.errors import NotFound
from fleet.projects.platform_commands import NewAgent, RegisterAgent, UnregisterAgent
from serve_apps.requests import Caller, Key, Stories, require_one_of
from serve_apps.routes.fleet_state import Fleet, platform_command
from serve_apps.wire.story import Wire
from serve_apps.wire.times import at

agent_router = APIRouter(prefix="/api")


class AgentRequest(NewAgent):
    """A seat for councils of a role that open from here on."""


class NamedAgentView(Wire):
    """A named agent; `busy` while a council waits for its answer."""

    agent_id: str
    principal: str
    """As whom it proposes and votes."""
    role: str
    model_policy: str
    persona: str | None
    status: Literal["ready", "busy"]
    registered_by: str
    registered_at: str


class NamedAgentList(Wire):
    """Named agents in the order in which they were registered."""

    items: tuple[NamedAgentView, ...]


class AgentRemoved(Wire):
    """Councils that open from here on do not seat it; those that are open keep it to their end."""

    agent_id: str
    version: int
    """Of the platform's stream."""


class AgentsView:
    """The named agents in force, for an admin."""

    def __init__(self, councils: CouncilDesk, fleet: PlatformDesk) -> None:
        self._councils, self.fleet = councils, fleet

    async def all(self) -> tuple[NamedAgentView, ...]:
        """Each with what it does now."""
        present = [agent for agent in (await self.fleet.state()).agents.values() if not agent.is_gone]
        return tuple(map(_view, agent_lines(present, await self._councils.lines())))

    async def one(self, agent_id: str) -> NamedAgentView:
        """That of this id. NotFound when it was taken away since."""
        agent = next((one for one in await self.all() if one.agent_id == agent_id), None)
        if agent is None:
            raise NotFound(f"named agent {agent_id} was taken away since", agent_id=agent_id)
        return agent


def _agents(request: Request, stories: Stories, fleet: Fleet, who: Caller) -> AgentsView:
    require_one_of(request, who, "admin", rule_id="AP-79")
    return AgentsView(CouncilDesk(stories.planning), fleet)


Agents = Annotated[AgentsView, Depends(_agents)]


@agent_router.get("/agents", response_model=NamedAgentList, operation_id="list_agents_api_agents_get")
async def list_agents(agents: Agents) -> NamedAgentList:
    """The named agents in force, with what they do now."""
    return NamedAgentList(items=await agents.all())


@agent_router.post(
    "/agents", status_code=201, response_model=NamedAgentView, operation_id="register_agent_api_agents_post"
)
async def register_agent(request: Request, agents: Agents, who: Caller, key: Key, body: AgentRequest) -> Any:
    """Add a seat that councils of its role fill first; how many sit in them stays the same."""
    sent = RegisterAgent(**body.model_dump(exclude_none=True))
    answer = await platform_command(request, agents.fleet, sent, who, key)
    if isinstance(answer, Response):
        return answer
    view = await agents.one(answer["agent_id"])
    return JSONResponse(view.model_dump(mode="json"), status_code=201)


@agent_router.delete(
    "/agents/{agent_id}", response_model=AgentRemoved, operation_id="unregister_agent_api_agents__agent_id__delete"
)
async def unregister_agent(
    request: Request, agents: Agents, who: Caller, key: Key, agent_id: Annotated[str, Path(max_length=80)]
) -> Any:
    """Take a named agent away: no council that opens seats it, and those that are open keep it to their end."""
    answer = await platform_command(request, agents.fleet, UnregisterAgent(agent_id=agent_id), who, key)
    return answer if isinstance(answer, Response) else AgentRemoved(agent_id=agent_id, version=answer["version"])


def _view(line: NamedAgentLine) -> NamedAgentView:
    agent = line.agent.registered
    return NamedAgentView(
        agent_id=agent.agent_id,
        principal=agent.agent_id.replace("agent-", "agent:", 1),
        role=agent.role,
        model_policy=agent.engine,
        persona=agent.persona,
        status=line.status,
        registered_by=line.agent.by,
        registered_at=at(line.agent.at_ms),
    )
