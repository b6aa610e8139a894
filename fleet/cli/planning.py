"""What a product owner does from the command line: the coach on a file or a line, and the way back of a story."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from fleet.cli.exit_codes import DONE
from fleet.cli.local_principals import local_principal
from fleet.cli.output import Output, shown
from fleet.cli.settings import settings
from fleet.cli.stories import with_desk
from fleet.cli.story_file import read_story
from fleet.config import ConfigFiles, packaged_directory
from fleet.ids import StoryId
from fleet.planning import CoachConfig
from fleet.rigor import RigorConfig
from fleet.services.coach_desk import CoachDesk
from fleet.services.planning_desk import PlanningDesk
from fleet.story import parse
from fleet.wiring import Endpoints

__all__ = ["cancel", "pause", "refine_file", "score_file", "send_back", "suggest", "unpause"]


def _coach() -> CoachDesk:
    files = ConfigFiles(packaged_directory(), settings().config)
    return CoachDesk(files.load("coach.yaml", CoachConfig), files.load("rigor.yaml", RigorConfig))


def score_file(output: Output, path: Path) -> int:
    """The readiness score of a story file is printed, with a finding for each lost point; nothing is recorded."""
    text = parse(read_story(path, None))
    found = _coach().score(
        text.title, text.description, text.acceptance_criteria, language=text.language, rigor=text.rigor
    )
    is_ready = "ready" if found.dor_ok else "not ready"
    output.say(f"readiness score {found.score}, {found.threshold} needed at {text.rigor}: {is_ready}")
    for finding in found.findings:
        output.say(
            f"  {finding.code} -{finding.points_lost}: {shown(finding.message)}\n    {shown(finding.suggestion)}"
        )
    output.result(found.model_dump(mode="json"))
    return DONE


def refine_file(output: Output, path: Path) -> int:
    """The story file with the coach's proposals is printed; every word of it stays."""
    text = parse(read_story(path, None))
    found = _coach().refine(text.title, text.description, text.acceptance_criteria, language=text.language)
    for change in found.changes:
        output.say(f"  {change.kind:<9} {change.field}: {shown(change.text)}")
    if not found.changes:
        output.say("the coach proposes nothing")
    output.result(found.model_dump(mode="json"))
    return DONE


def suggest(output: Output, goal: str, *, language: str) -> int:
    """A story from a one-line goal is printed, with a question for everything that it does not say."""
    found = _coach().suggest(goal, language=language)
    output.say(f"title: {shown(found.title)}\ndescription: {shown(found.description)}\nacceptance_criteria:")
    for criterion in found.acceptance_criteria:
        output.say(f"  - {shown(criterion)}")
    for question in found.questions:
        output.say(f"  ? {shown(question)}")
    output.result(found.model_dump(mode="json"))
    return DONE


def send_back(output: Output, story_id: str, event: str, *, reason: str) -> int:
    """The story is in an earlier state again, with the reason."""
    return _sent(output, story_id, "transition", {"event": event, "reason": reason}, said=event)


def pause(output: Output, story_id: str, *, reason: str) -> int:
    """No step of the story starts from here on."""
    return _sent(output, story_id, "pause_story", {"reason": reason}, said="paused")


def unpause(output: Output, story_id: str, *, note: str) -> int:
    """The paused story goes on."""
    return _sent(output, story_id, "resume_story", {"note": note}, said="goes on")


def cancel(output: Output, story_id: str, *, reason: str) -> int:
    """The story is given up; its running steps are ended."""
    return _sent(output, story_id, "cancel", {"reason": reason}, said="cancelled")


def _sent(output: Output, story_id: str, name: str, body: dict[str, Any], *, said: str) -> int:
    async def work(desk: PlanningDesk, _: Endpoints) -> int:
        key = f"{story_id}/{name}/{secrets.token_hex(8)}"
        result = await desk.require(StoryId(story_id), name, body, principal=local_principal(), key=key)
        output.say(f"{said}; story {story_id} is in state {result['state']}")
        output.result(result)
        return DONE

    return with_desk(work)
