"""The story coach's data: weights, limits, word lists and templates (SC-1, SC-28). Shipped: config/coach.yaml."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, model_validator

from fleet.kernel.errors import InvalidInput
from fleet.kernel.types import Frozen

_PLACEHOLDER = re.compile(r"<([^<>\n]{1,60})>")


Points = Annotated[int, Field(strict=True, ge=0, le=100)]
Length = Annotated[int, Field(strict=True, ge=1)]
Phrase = Annotated[str, Field(min_length=1, pattern=r"\S")]
Phrases = Annotated[tuple[Phrase, ...], Field(min_length=1)]


class CoachWeights(Frozen):
    """Points of 100 per dimension."""

    acceptance_criteria: Points
    independent: Points
    negotiable: Points
    valuable: Points
    estimable: Points
    small: Points
    testable: Points
    clarity: Points

    @model_validator(mode="after")
    def _sum_is_100(self) -> Self:
        total = sum(self.model_dump().values())
        if total != 100:
            raise ValueError(f"the weights sum to {total}; they must sum to 100")
        return self


class CoachLimits(Frozen):
    """Lengths in characters after NFC and trimming, reaches in words."""

    description_below: Length
    title_above: Length
    title_below: Length
    min_words: Length
    """Words of title and description below which nothing is there to judge (SC-18)."""
    negation_reach: Length
    outcome_words: Length
    code_block_lines: Length


class StoryTemplates(Frozen):
    """Texts with `<placeholders>`, in one language."""

    title: Annotated[str, Field(pattern=r"^[^{}]*\{title\}[^{}]*$")]
    """`{title}` stands for the user's own words."""
    short_title: str
    """For a goal that is too long for a title."""
    scenario: str


class LanguageBlock(Frozen):
    """Word lists, templates and questions of one language; phrases are matched as whole words (SC-20)."""

    given: Phrases
    when: Phrases
    then: Phrases
    role: Phrases
    benefit: Phrases
    dependency: Phrases
    negation: Phrases
    """A leading `*` stands for any beginning of the word."""
    ambiguity: Phrases
    prescribed: Phrases
    """`...` stands for one to four words (SC-24)."""
    templates: StoryTemplates
    questions: dict[str, str]
    """Placeholder of a template -> what to ask for it."""

    @model_validator(mode="after")
    def _every_placeholder_has_a_question(self) -> Self:
        texts = (self.templates.title, self.templates.short_title, self.templates.scenario)
        if missing := sorted({p for t in texts for p in _PLACEHOLDER.findall(t)} - set(self.questions)):
            raise ValueError(f"questions lacks {missing}")
        return self


class CoachConfig(Frozen):
    """config/coach.yaml."""

    scorer_version: Annotated[int, Field(strict=True, ge=1)]
    weights: CoachWeights
    no_scenario: Points
    """Points lost when there are acceptance criteria but no scenario (SC-10)."""
    limits: CoachLimits
    languages: dict[str, LanguageBlock]

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if "en" not in self.languages:
            raise ValueError("languages lacks en: every story is matched in English too")
        if self.no_scenario > self.weights.acceptance_criteria:
            raise ValueError("no_scenario is more than weights.acceptance_criteria")
        return self

    def language(self, name: str) -> LanguageBlock:
        """The block of one language.

        Raises:
            InvalidInput: it is not configured; lists those that are (SC-28).
        """
        if name not in self.languages:
            configured = sorted(self.languages)
            raise InvalidInput(
                f"language {name[:40]!r} is not configured: use one of {', '.join(configured)}",
                field="language",
                value=name[:40],
                allowed=configured,
            )
        return self.languages[name]

    def words(self, name: str) -> tuple[LanguageBlock, LanguageBlock]:
        """The blocks a story in this language is matched with: its own and English (SC-20)."""
        return self.language(name), self.languages["en"]
