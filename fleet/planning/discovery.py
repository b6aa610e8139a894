"""A one-line goal becomes requirements, questions, an epic and stories; nothing stands until a po accepts it (PL-54).

The rules alone make a proposal whose unknowns are placeholders with a question each. A model may make a richer one;
what it says is read by the same rules, and what does not fit them is told to it once.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import InvalidInput
from fleet.kernel.types import Frozen
from fleet.planning.coach import score_story
from fleet.planning.coach_config import CoachConfig, LanguageBlock
from fleet.planning.suggest import check_goal

MAX_STORIES = 12
"""Stories of one proposal (PL-54)."""
MAX_ANSWER = 300
_PLACEHOLDER = re.compile(r"<([^<>\n]{1,60})>")
_WORD = re.compile(r"[^\W\d_]{2,}")
_JOINERS: Mapping[str, tuple[str, str]] = {
    "en": ("with", "and"),
    "es": ("con", "y"),
    "fr": ("avec", "et"),
    "de": ("mit", "und"),
    "pt": ("com", "e"),
    "it": ("con", "e"),
}
"""What stands before a list of features, and before its last one."""
_EMPTY_WORDS = frozenset(
    ["app", "application", "code", "program", "project", "software", "system", "tool", "thing", "things", "stuff"]
    + ["build", "create", "make", "write", "do", "need", "want", "would", "like", "please", "good", "nice", "new"]
    + ["an", "the", "it", "this", "that", "some", "something", "any", "anything", "to", "for", "me", "us", "we", "you"]
)
"""Words that name nothing to build by themselves."""


class Requirement(Frozen):
    """One thing that shall hold; `stories` are the positions of those that bring it."""

    text: str
    stories: tuple[int, ...]


class OpenQuestion(Frozen):
    """What the goal does not say. An answer fills the placeholder in the story that it belongs to."""

    question_id: str
    text: str
    story: int | None = None
    """Position of the story; None is about the whole."""
    placeholder: str | None = None
    answer: str | None = None


class ProposedEpic(Frozen):
    """The epic that the stories shall belong to."""

    title: str
    goal: str
    description: str


class ProposedStory(Frozen):
    """One story as it would be created; `depends_on` are positions of earlier stories."""

    title: str
    description: str
    acceptance_criteria: tuple[str, ...]
    depends_on: tuple[int, ...] = ()
    is_scaffold: bool = False


class DiscoveryProposal(Frozen):
    """What a goal could mean."""

    goal: str
    language: str
    source: Literal["template", "model"]
    epic: ProposedEpic
    requirements: tuple[Requirement, ...]
    questions: tuple[OpenQuestion, ...]
    stories: Annotated[tuple[ProposedStory, ...], Field(min_length=1, max_length=MAX_STORIES)]

    @property
    def unanswered(self) -> tuple[OpenQuestion, ...]:
        """The questions that nobody answered yet."""
        return tuple(q for q in self.questions if q.answer is None)

    def to_bytes(self) -> bytes:
        """The proposal as it is kept; its digest names it."""
        return canonical_json(self.model_dump(mode="json"))


_SCAFFOLD = ProposedStory(
    title="As a developer, I want a project that runs its tests so that work can begin",
    description=(
        "The folder is empty. It gets the skeleton of a project: one package, one test that passes, and a README that "
        "says how to run the tests, so that every later story has a place to stand."
    ),
    acceptance_criteria=(
        "Given a fresh copy of the project, when its tests run, then at least one test passes and none fails",
        "Given a newcomer, when they read README.md, then they find the command that runs the tests",
    ),
    is_scaffold=True,
)


def discover(goal: str, *, language: str, is_empty: bool, config: CoachConfig) -> DiscoveryProposal:
    """The proposal that the rules alone make; the goal's words stand in it unchanged.

    Args:
        is_empty: there is no code yet, so the first story is a scaffold that every other one needs.

    Raises:
        InvalidInput: no goal, one that names nothing to build, or a language that is not configured.
    """
    block, text = config.language(language), check_goal(goal)
    _require_subject(text)
    head, items = _parts(text, language)
    core = _story(block, head, text, config)
    features = [_story(block, item, text, config) for item in items]
    stories = _linked([core, *features], is_empty=is_empty)
    requirements = [Requirement(text=words, stories=()) for words in (head, *items)]
    return _assembled(text, language, "template", requirements, stories, (), block)


def _require_subject(goal: str) -> None:
    words = [w.casefold() for w in _WORD.findall(goal)]
    if len(words) < 2 or all(w in _EMPTY_WORDS for w in words):
        question = "What shall be built, and what shall it do?"
        raise InvalidInput(
            f"the goal {goal[:80]!r} names nothing to build: {question}", field="goal", question=question
        )


def _parts(goal: str, language: str) -> tuple[str, tuple[str, ...]]:
    """What is to be built, and what it shall have beside that."""
    if ";" in goal:
        first, *rest = [part.strip() for part in goal.split(";") if part.strip()]
        return first, _capped(rest)
    before, last = _JOINERS.get(language, _JOINERS["en"])
    match = re.match(rf"(.+?)(?::\s+|\s+{before}\s+)(.+)", goal, re.IGNORECASE)
    if match is None:
        return goal, ()
    items = [i.strip(" .") for i in re.split(rf",\s*(?:{last}\s+)?|\s+{last}\s+", match[2], flags=re.IGNORECASE)]
    items = [item for item in items if item]
    return (match[1], _capped(items)) if len(items) > 1 else (goal, ())


def _capped(items: Sequence[str]) -> tuple[str, ...]:
    # A scaffold and the core story stand before them; what is too much for one proposal stays together in the last.
    most = MAX_STORIES - 2
    return tuple(items) if len(items) <= most else (*items[: most - 1], ", ".join(items[most - 1 :]))


def _story(block: LanguageBlock, words: str, goal: str, config: CoachConfig) -> ProposedStory:
    title = block.templates.title.replace("{title}", words)
    if len(title) >= config.limits.title_below:
        title = block.templates.short_title
    description = goal if words == goal else f"{words}. {goal}"
    return ProposedStory(title=title, description=description, acceptance_criteria=(block.templates.scenario,))


def _linked(stories: Sequence[ProposedStory], *, is_empty: bool) -> tuple[ProposedStory, ...]:
    """The stories after the scaffold where there is no code yet; each feature needs the core."""
    core, *features = stories
    linked = [core, *(f.model_copy(update={"depends_on": (0,)}) for f in features)]
    return _behind_scaffold(linked) if is_empty else tuple(linked)


def _behind_scaffold(stories: Sequence[ProposedStory]) -> tuple[ProposedStory, ...]:
    moved = [s.model_copy(update={"depends_on": (0, *(n + 1 for n in s.depends_on))}) for s in stories]
    return (_SCAFFOLD, *moved)


def _assembled(
    goal: str,
    language: str,
    source: Literal["template", "model"],
    asked_for: Sequence[Requirement],
    stories: tuple[ProposedStory, ...],
    asked: Sequence[str],
    block: LanguageBlock,
) -> DiscoveryProposal:
    first = 1 if stories[0].is_scaffold else 0
    requirements = [
        r if r.stories else r.model_copy(update={"stories": (min(n + first, len(stories) - 1),)})
        for n, r in enumerate(asked_for)
    ]
    if first:
        requirements.insert(0, Requirement(text="The project runs its tests with one command", stories=(0,)))
    questions = [(text, None, None) for text in asked]
    for n, story in enumerate(stories):
        names = dict.fromkeys(p for t in _texts(story) for p in _PLACEHOLDER.findall(t))
        questions += [(block.questions.get(name, f"<{name}>?"), n, name) for name in names]
    return DiscoveryProposal(
        goal=goal,
        language=language,
        source=source,
        epic=ProposedEpic(title=goal[:200], goal=goal, description=f"From the goal: {goal}"),
        requirements=tuple(requirements),
        questions=tuple(
            OpenQuestion(question_id=f"qu-{number}", text=text, story=story, placeholder=placeholder)
            for number, (text, story, placeholder) in enumerate(questions, 1)
        ),
        stories=stories,
    )


def _texts(story: ProposedStory) -> tuple[str, ...]:
    return (story.title, story.description, *story.acceptance_criteria)


def with_answers(proposal: DiscoveryProposal, answers: Mapping[str, str]) -> DiscoveryProposal:
    """The proposal with these answers in place of their placeholders. What was answered stays answered: from then on
    it is text of the story, which is edited as such.

    Raises:
        InvalidInput: no answers, a question that is not open, or an answer that is empty, too long or of several lines.
    """
    if not answers:
        raise InvalidInput("send at least one answer", field="answers")
    open_ids = {q.question_id for q in proposal.unanswered}
    if unknown := sorted(set(answers) - open_ids):
        raise InvalidInput(
            f"{unknown[0][:40]!r} is no open question of this proposal", field="answers", allowed=sorted(open_ids)
        )
    checked = {name: _checked_answer(name, text) for name, text in answers.items()}
    stories = list(proposal.stories)
    for question in proposal.questions:
        text = checked.get(question.question_id)
        if text is None:
            continue
        if question.story is not None and question.placeholder is not None:
            stories[question.story] = _filled(stories[question.story], f"<{question.placeholder}>", text)
            continue
        # A question about the whole is answered for everybody who reads one of its stories.
        stories = [s if s.is_scaffold else _with_note(s, f"{question.text} {text}") for s in stories]
    questions = tuple(
        q.model_copy(update={"answer": checked[q.question_id]}) if q.question_id in checked else q
        for q in proposal.questions
    )
    return proposal.model_copy(update={"stories": tuple(stories), "questions": questions})


def _checked_answer(name: str, answer: str) -> str:
    text = unicodedata.normalize("NFC", answer.strip())
    is_plain = not any(unicodedata.category(c) in ("Cc", "Cs") or c in "<>" for c in text)
    if not 1 <= len(text) <= MAX_ANSWER or not is_plain:
        raise InvalidInput(
            f"the answer to {name} must be one line of 1 to {MAX_ANSWER} characters without < and >",
            field=f"answers/{name}",
            value=text[:100],
        )
    return text


def _with_note(story: ProposedStory, note: str) -> ProposedStory:
    return story.model_copy(update={"description": f"{story.description}\n\n{note}"})


def _filled(story: ProposedStory, placeholder: str, text: str) -> ProposedStory:
    title = story.title.replace(placeholder, text)
    if len(title) > 200:
        raise InvalidInput(f"with this answer the title has {len(title)} characters, 200 are allowed", field="answers")
    return story.model_copy(
        update={
            "title": title,
            "description": story.description.replace(placeholder, text),
            "acceptance_criteria": tuple(c.replace(placeholder, text) for c in story.acceptance_criteria),
        }
    )


# What a model proposes.


def discovery_schema() -> dict[str, Any]:
    """The form that a model's proposal has."""
    story = _closed(
        {
            "title": _text(200),
            "description": _text(2000),
            "acceptance_criteria": {"type": "array", "minItems": 1, "maxItems": 6, "items": _text(500)},
            "depends_on": {"type": "array", "maxItems": MAX_STORIES, "items": {"type": "integer", "minimum": 0}},
        }
    )
    return _closed(
        {
            "requirements": {"type": "array", "minItems": 1, "maxItems": 20, "items": _text(300)},
            "questions": {"type": "array", "maxItems": 10, "items": _text(300)},
            "stories": {"type": "array", "minItems": 1, "maxItems": MAX_STORIES - 1, "items": story},
        }
    )


def _text(max_length: int) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": max_length}


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def read_proposal(
    value: Mapping[str, Any], template: DiscoveryProposal, *, is_empty: bool, config: CoachConfig
) -> DiscoveryProposal | tuple[str, ...]:
    """The model's proposal, or everything that is wrong with it in words for the model.

    Each story must be readier than the template's of its kind, and need only stories before it.

    Args:
        value: of the form of `discovery_schema`.
        template: what the rules alone propose for the goal.
    """
    stories = [
        ProposedStory(
            title=s["title"],
            description=s["description"],
            acceptance_criteria=tuple(s["acceptance_criteria"]),
            depends_on=tuple(sorted(set(s["depends_on"]))),
        )
        for s in value["stories"]
    ]
    if problems := _problems(stories, template, config):
        return problems
    behind = _behind_scaffold(stories) if is_empty else tuple(stories)
    offset, count = (1, len(behind)) if is_empty else (0, len(behind))
    every = tuple(range(offset, count))
    requirements = [Requirement(text=text, stories=every) for text in value["requirements"]]
    block = config.language(template.language)
    return _assembled(template.goal, template.language, "model", requirements, behind, value["questions"], block)


def _problems(stories: Sequence[ProposedStory], template: DiscoveryProposal, config: CoachConfig) -> tuple[str, ...]:
    problems: list[str] = []
    least = min(_score(s, template.language, config) for s in template.stories)
    titles: set[str] = set()
    for n, story in enumerate(stories):
        if late := [d for d in story.depends_on if d >= n]:
            problems.append(f"story {n} depends on {late[0]}: it may depend on stories before it only")
        if story.title.casefold() in titles:
            problems.append(f"story {n} has the title of another one")
        titles.add(story.title.casefold())
        if any(ord(c) < 32 and c not in "\n\t" for text in _texts(story) for c in text):
            problems.append(f"story {n} holds a control character")
        try:
            score = _score(story, template.language, config)
        except InvalidInput as error:
            problems.append(f"story {n}: {error.message}")
            continue
        if score < least:
            problems.append(f"story {n} scores {score} of at least {least}: give it a Given/When/Then criterion")
    return tuple(problems)


def _score(story: ProposedStory, language: str, config: CoachConfig) -> int:
    criteria = story.acceptance_criteria
    return score_story(story.title, story.description, criteria, language=language, threshold=0, config=config).score


def requirements_text(proposal: DiscoveryProposal) -> str:
    """The proposal as `requirements.md`, to be read by people; the same proposal gives the same text."""
    lines = [f"# {proposal.epic.title}", "", f"Goal: {proposal.goal}", "", "## Requirements", ""]
    lines += [
        f"{n}. {r.text} (story {', '.join(str(s + 1) for s in r.stories)})"
        for n, r in enumerate(proposal.requirements, 1)
    ]
    lines += ["", "## Stories", ""]
    for n, story in enumerate(proposal.stories, 1):
        needs = f" (after {', '.join(str(d + 1) for d in story.depends_on)})" if story.depends_on else ""
        lines += [f"### {n}. {story.title}{needs}", "", story.description, ""]
        lines += [f"- {criterion}" for criterion in story.acceptance_criteria] + [""]
    if proposal.questions:
        lines += ["## Questions", ""]
        lines += [f"- {q.question_id}: {q.text} {q.answer or '(open)'}" for q in proposal.questions]
    return "\n".join(lines).rstrip() + "\n"
