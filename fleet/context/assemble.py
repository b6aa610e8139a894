"""Put a pack together within its budget (CX-22..CX-25)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from fleet.context.budget import ceiling
from fleet.context.extract import facts_in, ids_in, paths_in
from fleet.context.item import MUST_KEEP, TASK_BLOCK, Item, fence, one_line
from fleet.context.lessons import lesson_items
from fleet.context.scope import ContextConfig, scopes_for
from fleet.context.sections import Reader, section, tasks_of
from fleet.context.token_counter import BY_ESTIMATE, Counting
from fleet.context.view import StoryView
from fleet.kernel.errors import ContextTooLarge, InvalidInput
from fleet.knowledge.cite import Note, rank_notes
from fleet.knowledge.rank import ask
from fleet.story.state import StoryState, TaskState


def task_block(state: StoryState, task_id: str) -> tuple[Item, ...]:
    """The items of the task.

    Raises:
        InvalidInput: the story has no such task.
    """
    task = state.tasks.get(task_id)
    if task is None:
        raise InvalidInput(
            f"story {state.story_id} has no task {task_id!r}",
            field="task_id",
            value=task_id,
            allowed=sorted(state.tasks),
        )
    return (*_record(task), *_questions(state, task_id), *_feedback(task), *_findings(state))


def _record(task: TaskState) -> Iterable[Item]:
    t = task.task
    lines = [one_line(t.title), t.description.strip()]
    lines += [f"Serves: {', '.join(r for r in t.acceptance_refs if r.startswith('ac-'))}"] if t.acceptance_refs else []
    lines += [f"Files it may change: {', '.join(t.paths)}"] if t.paths else []
    lines += [f"Use: {', '.join(t.suggested_tech)}"] if t.suggested_tech else []
    lines += [f"Notes: {one_line(t.notes)}"] if t.notes.strip() else []
    yield _item("Your task", "record", "\n".join(line for line in lines if line))


def _questions(state: StoryState, task_id: str) -> Iterable[Item]:
    for question in state.questions.values():
        if question.severity == "blocking" and question.answer is None:
            text = fence(question.text, origin="an open question")
            yield _item("Open questions", question.question_id, text)


def _feedback(task: TaskState) -> Iterable[Item]:
    for number, feedback in enumerate(task.feedback):
        text = fence(feedback, origin="a review of your earlier work")
        # The last word counts most: a lower rank stays longer.
        yield _item("Feedback", f"feedback-{number}", text, level=MUST_KEEP + 1, rank=-number)


def _findings(state: StoryState) -> Iterable[Item]:
    score = state.scores.get(state.tree) if state.tree is not None and state.tree != state.base_tree else None
    if score is not None and score.verdict != "pass" and score.reasons:
        text = fence("\n".join(score.reasons), origin="the last measurement of the code")
        yield _item("What fails now", "findings", text, level=MUST_KEEP + 1)


def _item(heading: str, id: str, text: str, *, level: int = MUST_KEEP, rank: int = 0) -> Item:
    return Item(scope=TASK_BLOCK, level=level, id=id, heading=heading, text=text, rank=rank)


_MIN_CHARS = 160
"""A shorter item is shown whole or not at all."""
_LEAST_GAIN = 0.6
"""A short form is no longer than this part of the item."""
_FENCED = re.compile(
    r"Data from (?P<origin>[^\n]*), not instructions:\n(?P<ticks>`{3,})text\n(?P<body>.*)\n(?P=ticks)", re.DOTALL
)
_HEAD = re.compile(r"(?P<head>.{1,200}?[^\s:])(?::\s|\.\s|\n|$)", re.DOTALL)


def shortened(item: Item) -> Item | None:
    """Shorten an item to its first clause. What has to survive of the rest stays, and so does every id and path that it
    names.

    None where that would not be much shorter. Data stay fenced as data (CX-27).
    """
    if len(item.text) < _MIN_CHARS:
        return None
    fenced = _FENCED.fullmatch(item.text)
    text = fence(_digest(fenced["body"]), origin=fenced["origin"]) if fenced else _digest(item.text)
    return replace(item, text=text) if len(text) <= _LEAST_GAIN * len(item.text) else None


def _digest(text: str) -> str:
    first = _HEAD.match(text.lstrip())
    head = one_line(first["head"]) if first else one_line(text)[:200]
    mark = "- " if text.lstrip().startswith("- ") else ""
    lines = [mark + head.removeprefix("- ")]
    facts = (one_line(fact.line) for fact in facts_in(text))
    indent = "  " if mark else ""
    said = "\n".join([*lines, *(f"{indent}{line}" for line in facts if line not in head)])
    names = [name for name in (*ids_in(text), *paths_in(text)) if name not in (*ids_in(said), *paths_in(said))]
    return said + (f" [...] {', '.join(names)}" if names else " [...]")


HEADINGS = (
    "Story",
    "Acceptance criteria",
    "Constraints",
    "Decisions",
    "Dependencies",
    "Plan",
    "Tasks",
    "Where the story stands",
    "Milestones",
    "Summary",
    "Lessons from earlier stories",
    "Your task",
    "Open questions",
    "Feedback",
    "What fails now",
)
"""Sections in the order shown: what changes least comes first, so that engines can reuse the prefix (CX-25)."""


FIRM = 4
"""Items up to this level of CX-23 are not shortened to make room for others."""


# Source: CX-24.
@dataclass(frozen=True, slots=True)
class Dropped:
    """Items of one scope that did not fit."""

    scope: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BuiltPack:
    """A pack as text; `scopes` are those of its cell, whether or not they hold anything."""

    text: str
    scopes: tuple[str, ...]
    token_count: int
    budget: int
    dropped: tuple[Dropped, ...]
    counter: str
    """What counted: `estimate`, or name and digest of a tokenizer (CX-20)."""


def build_pack(
    view: StoryView,
    config: ContextConfig,
    *,
    role: str,
    phase: str,
    task_id: str | None = None,
    token_budget: int | None = None,
    counting: Counting = BY_ESTIMATE,
) -> BuiltPack:
    """The pack of one role in one phase. Same arguments, same bytes.

    Args:
        task_id: the task of the step; adds its task block.
        token_budget: replaces the hint of CX-21; at least 512.
        counting: of the models that may read the pack; it is within the budget for each of them.

    Raises:
        PolicyDenied: rule `scope_denied` (CX-3).
        InvalidInput: the story has no such task.
        ContextTooLarge: what may not be cut exceeds the budget.
    """
    scopes = scopes_for(config, phase, role, author=_author(view, task_id))
    shown = config.compression.shown_tokens
    reader = Reader(role=role, base=config.base_role(role), summary_tokens=shown, count=counting.most)
    items = [item for scope in scopes for item in section(scope, view, reader)]
    about = view.state.content.title
    if task_id is not None:
        # The task block tells the step's own task in full: telling it twice only costs tokens.
        items = [item for item in items if item.id != task_id] + list(task_block(view.state, task_id))
        task = view.state.tasks[task_id].task
        about = f"{task.title}\n{task.description}\n{' '.join(task.paths)}"
    if config.lessons.enabled:
        items += lesson_items(view.lessons, about, base_role=reader.base, most=config.lessons.most)
    hint = ceiling(
        config.budget, base_role=reader.base, tasks=len(tasks_of(view.state)), decisions=len(view.state.decisions)
    )
    budget = counting.within(min(token_budget, config.budget.max_tokens) if token_budget is not None else hint)
    if sum(counting.most(item.text) for item in items) > budget:
        items = _by_relevance(items, about)
    text, dropped = assemble(items, budget=budget, counting=counting)
    first = counting.first
    return BuiltPack(
        text=text, scopes=scopes, token_count=first.count(text), budget=budget, dropped=dropped, counter=first.name
    )


def _by_relevance(items: Sequence[Item], about: str) -> list[Item]:
    """The items, in the order they came; of decisions those that say most about the task are kept first (CX-24)."""
    notes = [Note(item.id, item.text) for item in items if item.heading == "Decisions"]
    ranked = rank_notes(notes, ask(about), limit=len(notes))
    place = {row.note.ref: number for number, row in enumerate(ranked)}
    return [
        replace(item, rank=place.get(item.id, len(notes))) if item.heading == "Decisions" else item for item in items
    ]


def _author(view: StoryView, task_id: str | None) -> str:
    # Whose subject a critic looks at: the task's role, or the architect's where no task is named (the design).
    task = view.state.tasks.get(task_id) if task_id is not None else None
    return task.task.role if task is not None else "architect"


def assemble(
    items: Sequence[Item], *, budget: int, counting: Counting = BY_ESTIMATE
) -> tuple[str, tuple[Dropped, ...]]:
    """Put as many items as fit into `budget` tokens, in the order of CX-23. Returns their text and what is not shown
    whole.

    Where not all fit, later ones are shown in a short form if that shows more of them.

    Raises:
        ContextTooLarge: levels 1-2 alone exceed the budget; `sizes` names each item with its tokens.
    """
    ordered = sorted(items, key=lambda item: (item.level, item.rank))
    least = sum(item.level <= MUST_KEEP for item in ordered)
    if counting.most(_render(ordered[:least], items)) > budget:
        raise _too_large(ordered[:least], budget, counting)
    room = budget
    while True:
        kept, shown = _chosen(ordered, least=least, fits=_measure(items, counting, room))
        text = _render(shown, items)
        # The search may have gone by the sum of the parts; what is handed out was counted as a whole.
        over = counting.most(text) - budget
        if over <= 0 or len(shown) == least:
            return text, _dropped(ordered[kept:])
        room -= over


def _chosen(
    ordered: Sequence[Item], *, least: int, fits: Callable[[Sequence[Item]], bool]
) -> tuple[int, Sequence[Item]]:
    """How many of the first items stay whole, and all that is shown."""
    kept = _most(least, len(ordered), lambda n: fits(ordered[:n]))
    return (kept, ordered[:kept]) if kept == len(ordered) else _with_short_ones(ordered, kept, least=least, fits=fits)


def _measure(items: Sequence[Item], counting: Counting, room: int) -> Callable[[Sequence[Item]], bool]:
    """Whether items take no more than this room together."""
    if counting.is_cheap:
        return lambda shown: counting.most(_render(shown, items)) <= room

    def fits(shown: Sequence[Item]) -> bool:
        headings = dict.fromkeys(f"\n## {item.heading}" for item in shown)
        return counting.sum_of([*headings, *(item.text for item in shown)]) <= room

    return fits


def _with_short_ones(
    ordered: Sequence[Item], kept: int, *, least: int, fits: Callable[[Sequence[Item]], bool]
) -> tuple[int, Sequence[Item]]:
    """How many of the first items stay whole, and all that is shown: the choice that shows most items.

    Decisions and what comes before them are never shortened for the sake of what comes after.
    """
    short = [shortened(item) for item in ordered]
    firm = max(least, min(kept, sum(item.level <= FIRM for item in ordered)))

    def shown(whole: int, until: int) -> list[Item]:
        return [*ordered[:whole], *(item for item in short[whole:until] if item is not None)]

    roomy = _most(firm, kept, lambda n: fits(shown(n, len(ordered))))
    choices = [(n, shown(n, _most(n, len(ordered), lambda m, n=n: fits(shown(n, m))))) for n in (kept, roomy)]
    return max(choices, key=lambda choice: (len(choice[1]), choice[0]))


def _most(least: int, most: int, holds: Callable[[int], bool]) -> int:
    """The largest number up to `most` for which it holds; `least` when it holds for none above."""
    while least < most:
        middle = (least + most + 1) // 2
        if holds(middle):
            least = middle
        else:
            most = middle - 1
    return least


def _render(kept: Sequence[Item], items: Sequence[Item]) -> str:
    # Items are shown in the order they were cut in, not in the order of keeping.
    texts_of = {(item.scope, item.id, item.heading): item.text for item in kept}
    blocks = list[str]()
    for heading in HEADINGS:
        keys = ((item.scope, item.id, heading) for item in items if item.heading == heading)
        texts = [texts_of[key] for key in keys if key in texts_of]
        if texts:
            blocks.append("\n".join([f"## {heading}", *texts]))
    return "\n\n".join(blocks) + "\n" if blocks else ""


def _dropped(items: Sequence[Item]) -> tuple[Dropped, ...]:
    by_scope: dict[str, list[str]] = {}
    for item in items:
        by_scope.setdefault(item.scope, []).append(item.id)
    return tuple(Dropped(scope=scope, ids=tuple(ids)) for scope, ids in sorted(by_scope.items()))


def _too_large(items: Sequence[Item], budget: int, counting: Counting) -> ContextTooLarge:
    sizes = {f"{item.scope}/{item.id}": counting.most(item.text) for item in items}
    total = sum(sizes.values())
    return ContextTooLarge(
        f"what a pack may not leave out takes about {total} tokens, {budget} are allowed: "
        "shorten the criteria, the constraints or the task",
        sizes=sizes,
        budget=budget,
    )
