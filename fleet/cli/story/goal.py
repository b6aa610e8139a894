"""`fleet run "SENTENCE"`: from one line to stories, and then one story after the other (PL-54)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from fleet.cli.exit_codes import DONE, WAITING
from fleet.cli.local.local_principals import local_principal
from fleet.cli.output import Output, shown
from fleet.cli.project.proposals import (
    accept_proposal,
    answer_questions,
    parse_answers,
    request_proposal,
    show_proposal,
)
from fleet.cli.story.forecast import show_start
from fleet.cli.story.run import running_fleet, watch_to_end
from fleet.cli.story.run_options import RunOptions, check_options, check_repo, local_folder, named_repo, start_command
from fleet.cli.story.story_file import read_story
from fleet.config.environment import config_files
from fleet.config.settings import FleetSettings
from fleet.desk.planning import PlanningDesk, request_key
from fleet.desk.projects import ProjectDesk
from fleet.kernel.errors import InvalidInput, StoreUnavailable
from fleet.kernel.ids import StoryId
from fleet.planning.coach_config import CoachConfig
from fleet.planning.discovery import DiscoveryProposal, discover
from fleet.planning.project_state import DEFAULT_PROJECT, Discovery
from fleet.wiring.desk.desk import open_desk
from fleet.wiring.desk.projects import open_project_desk
from fleet.wiring.endpoints import Endpoints

AGREED = "the criteria were shown and agreed to at the terminal"
_PATIENCE_S = 300.0
"""How long a proposal may take: a model, and one repair."""


def prepare(settings: FleetSettings, options: RunOptions, output: Output) -> None:
    """A new folder is a repository without a file. Nothing is made for a goal that names nothing to build (PL-54)."""
    from fleet.forge.local.begin import begin_repository, is_unused

    assert options.goal is not None
    folder = local_folder(options)
    is_new = folder is not None and is_unused(folder)
    if not is_new:
        check_repo(options.repo)
    coach = config_files(settings).load("coach.yaml", CoachConfig)
    discover(options.goal, language="en", is_empty=True, config=coach)
    parse_answers(options.answers)
    if folder is not None and is_new:
        word = "is empty" if folder.exists() else "is not there yet"
        output.note(f"[yellow]warning[/] {shown(f'{folder.resolve()} {word}')}: a repository is begun in it")
        folder.mkdir(parents=True, exist_ok=True)
        begin_repository(folder, at_s=int(time.time()))


def run_goal(settings: FleetSettings, options: RunOptions, output: Output) -> int:
    """Runs the stories of the goal to their ends or to a gate; the exit code says which."""
    read_story(options.story, options.goal, rigor=options.rigor)
    check_options(settings, options)
    prepare(settings, options, output)
    check_repo(options.repo)
    show_start(settings, options, output)
    return asyncio.run(_run_goal(settings, options, output))


async def _run_goal(settings: FleetSettings, options: RunOptions, output: Output) -> int:
    """The goal is a proposal that waits for a person, or its stories were run as far as they go.

    Asked again for the same goal and repository it goes on where it stands.
    """
    async with (
        running_fleet(settings, options, output) as endpoints,
        open_desk(endpoints) as desk,
        open_project_desk(endpoints, desk) as projects,
    ):
        discovery, proposal = await asked(projects, options)
        if discovery.status == "proposed":
            show_proposal(output, discovery, proposal)
        agreed = None
        if discovery.status == "proposed" and "po" in options.delegate and not _needed(proposal):
            discovery = await accept_proposal(projects, discovery, rigor=options.rigor)
        elif discovery.status == "proposed" and output.asks:
            discovery, agreed = await agreed_here(projects, discovery, proposal, options, output)
        if discovery.status != "accepted":
            return _waits(*await projects.discovery(DEFAULT_PROJECT, discovery.discovery_id), output)
        return await _run_stories(
            desk, projects, endpoints, discovery, options, output, agreed={"approve_scope": agreed} if agreed else {}
        )


async def agreed_here(
    projects: ProjectDesk, discovery: Discovery, proposal: DiscoveryProposal, options: RunOptions, output: Output
) -> tuple[Discovery, str | None]:
    """The discovery after the user at the terminal was asked, and the note of a yes: then its stories are there."""
    answered = await _answered_here(projects, discovery, proposal, output)
    if _needed(answered) or (await output.ask("Build this? (y/N)")).casefold() not in ("y", "yes"):
        return (await projects.discovery(DEFAULT_PROJECT, discovery.discovery_id))[0], None
    return await accept_proposal(projects, discovery, rigor=options.rigor, note=AGREED), AGREED


async def _answered_here(
    projects: ProjectDesk, discovery: Discovery, proposal: DiscoveryProposal, output: Output
) -> DiscoveryProposal:
    """The proposal with what the user at the terminal answers; a question that gets no answer stays open."""
    discovery_id = discovery.discovery_id
    for question in proposal.unanswered:
        while text := await output.ask(f"{shown(question.text)} (empty leaves it open)"):
            try:
                await answer_questions(projects, discovery_id, {question.question_id: text})
            except InvalidInput as error:
                output.note(f"[yellow]warning[/] {shown(error.message)}")
                continue
            break
    after, answered = await projects.discovery(DEFAULT_PROJECT, discovery_id)
    if answered != proposal:
        show_proposal(output, after, answered)
    return answered


async def asked(projects: ProjectDesk, options: RunOptions) -> tuple[Discovery, DiscoveryProposal]:
    """The proposal for the goal, with the answers that were given along. A rejected one is followed by a new one."""
    assert options.goal is not None
    repo = named_repo(options)
    discovery_id = await request_proposal(projects, options.goal, repo, is_empty=_is_new(options), model=options.model)
    discovery, proposal = await _decided(projects, discovery_id)
    open_ids = {q.question_id for q in proposal.unanswered}
    answered = {q.question_id for q in proposal.questions} - open_ids
    given = {name: text for name, text in parse_answers(options.answers).items() if name not in answered}
    if discovery.status == "proposed" and given:
        await answer_questions(projects, discovery_id, given)
        return await projects.discovery(DEFAULT_PROJECT, discovery_id)
    return discovery, proposal


def _is_new(options: RunOptions) -> bool:
    from fleet.forge.local.begin import is_unused

    folder = local_folder(options)
    return folder is not None and is_unused(folder)


async def _decided(projects: ProjectDesk, discovery_id: str) -> tuple[Discovery, DiscoveryProposal]:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        discovery, proposal = await projects.discovery(DEFAULT_PROJECT, discovery_id)
        if discovery.status != "requested":
            return discovery, proposal
        if time.monotonic() >= deadline:
            raise StoreUnavailable(f"no proposal came within {_PATIENCE_S:g} s; the same command waits on for it")
        await asyncio.sleep(0.5)


def _needed(proposal: DiscoveryProposal) -> list[str]:
    """Questions whose placeholder stands in a story as long as nobody answers them."""
    return [q.question_id for q in proposal.unanswered if q.placeholder is not None]


def _waits(discovery: Discovery, proposal: DiscoveryProposal, output: Output) -> int:
    needed = _needed(proposal)
    if needed:
        output.say(
            f"answer with --answer {needed[0]}=TEXT ..., or `fleet discovery answer {discovery.discovery_id} ...`"
        )
    accept = f"`fleet discovery accept {discovery.discovery_id}`"
    output.say(f"nothing is created until the proposal is accepted: --yes po, or {accept}")
    output.result({"discovery_id": discovery.discovery_id, "outcome": "proposed", "questions": needed, "stories": []})
    return WAITING


async def _run_stories(
    desk: PlanningDesk,
    projects: ProjectDesk,
    endpoints: Endpoints,
    discovery: Discovery,
    options: RunOptions,
    output: Output,
    *,
    agreed: Mapping[str, str],
) -> int:
    """Each story begins at the branch of the one before it. The first that does not come to its end ends the run."""
    summary: dict[str, Any] = {"discovery_id": discovery.discovery_id, "epic_id": discovery.epic_id}
    quiet, results = _Kept(as_json=output.as_json), list[dict[str, Any]]()
    code, ref = DONE, None
    for story_id in map(StoryId, discovery.story_ids):
        state = await desk.state(story_id)
        output.note(f"[bold]{shown(story_id)}[/]: {shown(state.content.title)}")
        if not state.closed:
            if state.start is None:
                start = start_command(options, ref=ref)
                key = request_key(f"{story_id}/start", start.body())
                await desk.require(story_id, start, principal=local_principal(), key=key)
            since = time.monotonic()
            code = await watch_to_end(
                desk, endpoints, story_id, quiet, after=state.version, started=since, agreed=agreed
            )
            results.append(quiet.kept)
        if code != DONE:
            left = len(discovery.story_ids) - discovery.story_ids.index(story_id) - 1
            if left:
                output.say(f"{left} more stories wait for {story_id}; the same command goes on once it is done")
            break
        ref = f"fleet/{story_id}"
    outcome = "done" if code == DONE else "waiting"
    output.result({**summary, "outcome": outcome, "story_ids": list(discovery.story_ids), "stories": results})
    return code


class _Kept(Output):
    """Prints like any other, and keeps the result of a story for that of the whole."""

    kept: dict[str, Any]

    def result(self, value: dict[str, Any]) -> None:
        """The result is kept."""
        self.kept = value
