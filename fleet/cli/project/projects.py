"""Projects, epics and discoveries from the command line (AP-50, AP-51, PL-54)."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import asdict
from typing import Any

from fleet.cli.exit_codes import DONE
from fleet.cli.local.local_principals import local_principal
from fleet.cli.output import Output, name_damaged, shown
from fleet.cli.project.proposals import parse_answers, show_proposal
from fleet.cli.project.work import send, with_projects
from fleet.desk.planning import request_key
from fleet.desk.projects import EpicLine, ProjectDesk, new_project_id
from fleet.kernel.errors import NotFound, StoreUnavailable
from fleet.kernel.ids import EntityId, StoryId
from fleet.planning.discovery import DiscoveryProposal
from fleet.planning.project_state import Discovery
from fleet.projects.project_commands import (
    AcceptDiscovery,
    AnswerDiscovery,
    CreateEpic,
    CreateProject,
    Discover,
    DiscoveryCommand,
    RejectDiscovery,
    UpdateEpic,
    UpdateProject,
)


def create_project(output: Output, text: dict[str, Any]) -> int:
    """The project exists."""

    async def work(desk: ProjectDesk) -> int:
        key = f"create-project-{secrets.token_hex(8)}"
        project = new_project_id(local_principal(), key)
        result = await send(desk, project, CreateProject.model_validate({"project": text}), key=key)
        output.say(f"{project}: {shown(text['title'])}")
        output.result(result)
        return DONE

    return with_projects(work)


def change_project(output: Output, project: str, changes: dict[str, Any]) -> int:
    """Fields of the project have new values."""

    async def work(desk: ProjectDesk) -> int:
        result = await send(desk, project, UpdateProject.model_validate({"changes": changes}))
        output.say(f"{project} is {result['status']}")
        output.result(result)
        return DONE

    return with_projects(work)


def list_projects(output: Output) -> int:
    """Every project is printed, one a line."""

    async def work(desk: ProjectDesk) -> int:
        states = await desk.projects()
        for state in states:
            output.say(f"{state.project_id}  {state.status:<9} {shown(state.title)}")
        output.result(
            {"projects": [{"project_id": s.project_id, "title": s.title, "status": s.status} for s in states]}
        )
        return DONE

    return with_projects(work)


def show_project(output: Output, project: str) -> int:
    """One project is printed with its epics."""

    async def work(desk: ProjectDesk) -> int:
        state = await desk.project(project)
        epics = await desk.epics(project)
        output.say(
            f"[bold]{shown(state.title)}[/]\n  id        {shown(state.project_id)}\n  status    {shown(state.status)}"
        )
        output.say(f"  rigor     {shown(state.default_rigor)}\n  lifecycle {shown(state.default_lifecycle)}")
        for line in epics:
            output.say(f"  {_epic_line(line)}")
        output.result({"project_id": state.project_id, "status": state.status, "epics": [_epic(e) for e in epics]})
        return name_damaged(output, desk.planning.damaged)

    return with_projects(work)


def _epic_line(line: EpicLine) -> str:
    return f"{line.epic.epic_id}  {line.status:<11} {len(line.stories):>3} stories  {shown(line.epic.title)}"


def _epic(line: EpicLine) -> dict[str, Any]:
    return {**asdict(line.epic), "project_id": line.project_id, "status": line.status, "stories": list(line.stories)}


def create_epic(output: Output, project: str, text: dict[str, Any]) -> int:
    """The epic stands under its project."""

    async def work(desk: ProjectDesk) -> int:
        result = await send(desk, project, CreateEpic.model_validate({"epic": text}))
        output.say(f"{result['epic_id']}: {shown(text['title'])}")
        output.result(result)
        return DONE

    return with_projects(work)


def change_epic(output: Output, epic_id: str, changes: dict[str, Any], *, reason: str) -> int:
    """Fields of the epic have new values."""

    async def work(desk: ProjectDesk) -> int:
        line = await desk.epic(epic_id)
        sent = UpdateEpic.model_validate({"epic_id": epic_id, "changes": changes, "reason": reason})
        result = await send(desk, line.project_id, sent)
        output.say(f"{epic_id} is {(await desk.epic(epic_id)).status}")
        output.result(result)
        return DONE

    return with_projects(work)


def list_epics(output: Output, project: str) -> int:
    """Every epic of the project is printed, one a line."""

    async def work(desk: ProjectDesk) -> int:
        lines = await desk.epics(project)
        for line in lines:
            output.say(_epic_line(line))
        output.result({"epics": [_epic(line) for line in lines]})
        return name_damaged(output, desk.planning.damaged)

    return with_projects(work)


def show_epic(output: Output, epic_id: str) -> int:
    """One epic is printed with its stories."""

    async def work(desk: ProjectDesk) -> int:
        line = await desk.epic(epic_id)
        output.say(
            f"[bold]{shown(line.epic.title)}[/]\n  id        {shown(epic_id)}\n  project   {shown(line.project_id)}"
        )
        output.say(f"  status    {line.status}\n  priority  {line.epic.priority}\n  goal      {shown(line.epic.goal)}")
        for story in line.stories:
            output.say(f"  {story}")
        output.result(_epic(line))
        return name_damaged(output, desk.planning.damaged)

    return with_projects(work)


# Discovery.


async def _found(desk: ProjectDesk, discovery_id: str) -> tuple[EntityId, Discovery, DiscoveryProposal]:
    for state in await desk.projects():
        if discovery_id in state.discoveries:
            return state.project_id, *await desk.discovery(state.project_id, discovery_id)
    raise NotFound(f"there is no discovery {discovery_id}", discovery_id=discovery_id)


def _result(project: str, discovery: Discovery, proposal: DiscoveryProposal) -> dict[str, Any]:
    return {**asdict(discovery), "project_id": project, "proposal": proposal.model_dump(mode="json")}


def ask(output: Output, goal: str, *, project: str, language: str, model: str | None, is_empty: bool) -> int:
    """A goal has a proposal; a model that helps may take a while."""

    async def work(desk: ProjectDesk) -> int:
        sent = Discover(goal=goal, language=language, is_empty=is_empty, model=model or None)
        made = await send(desk, project, sent)
        for _ in range(600):
            discovery, proposal = await desk.discovery(project, made["discovery_id"])
            if discovery.status != "requested":
                show_proposal(output, discovery, proposal)
                output.result(_result(project, discovery, proposal))
                return DONE
            await asyncio.sleep(0.5)
        raise StoreUnavailable(f"no proposal came for {made['discovery_id']}; `fleet discovery show` shows it later")

    return with_projects(work)


def list_discoveries(output: Output) -> int:
    """Every goal is printed, one a line."""

    async def work(desk: ProjectDesk) -> int:
        discoveries = [(s.project_id, d) for s in await desk.projects() for d in s.discoveries.values()]
        for _, one in discoveries:
            output.say(f"{one.discovery_id}  {one.status:<9} {shown(one.goal)}")
        output.result({"discoveries": [{**asdict(one), "project_id": project} for project, one in discoveries]})
        return DONE

    return with_projects(work)


def show_discovery(output: Output, discovery_id: str) -> int:
    """One proposal is printed as it is now."""

    async def work(desk: ProjectDesk) -> int:
        project, discovery, proposal = await _found(desk, discovery_id)
        show_proposal(output, discovery, proposal)
        output.result(_result(project, discovery, proposal))
        return DONE

    return with_projects(work)


def answer(output: Output, discovery_id: str, given: tuple[str, ...]) -> int:
    """Answers stand in the stories of the proposal."""
    return _decide(output, AnswerDiscovery(discovery_id=discovery_id, answers=parse_answers(given)))


def accept(output: Output, discovery_id: str, *, note: str) -> int:
    """The epic stands, and the stories are there."""
    return _decide(output, AcceptDiscovery(discovery_id=discovery_id, note=note))


def reject(output: Output, discovery_id: str, *, reason: str) -> int:
    """The proposal is not taken."""
    return _decide(output, RejectDiscovery(discovery_id=discovery_id, reason=reason))


def _decide(output: Output, sent: DiscoveryCommand) -> int:
    async def work(desk: ProjectDesk) -> int:
        project, before, _ = await _found(desk, sent.discovery_id)
        # Accepted twice is accepted once; answers and another proposal are new requests.
        request = {**sent.body(), "proposal": before.proposal_digest}
        key = request_key(f"{sent.discovery_id}/accept", request) if isinstance(sent, AcceptDiscovery) else ""
        await send(desk, project, sent, key=key)
        _, discovery, proposal = await _found(desk, sent.discovery_id)
        for story_id in discovery.story_ids:
            await desk.require_story(local_principal(), StoryId(story_id))
        show_proposal(output, discovery, proposal)
        for story_id in discovery.story_ids:
            output.say(f"  {story_id}")
        output.result(_result(project, discovery, proposal))
        return DONE

    return with_projects(work)
