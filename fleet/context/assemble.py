"""Put a pack together within its budget (CX-22..CX-25)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fleet.context.budget import ceiling
from fleet.context.counting import BY_ESTIMATE, Counting
from fleet.context.item import MUST_KEEP, Item
from fleet.context.lessons import lesson_items
from fleet.context.scope import ContextConfig, scopes_for
from fleet.context.sections import Reader, section, tasks_of
from fleet.context.shorten import shortened
from fleet.context.task_block import task_block
from fleet.context.view import StoryView
from fleet.errors import ContextTooLarge
from fleet.knowledge import Note, ask, rank_notes

__all__ = ["HEADINGS", "BuiltPack", "Dropped", "assemble", "build_pack"]

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
    """The text of as many items as fit into `budget` tokens, in the order of CX-23, and what is not shown whole.

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
