"""The story coach for people: score, refine, suggest. Deterministic, with no model asked (SC-1, SC-40, SC-50)."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.kernel.errors import InvalidInput
from fleet.planning.coach import StoryScore, score_story
from fleet.planning.coach_config import CoachConfig
from fleet.planning.refine import RefinedStory, refine_story
from fleet.planning.suggest import StorySuggestion, suggest_story
from fleet.story.lifecycle import RIGORS
from fleet.workspace.levels import RigorConfig


class CoachDesk:
    """Says how ready a text is and what would make it readier; it stores nothing (SC-32)."""

    def __init__(self, coach: CoachConfig, rigor: RigorConfig) -> None:
        self._coach, self._rigor = coach, rigor

    def score(
        self, title: str, description: str, criteria: Sequence[str], *, language: str = "en", rigor: str = "L1"
    ) -> StoryScore:
        """The readiness score against the minimum of the rigor level (SC-30)."""
        for level in RIGORS:
            if level == rigor:
                threshold = self._rigor.level(level).dor_min
                return score_story(
                    title, description, criteria, language=language, threshold=threshold, config=self._coach
                )
        raise InvalidInput(f"there is no rigor level {rigor[:20]!r}", field="rigor", allowed=list(RIGORS))

    def refine(self, title: str, description: str, criteria: Sequence[str], *, language: str = "en") -> RefinedStory:
        """The text with proposals, which keeps every character of the author's in order (SC-41)."""
        return refine_story(title, description, criteria, language=language, config=self._coach)

    def suggest(self, goal: str, *, language: str = "en") -> StorySuggestion:
        """A story from a one-line goal; what is unknown stays a placeholder with a question (SC-50)."""
        return suggest_story(goal, language=language, config=self._coach)
