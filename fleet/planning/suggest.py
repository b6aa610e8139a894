"""A story from a one-line goal, with every unknown kept as a placeholder and asked for (SC-50, SC-51)."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

from fleet.kernel.errors import InvalidInput
from fleet.kernel.types import Frozen
from fleet.planning.coach_config import CoachConfig, LanguageBlock

MIN_GOAL, MAX_GOAL = 5, 300
_PLACEHOLDER = re.compile(r"<([^<>\n]{1,60})>")


class StorySuggestion(Frozen):
    """A proposed story; nothing is stored until somebody creates it."""

    title: str
    description: str
    acceptance_criteria: tuple[str, ...]
    questions: tuple[str, ...]
    source: Literal["template"] = "template"


def suggest_story(goal: str, *, language: str, config: CoachConfig) -> StorySuggestion:
    """The template story of a goal: the goal's words unchanged, one scenario, one question per placeholder.

    Raises:
        InvalidInput: an empty, over-long or multi-line goal, or a language that is not configured.
    """
    block, text = config.language(language), check_goal(goal)
    title = block.templates.title.replace("{title}", text)
    if len(title) >= config.limits.title_below:
        title = block.templates.short_title
    scenario = block.templates.scenario
    return StorySuggestion(
        title=title,
        description=text,
        acceptance_criteria=(scenario,),
        questions=_questions(block, title, text, scenario),
    )


def check_goal(goal: str) -> str:
    """The goal in NFC without space around it; InvalidInput for one that is empty, over-long or of several lines."""
    text = unicodedata.normalize("NFC", goal.strip())
    if not MIN_GOAL <= len(text) <= MAX_GOAL:
        reason = f"has {len(text)} characters; it needs {MIN_GOAL} to {MAX_GOAL}"
    elif len(text.splitlines()) > 1:
        reason = "has several lines; write one"
    elif any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
        reason = "holds a control character; remove it"
    else:
        return text
    raise InvalidInput(f"the goal {reason}", field="goal", value=text[:100])


def _questions(block: LanguageBlock, *texts: str) -> tuple[str, ...]:
    names = dict.fromkeys(name for text in texts for name in _PLACEHOLDER.findall(text))
    return tuple(block.questions.get(name, f"<{name}>?") for name in names)
