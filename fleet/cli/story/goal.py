"""`fleet run --goal`: from one line to stories, and then one story after the other (PL-54)."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from fleet.cli.exit_codes import DONE, WAITING
from fleet.cli.local.local_principals import local_principal
from fleet.cli.output import Output, shown
from fleet.cli.project.proposals import parse_answers, show_proposal
from fleet.cli.story.run import running_fleet, watch_to_end
from fleet.cli.story.run_options import RunOptions, check_options, check_repo, named_repo, start_command
from fleet.cli.story.story_file import read_story
from fleet.config.environment import config_files
from fleet.config.settings import FleetSettings
from fleet.desk.planning import PlanningDesk, request_key
from fleet.desk.projects import ProjectDesk
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import StoreUnavailable
from fleet.kernel.ids import StoryId, derive_id
from fleet.planning.coach_config import CoachConfig
from fleet.planning.discovery import DiscoveryProposal, discover
from fleet.planning.project_state import DEFAULT_PROJECT, Discovery
from fleet.policy.commands.git import git_address
from fleet.wiring.desk.desk import open_desk
from fleet.wiring.desk.projects import open_project_desk
from fleet.wiring.endpoints import Endpoints

_PATIENCE_S = 300.0
"""How long a proposal may take: a model, and one repair."""


def prepare(settings: FleetSettings, options: RunOptions) -> None:
    """A new folder is a repository without a file. Nothing is made for a goal that names nothing to build (PL-54)."""
    from fleet.forge.local.begin import begin_repository, is_unused

    assert options.goal is not None
    coach = config_files(settings).load("coach.yaml", CoachConfig)
    discover(options.goal, language="en", is_empty=True, config=coach)
    parse_answers(options.answers)
    if git_address(options.repo) is None and is_unused(Path(options.repo)):
        Path(options.repo).mkdir(parents=True, exist_ok=True)
        begin_repository(Path(options.repo), at_s=int(time.time()))


def run_goal(settings: FleetSettings, options: RunOptions, output: Output) -> int:
    """Runs the stories of the goal to their ends or to a gate; the exit code says which."""
    read_story(options.story, options.goal, rigor=options.rigor)
    check_options(settings, options)
    prepare(settings, options)
    check_repo(options.repo)
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
        found, proposal = await asked(projects, options)
        if found.status == "proposed":
            show_proposal(output, found, proposal)
        if found.status == "proposed" and "po" in options.delegate and not _needed(proposal):
            found = await accepted(projects, found, rigor=options.rigor)
        if found.status != "accepted":
            return _waits(found, proposal, output)
        return await _run_stories(desk, projects, endpoints, found, options, output)


async def asked(projects: ProjectDesk, options: RunOptions) -> tuple[Discovery, DiscoveryProposal]:
    """The proposal for the goal, with the answers that were given along. A rejected one is followed by a new one."""
    discovery_id = await _requested(projects, options)
    found, proposal = await _decided(projects, discovery_id)
    open_ids = {q.question_id for q in proposal.unanswered}
    known = {q.question_id for q in proposal.questions} - open_ids
    given = {name: text for name, text in parse_answers(options.answers).items() if name not in known}
    if found.status == "proposed" and given:
        body = {"discovery_id": discovery_id, "answers": given}
        key = f"{discovery_id}/answer-{digest_of_json(given).hex[:12]}"
        await projects.require(DEFAULT_PROJECT, "answer_discovery", body, principal=local_principal(), key=key)
        return await projects.discovery(DEFAULT_PROJECT, discovery_id)
    return found, proposal


async def _requested(projects: ProjectDesk, options: RunOptions) -> str:
    """The discovery of this goal for this repository that was not rejected; it is asked for where there is none."""
    who, repo = local_principal(), named_repo(options)
    stem = f"discover-{digest_of_json([options.goal, repo]).hex[:16]}"
    known = (await projects.project(DEFAULT_PROJECT)).discoveries
    attempt = 1
    while True:
        key = f"{stem}-{attempt}"
        discovery_id = derive_id("di", f"project:{DEFAULT_PROJECT}", f"{who}/{key}")
        if discovery_id not in known:
            break
        if known[discovery_id].status != "rejected":
            return discovery_id
        attempt += 1
    body: dict[str, Any] = {"goal": options.goal, "is_empty": _is_new(options)}
    body |= {"model": options.model} if options.model else {}
    made = await projects.require(DEFAULT_PROJECT, "discover", body, principal=who, key=key)
    return str(made["discovery_id"])


def _is_new(options: RunOptions) -> bool:
    from fleet.forge.local.begin import is_unused

    return git_address(options.repo) is None and is_unused(Path(options.repo))


async def _decided(projects: ProjectDesk, discovery_id: str) -> tuple[Discovery, DiscoveryProposal]:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        found, proposal = await projects.discovery(DEFAULT_PROJECT, discovery_id)
        if found.status != "requested":
            return found, proposal
        if time.monotonic() >= deadline:
            raise StoreUnavailable(f"no proposal came within {_PATIENCE_S:g} s; the same command waits on for it")
        await asyncio.sleep(0.5)


def _needed(proposal: DiscoveryProposal) -> list[str]:
    """Questions whose placeholder stands in a story as long as nobody answers them."""
    return [q.question_id for q in proposal.unanswered if q.placeholder is not None]


async def accepted(projects: ProjectDesk, found: Discovery, *, rigor: str | None = None, note: str = "") -> Discovery:
    """The proposal is taken, and each of its stories is there."""
    who = local_principal()
    body = {"discovery_id": found.discovery_id, "note": note or "accepted beforehand with --yes po"}
    body |= {"rigor": rigor} if rigor else {}
    key = request_key(f"{found.discovery_id}/accept", {**body, "proposal": found.proposal_digest})
    await projects.require(DEFAULT_PROJECT, "accept_discovery", body, principal=who, key=key)
    after, _ = await projects.discovery(DEFAULT_PROJECT, found.discovery_id)
    for story_id in after.story_ids:
        await projects.require_story(who, StoryId(story_id))
    return after


def _waits(found: Discovery, proposal: DiscoveryProposal, output: Output) -> int:
    needed = _needed(proposal)
    if needed:
        output.say(f"answer with --answer {needed[0]}=TEXT ..., or `fleet discovery answer {found.discovery_id} ...`")
    accept = f"`fleet discovery accept {found.discovery_id}`"
    output.say(f"nothing is created until the proposal is accepted: --yes po, or {accept}")
    output.result({"discovery_id": found.discovery_id, "outcome": "proposed", "questions": needed, "stories": []})
    return WAITING


async def _run_stories(
    desk: PlanningDesk,
    projects: ProjectDesk,
    endpoints: Endpoints,
    found: Discovery,
    options: RunOptions,
    output: Output,
) -> int:
    """Each story begins at the branch of the one before it. The first that does not come to its end ends the run."""
    summary: dict[str, Any] = {"discovery_id": found.discovery_id, "epic_id": found.epic_id}
    quiet, results = _Kept(as_json=output.as_json), list[dict[str, Any]]()
    code, ref = DONE, None
    for story_id in map(StoryId, found.story_ids):
        state = await desk.state(story_id)
        output.note(f"[bold]{shown(story_id)}[/]: {shown(state.content.title)}")
        if not state.closed:
            if state.start is None:
                start = start_command(options, ref=ref)
                key = request_key(f"{story_id}/start", start.body())
                await desk.require(story_id, start, principal=local_principal(), key=key)
            code = await watch_to_end(desk, endpoints, story_id, quiet, after=state.version, started=time.monotonic())
            results.append(quiet.kept)
        if code != DONE:
            left = len(found.story_ids) - found.story_ids.index(story_id) - 1
            output.say(f"{left} more stories wait for {story_id}; the same command goes on once it is done")
            break
        ref = f"fleet/{story_id}"
    outcome = "done" if code == DONE else "waiting"
    output.result({**summary, "outcome": outcome, "story_ids": list(found.story_ids), "stories": results})
    return code


class _Kept(Output):
    """Prints like any other, and keeps the result of a story for that of the whole."""

    kept: dict[str, Any]

    def result(self, value: dict[str, Any]) -> None:
        """The result is kept."""
        self.kept = value
