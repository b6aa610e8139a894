"""`fleet story score`, `refine` and `suggest`: a story file is read, and no fleet is needed."""

from __future__ import annotations

from pathlib import Path

from fleet.cli.exit_codes import DONE
from fleet.cli.output import Output, shown
from fleet.cli.settings import settings
from fleet.cli.story.story_file import read_story
from fleet.config.files import ConfigFiles, packaged_directory
from fleet.desk.coach import CoachDesk
from fleet.planning.coach_config import CoachConfig
from fleet.story.text import parse
from fleet.workspace.levels import RigorConfig


def _coach() -> CoachDesk:
    files = ConfigFiles(packaged_directory(), settings().config)
    return CoachDesk(files.load("coach.yaml", CoachConfig), files.load("rigor.yaml", RigorConfig))


def score_file(output: Output, path: Path) -> int:
    """The readiness score of a story file is printed, with a finding for each lost point; nothing is recorded."""
    text = parse(read_story(path, None))
    score = _coach().score(
        text.title, text.description, text.acceptance_criteria, language=text.language, rigor=text.rigor
    )
    is_ready = "ready" if score.dor_ok else "not ready"
    output.say(f"readiness score {score.score}, {score.threshold} needed at {text.rigor}: {is_ready}")
    for finding in score.findings:
        output.say(
            f"  {finding.code} -{finding.points_lost}: {shown(finding.message)}\n    {shown(finding.suggestion)}"
        )
    output.result(score.model_dump(mode="json"))
    return DONE


def refine_file(output: Output, path: Path) -> int:
    """The story file with the coach's proposals is printed; every word of it stays."""
    text = parse(read_story(path, None))
    refined = _coach().refine(text.title, text.description, text.acceptance_criteria, language=text.language)
    for change in refined.changes:
        output.say(f"  {change.kind:<9} {change.field}: {shown(change.text)}")
    if not refined.changes:
        output.say("the coach proposes nothing")
    output.result(refined.model_dump(mode="json"))
    return DONE


def suggest(output: Output, goal: str, *, language: str) -> int:
    """A story from a one-line goal is printed, with a question for everything that it does not say."""
    suggestion = _coach().suggest(goal, language=language)
    output.say(f"title: {shown(suggestion.title)}\ndescription: {shown(suggestion.description)}\nacceptance_criteria:")
    for criterion in suggestion.acceptance_criteria:
        output.say(f"  - {shown(criterion)}")
    for question in suggestion.questions:
        output.say(f"  ? {shown(question)}")
    output.result(suggestion.model_dump(mode="json"))
    return DONE
