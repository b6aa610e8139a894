"""The working items of a step's own task: its record, what reviewers said, what fails, what is unanswered (CX-5)."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.context.item import MUST_KEEP, TASK_BLOCK, Item, fence, one_line
from fleet.errors import InvalidInput
from fleet.story import StoryState, TaskState

__all__ = ["task_block"]


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
