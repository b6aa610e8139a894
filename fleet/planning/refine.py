"""Refining a story without touching what its author wrote (SC-40..SC-43)."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fleet.kernel.errors import InvalidInput
from fleet.kernel.types import Frozen
from fleet.planning.coach import Reading, StoryScore, score_story
from fleet.planning.coach_config import CoachConfig
from fleet.planning.content import ReadableText
from fleet.planning.phrases import Hit, Prepared, find_at_clause_starts, prepare

CLARIFY = " [CLARIFY]"


class RefineChange(Frozen):
    """One proposal. `span` is in the text of `field` as it was before this change; a question changes no text."""

    field: str
    kind: Literal["wrap", "clarify", "template", "question"]
    span: tuple[int, int] | None
    text: str

    @property
    def proposal(self) -> str:
        """What it is applied by: all changes of one kind in one field are one proposal."""
        return f"{self.field}/{self.kind}"


# Source: SC-40.
class RefinedStory(Frozen):
    """What refine proposes; nothing is stored until somebody sends it as an edit."""

    title: str
    description: str
    acceptance_criteria: tuple[str, ...]
    changes: tuple[RefineChange, ...]
    score_before: int
    score_after: int


@dataclass
class _Draft:
    """A story while it is refined. A change is kept only when it leaves the score as it is (SC-42, SC-43)."""

    text: ReadableText
    language: str
    config: CoachConfig
    only: frozenset[str] | None = None
    """The proposals that are wanted; None wants all of them."""
    changes: list[RefineChange] = field(default_factory=list[RefineChange])
    refused: dict[str, RefineChange] = field(default_factory=dict[str, RefineChange])
    _points: int | None = None

    def score(self, text: ReadableText | None = None) -> StoryScore:
        title, description, criteria = text or self.text
        return score_story(title, description, criteria, language=self.language, threshold=0, config=self.config)

    @property
    def points(self) -> int:
        """The score, which no kept change moves."""
        if self._points is None:
            self._points = self.score().score
        return self._points

    def reading(self) -> Reading:
        return Reading.of(*self.text, language=self.language, config=self.config)

    def offer(self, text: ReadableText, changes: Sequence[RefineChange]) -> None:
        """Keep the new text, or remember the first change as a question."""
        if self.only is not None and changes[0].proposal not in self.only:
            return
        try:
            is_neutral = self.score(text).score == self.points
        except InvalidInput:  # over a limit of GL-14
            is_neutral = False
        if is_neutral:
            self.text = text
            self.changes += changes
        else:
            question = changes[0].model_copy(update={"kind": "question", "span": None})
            self.refused[f"{question.field}/{changes[0].kind}"] = question


def refine_story(
    title: str,
    description: str,
    acceptance_criteria: Sequence[str],
    *,
    language: str,
    config: CoachConfig,
    only: Collection[str] | None = None,
) -> RefinedStory:
    """The same story with markers, templates and questions added; refining the result changes nothing (SC-43).

    Placeholders earn nothing, so a change is applied only if it leaves the score as it is; any other becomes a
    question, among them a template for a story without a single acceptance criterion.

    Args:
        only: the proposals that are applied, by `RefineChange.proposal`; None applies all.

    Raises:
        InvalidInput: a language that is not configured, or a text over the limits of GL-14.
    """
    text = ReadableText(title, description, tuple(acceptance_criteria))
    draft = _Draft(text, language, config, only=None if only is None else frozenset(only))
    before = draft.points
    previous = None
    while previous != draft.text:
        previous = draft.text
        draft.refused.clear()
        _wrap_title(draft)
        _mark_ambiguities(draft)
        _add_template(draft)
    after = draft.score()
    questions = [RefineChange(field=f.field, kind="question", span=None, text=f.suggestion) for f in after.findings]
    return RefinedStory(
        title=draft.text.title,
        description=draft.text.description,
        acceptance_criteria=draft.text.acceptance_criteria,
        changes=(*draft.changes, *draft.refused.values(), *questions),
        score_before=before,
        score_after=after.score,
    )


def keeps_every_character(original: ReadableText, refined: ReadableText) -> bool:
    """True when title, description and each criterion are subsequences of the refined ones, in order (SC-41)."""
    added = len(refined.acceptance_criteria) - len(original.acceptance_criteria)
    pairs = [(original.title, refined.title), (original.description, refined.description)]
    pairs += zip(original.acceptance_criteria, refined.acceptance_criteria, strict=False)
    return added >= 0 and all(_is_subsequence(a, b) for a, b in pairs)


def _is_subsequence(part: str, whole: str) -> bool:
    rest = iter(whole)
    return all(c in rest for c in part)


def _wrap_title(draft: _Draft) -> None:
    reading, title = draft.reading(), draft.text.title
    has_role = any(find_at_clause_starts(text, reading.words("role")) for _, text in reading.head())
    if has_role or not title.strip() or not any(f.code == "VALUE_UNCLEAR" for f in draft.score().findings):
        return
    wrapped = draft.config.language(draft.language).templates.title.replace("{title}", title)
    change = RefineChange(field="title", kind="wrap", span=(0, len(title)), text=wrapped)
    draft.offer(draft.text._replace(title=wrapped), [change])


def _mark_ambiguities(draft: _Draft) -> None:
    reading = draft.reading()
    _mark(draft, reading, "title", draft.text.title)
    _mark(draft, reading, "description", draft.text.description)
    for i, text in enumerate(draft.text.acceptance_criteria):
        _mark(draft, reading, f"acceptance_criteria/{i}", text)


def _mark(draft: _Draft, reading: Reading, name: str, text: str) -> None:
    prepared = prepare(text)
    hits = [h for h in reading.ambiguities(prepared) if _lacks_marker(prepared, h)]
    # Positions are those of the NFC text: in any other form a marker could land inside a character.
    if not hits or not unicodedata.is_normalized("NFC", text):
        return
    changes: list[RefineChange] = []
    marked = text
    for hit in reversed(hits):
        marked = marked[: hit.end] + CLARIFY + marked[hit.end :]
        changes.append(RefineChange(field=name, kind="clarify", span=(hit.end, hit.end), text=CLARIFY))
    draft.offer(_with(draft.text, name, marked), changes)


def _lacks_marker(prepared: Prepared, hit: Hit) -> bool:
    return not hit.text.startswith("[CLARIFY") and not prepared.text[hit.end :].lstrip().startswith("[CLARIFY")


def _with(text: ReadableText, name: str, value: str) -> ReadableText:
    match name.split("/"):
        case ["title"]:
            return text._replace(title=value)
        case ["description"]:
            return text._replace(description=value)
        case _:
            criteria = list(text.acceptance_criteria)
            criteria[int(name.rsplit("/", 1)[1])] = value
            return text._replace(acceptance_criteria=tuple(criteria))


def _add_template(draft: _Draft) -> None:
    reading = draft.reading()
    # A scenario with or without placeholders: then there is one, or a template already.
    if reading.scenario_in([text for _, text in reading.criteria]):
        return
    template = draft.config.language(draft.language).templates.scenario
    name = f"acceptance_criteria/{len(draft.text.acceptance_criteria)}"
    change = RefineChange(field=name, kind="template", span=(0, 0), text=template)
    criteria = (*draft.text.acceptance_criteria, template)
    draft.offer(draft.text._replace(acceptance_criteria=criteria), [change])
