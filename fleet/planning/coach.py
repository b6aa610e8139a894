"""The readiness score of a story: every lost point is explained by one finding (SC-1..SC-32)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fleet.kernel.ids import Digest
from fleet.kernel.types import Frozen
from fleet.planning.coach_config import CoachConfig, LanguageBlock
from fleet.planning.content import check_content, content_digest
from fleet.planning.phrases import (
    Hit,
    Prepared,
    count_words,
    find_at_clause_starts,
    find_markers,
    find_phrases,
    has_outcome,
    has_placeholder,
    has_scenario,
    is_negated,
    is_open,
    prepare,
)

FindingCode = Literal[
    "AC_MISSING",
    "AC_NO_GHERKIN",
    "NOT_INDEPENDENT",
    "NOT_NEGOTIABLE",
    "VALUE_UNCLEAR",
    "AMBIGUOUS",
    "DESC_MISSING",
    "TOO_LARGE",
    "NOT_TESTABLE",
    "TITLE_LENGTH",
]
CoachDimension = Literal[
    "acceptance_criteria", "independent", "negotiable", "valuable", "estimable", "small", "testable", "clarity"
]
WordClass = Literal["given", "when", "then", "role", "benefit", "dependency", "negation", "ambiguity", "prescribed"]
NO_TEXT = "no_text"

_LONG_CODE = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_DEFINITION = re.compile(
    r"\b(?:CREATE|ALTER)\s+TABLE\b|\b\w+\s+(?:VARCHAR|NVARCHAR|BIGINT|INTEGER|TIMESTAMP|JSONB)\b(?:\s*\(\d+\))?"
)


# Source: SC-2.
class CoachFinding(Frozen):
    """One reason for lost points. `span` is in the NFC text of `field`; several matches are joined by commas."""

    code: FindingCode
    dimension: CoachDimension
    points_lost: int
    field: str
    """`title`, `description`, `acceptance_criteria`, `acceptance_criteria/<index>` or `dependencies`."""
    span: tuple[int, int] | None
    matched: str | None
    message: str
    suggestion: str


# Source: SC-1.
class StoryScore(Frozen):
    """How ready a story is: `score` = 100 - what the findings lost."""

    score: int
    threshold: int
    dor_ok: bool
    findings: tuple[CoachFinding, ...]
    content_digest: Digest
    scorer_version: int


@dataclass(frozen=True, slots=True)
class Reading:
    """A story prepared for matching, with the word lists of its language and English (SC-20)."""

    title: Prepared
    description: Prepared
    criteria: tuple[tuple[int, Prepared], ...]
    """Index in the story and text of each criterion that is not blank (SC-19)."""
    blocks: tuple[LanguageBlock, ...]
    config: CoachConfig

    @classmethod
    def of(
        cls, title: str, description: str, criteria: Sequence[str], *, language: str, config: CoachConfig
    ) -> Reading:
        """The reading of these texts; InvalidInput for a language that is not configured."""
        kept = tuple((i, prepare(text)) for i, text in enumerate(criteria) if text.strip())
        return cls(prepare(title), prepare(description), kept, config.words(language), config)

    def words(self, name: WordClass) -> tuple[str, ...]:
        """The phrases of one class."""
        return tuple(p for block in self.blocks for p in _class_of(block, name))

    @property
    def solid_criteria(self) -> list[Prepared]:
        """The criteria without placeholders; the others earn nothing (SC-27)."""
        return [text for _, text in self.criteria if not has_placeholder(text)]

    @property
    def is_empty(self) -> bool:
        """True when title and description hold too few words to judge (SC-18)."""
        return count_words(self.title.text) + count_words(self.description.text) < self.config.limits.min_words

    def head(self) -> Iterator[tuple[str, Prepared]]:
        """Title and description, each with its field name."""
        yield "title", self.title
        yield "description", self.description

    def fields(self) -> Iterator[tuple[str, Prepared]]:
        """All texts, each with its field name."""
        yield from self.head()
        for i, text in self.criteria:
            yield f"acceptance_criteria/{i}", text

    def scenario_in(self, criteria: Sequence[Prepared]) -> bool:
        """True when these criteria hold a Given/When/Then scenario (SC-22)."""
        return has_scenario(criteria, given=self.words("given"), when=self.words("when"), then=self.words("then"))

    def ambiguities(self, text: Prepared) -> list[Hit]:
        """Ambiguity words and markers, from left to right, none inside another (SC-25)."""
        hits = sorted({*find_phrases(text, self.words("ambiguity")), *find_markers(text)})
        kept: list[Hit] = []
        for hit in hits:
            if not kept or hit.start >= kept[-1].end:
                kept.append(hit)
        return kept


def score_story(
    title: str,
    description: str,
    acceptance_criteria: Sequence[str],
    *,
    language: str,
    threshold: int,
    config: CoachConfig,
    constraints: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
    dependencies: Sequence[str] = (),
) -> StoryScore:
    """The readiness score of this content, a pure function of content, language and config (SC-1).

    Args:
        threshold: `dor_min` of the story's rigor level (SC-30).
        constraints, tags: only part of the content digest.
        dependencies: stories that this one is declared to depend on (SC-11).

    Raises:
        InvalidInput: a language that is not configured, or a text over the limits of GL-14.
    """
    check_content(title, description, acceptance_criteria, tags=tags)
    reading = Reading.of(title, description, acceptance_criteria, language=language, config=config)
    findings = tuple(_findings(reading, dependencies))
    score = 100 - sum(f.points_lost for f in findings)
    return StoryScore(
        score=score,
        threshold=threshold,
        dor_ok=score >= threshold,
        findings=findings,
        content_digest=content_digest(title, description, acceptance_criteria, constraints or {}, tags),
        scorer_version=config.scorer_version,
    )


def _class_of(block: LanguageBlock, name: WordClass) -> tuple[str, ...]:
    words: tuple[str, ...] = getattr(block, name)
    return words


def _findings(reading: Reading, dependencies: Sequence[str]) -> Iterator[CoachFinding]:
    yield from _acceptance(reading)
    yield from _independent(reading, dependencies)
    yield from _negotiable(reading)
    yield from _valuable(reading)
    yield from _estimable(reading)
    yield from _small(reading)
    yield from _testable(reading)
    yield from _clarity(reading)


def _acceptance(reading: Reading) -> Iterator[CoachFinding]:
    weights = reading.config.weights
    if not reading.criteria:
        yield _finding(
            "AC_MISSING",
            "acceptance_criteria",
            weights.acceptance_criteria,
            "acceptance_criteria",
            "The story has no acceptance criterion.",
            "How will you know that it works? Add one as Given ..., when ..., then ...",
        )
    elif not reading.scenario_in(reading.solid_criteria):
        yield _finding(
            "AC_NO_GHERKIN",
            "acceptance_criteria",
            reading.config.no_scenario,
            "acceptance_criteria",
            "No acceptance criterion is a complete Given/When/Then scenario without placeholders.",
            "Which situation, which action and which outcome? Write one as Given ..., when ..., then ...",
        )


def _independent(reading: Reading, dependencies: Sequence[str]) -> Iterator[CoachFinding]:
    field, span, matched = "description", None, NO_TEXT
    if dependencies:
        field, matched = "dependencies", ", ".join(dependencies)
    elif dependency := _dependency(reading):
        field, hit = dependency
        span, matched = (hit.start, hit.end), hit.text
    elif not reading.is_empty:
        return
    yield CoachFinding(
        code="NOT_INDEPENDENT",
        dimension="independent",
        points_lost=reading.config.weights.independent,
        field=field,
        span=span,
        matched=matched,
        message="The story is not shown to stand on its own.",
        suggestion="What can be delivered without waiting for other work?",
    )


def _dependency(reading: Reading) -> tuple[str, Hit] | None:
    reach, negation = reading.config.limits.negation_reach, reading.words("negation")
    for field, text in reading.head():
        for hit in find_phrases(text, reading.words("dependency")):
            if not is_negated(text, hit, negation, reach=reach):
                return field, hit
    return None


def _negotiable(reading: Reading) -> Iterator[CoachFinding]:
    hits = [(f, h) for f, t in reading.head() for h in _prescriptions(reading, t)]
    if hits:
        yield _listed(
            "NOT_NEGOTIABLE",
            "negotiable",
            reading.config.weights.negotiable,
            hits,
            "The story prescribes how it is to be built.",
            "Which of these choices must really be made now?",
        )


def _prescriptions(reading: Reading, text: Prepared) -> list[Hit]:
    hits = find_phrases(text, reading.words("prescribed"))
    for block in _LONG_CODE.finditer(text.text):
        if block.group(1).rstrip("\n").count("\n") + 1 > reading.config.limits.code_block_lines:
            hits.append(Hit(block.start(), block.end(), "code block"))
    hits += [Hit(m.start(), m.end(), m.group()) for m in _DEFINITION.finditer(text.text)]
    return sorted(hits)


def _valuable(reading: Reading) -> Iterator[CoachFinding]:
    for _, text in reading.head():
        hits = [*find_at_clause_starts(text, reading.words("role")), *find_phrases(text, reading.words("benefit"))]
        if any(not is_open(text, h) for h in hits):
            return
    yield _finding(
        "VALUE_UNCLEAR",
        "valuable",
        reading.config.weights.valuable,
        "description",
        "Neither a role nor a benefit is named.",
        "Who needs this, and what for? Write: As a ..., I want ... so that ...",
    )


def _estimable(reading: Reading) -> Iterator[CoachFinding]:
    hits = [(f, h) for f, t in reading.fields() for h in reading.ambiguities(t)]
    points = reading.config.weights.estimable
    message, suggestion = "Some of the text leaves open what is meant.", "What exactly is meant there?"
    if hits:
        yield _listed("AMBIGUOUS", "estimable", points, hits, message, suggestion)
    elif reading.is_empty:
        lost = _finding("AMBIGUOUS", "estimable", points, "description", message, suggestion)
        yield lost.model_copy(update={"matched": NO_TEXT})


def _small(reading: Reading) -> Iterator[CoachFinding]:
    length, limit = len(reading.description.text.strip()), reading.config.limits.description_below
    points = reading.config.weights.small
    if length == 0:
        message, ask = "The description is empty.", "What is wanted, in two or three sentences?"
        yield _finding("DESC_MISSING", "small", points, "description", message, ask)
    elif length >= limit:
        message = f"The description has {length} characters; a small story needs fewer than {limit}."
        yield _finding("TOO_LARGE", "small", points, "description", message, "Which part can be a story of its own?")


def _testable(reading: Reading) -> Iterator[CoachFinding]:
    then, words = reading.words("then"), reading.config.limits.outcome_words
    if not any(has_outcome(text, then, words=words) for text in reading.solid_criteria):
        yield _finding(
            "NOT_TESTABLE",
            "testable",
            reading.config.weights.testable,
            "acceptance_criteria",
            "No acceptance criterion says what can be observed.",
            "What can be seen or measured afterwards? Write it after then.",
        )


def _clarity(reading: Reading) -> Iterator[CoachFinding]:
    limits, length = reading.config.limits, len(reading.title.text.strip())
    if not limits.title_above < length < limits.title_below:
        yield _finding(
            "TITLE_LENGTH",
            "clarity",
            reading.config.weights.clarity,
            "title",
            f"The title has {length} character{'' if length == 1 else 's'}; it needs more than {limits.title_above} "
            f"and fewer than {limits.title_below}.",
            "Which title says what the story gives, in one line?",
        )


def _finding(
    code: FindingCode, dimension: CoachDimension, points: int, field: str, message: str, suggestion: str
) -> CoachFinding:
    return CoachFinding(
        code=code,
        dimension=dimension,
        points_lost=points,
        field=field,
        span=None,
        matched=None,
        message=message,
        suggestion=suggestion,
    )


def _listed(
    code: FindingCode,
    dimension: CoachDimension,
    points: int,
    hits: Sequence[tuple[str, Hit]],
    message: str,
    suggestion: str,
) -> CoachFinding:
    """One finding for all matches: it points at the first and names every one."""
    field, first = hits[0]
    matched = ", ".join(dict.fromkeys(h.text for _, h in hits))
    base = _finding(code, dimension, points, field, f"{message} Found: {matched}.", suggestion)
    return base.model_copy(update={"span": (first.start, first.end), "matched": matched})


ProblemCode = Literal[
    "reply",
    "task_count",
    "task_title",
    "task_description",
    "task_role",
    "task_kind",
    "task_hours",
    "task_priority",
    "task_keywords",
    "task_dependency",
    "task_trace",
    "task_paths",
    "ac_uncovered",
    "plan_cycle",
]
"""PL-13, PL-20, PL-30; `reply`: the answer is not of the asked form at all."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong and where; `message` is sent back to the planner as it is (PL-21)."""

    code: ProblemCode
    message: str
    task_index: int | None = None
    """Index of the task in the answer, None when it is about the whole plan."""
    ids: tuple[str, ...] = ()
    """The tasks or criteria it names."""
