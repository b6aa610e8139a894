"""Lessons of a closed story: what failed, what mended it, which command worked; taken from its events, never told anew.

Each names the story and the versions that it was taken from, so that whoever reads it can look at the evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fleet.context.item import Item, fence, one_line
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.step import StepFinished, StepStarted
from fleet.events.story import StoryTransitioned
from fleet.events.task import TaskAdded, TaskTransitioned
from fleet.events.workspace import WorkspaceScored
from fleet.kernel.ids import StoryId
from fleet.knowledge.cite import Note, rank_notes
from fleet.knowledge.rank import ask

LESSONS = "LESSONS"
"""Stands in place of a scope, as TASK does: what comes from other stories is no scope of this one."""
_SEE_ALL = frozenset({"architect", "po"})
_MAX_TEXT = 300


class LessonRule(BaseModel):
    """Part `lessons` of config/context.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    enabled: bool = False
    """Whether packs hold lessons of earlier stories of the project."""
    stories: Annotated[int, Field(ge=1, le=200)] = 50
    """The closed stories that are looked at, those that ended last."""
    most: Annotated[int, Field(ge=1, le=20)] = 5
    """Lessons of one pack."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One finding. `role` is that of the task it was found in, None where it is about the story as a whole."""

    kind: Literal["failure", "mend", "command"]
    text: str
    story_id: StoryId
    versions: tuple[int, ...]
    role: str | None = None

    @property
    def ref(self) -> str:
        """`<story>/v<first>-v<last>`: where its evidence is."""
        return f"{self.story_id}/" + "-".join(f"v{version}" for version in self.versions)


def lessons_of(story_id: StoryId, events: Sequence[tuple[StoredEvent, Payload]]) -> tuple[Lesson, ...]:
    """The findings of one story, in the order of their evidence, each once."""
    roles: dict[str, str] = {p.task.task_id: p.task.role for _, p in events if isinstance(p, TaskAdded)}
    lessons = [
        *_of_reviews(story_id, events, roles),
        *_of_measurements(story_id, events),
        *_of_commands(story_id, events, roles),
        *_of_ways_back(story_id, events),
    ]
    return tuple({(one.kind, one.text): one for one in sorted(lessons, key=lambda one: one.versions)}.values())


def _short(text: str) -> str:
    plain = one_line(text)
    return plain if len(plain) <= _MAX_TEXT else plain[: _MAX_TEXT - 4].rsplit(" ", 1)[0] + " ..."


def _of_reviews(
    story_id: StoryId, events: Sequence[tuple[StoredEvent, Payload]], roles: dict[str, str]
) -> Iterator[Lesson]:
    """Return what a review refused. A mend where the stage accepted later work on the task, else a failure."""
    for number, (event, payload) in enumerate(events):
        if isinstance(payload, TaskTransitioned) and payload.feedback and payload.action.startswith("REJECT"):
            accepted = _later(events[number + 1 :], payload.task_id, payload.action.replace("REJECT", "APPROVE"))
            versions = (event.version,) if accepted is None else (event.version, accepted)
            told = (
                "a review refused work, and accepted it once this was heeded" if accepted else "a review refused work"
            )
            text = f"{told}: {_short(payload.feedback)}"
            yield Lesson("mend" if accepted else "failure", text, story_id, versions, role=roles.get(payload.task_id))


def _later(events: Iterable[tuple[StoredEvent, Payload]], task_id: str, action: str) -> int | None:
    return next(
        (
            event.version
            for event, p in events
            if isinstance(p, TaskTransitioned) and p.task_id == task_id and p.action == action
        ),
        None,
    )


def _of_measurements(story_id: StoryId, events: Sequence[tuple[StoredEvent, Payload]]) -> Iterator[Lesson]:
    """Reasons for which the code was blocked."""
    for event, payload in events:
        if isinstance(payload, WorkspaceScored) and payload.verdict == "block" and payload.reasons:
            text = f"the code was blocked: {_short('; '.join(payload.reasons))}"
            yield Lesson("failure", text, story_id, (event.version,))


def _of_commands(
    story_id: StoryId, events: Sequence[tuple[StoredEvent, Payload]], roles: dict[str, str]
) -> Iterator[Lesson]:
    """Tools that failed in a task and worked later in the same one."""
    started: dict[str, StepStarted] = {}
    failed: dict[tuple[str | None, str | None, str | None], tuple[int, str]] = {}
    for event, payload in events:
        if isinstance(payload, StepStarted):
            started[payload.step_id] = payload
        elif isinstance(payload, StepFinished) and payload.step_id in started:
            begun = started[payload.step_id]
            key = (begun.task_id, begun.tool, begun.op)
            if begun.kind == "model":
                continue
            if payload.outcome == "failed":
                failed[key] = (event.version, payload.excerpt or payload.reason or "")
            elif payload.outcome == "succeeded" and key in failed:
                version, said = failed.pop(key)
                first = next((line.strip() for line in said.splitlines() if line.strip()), "no output")
                text = f"{begun.tool} {begun.op or ''} failed first ({_short(first)}) and worked later".replace(
                    "  ", " "
                )
                role = roles.get(begun.task_id) if begun.task_id else None
                yield Lesson("command", text, story_id, (version, event.version), role=role)


def _of_ways_back(story_id: StoryId, events: Sequence[tuple[StoredEvent, Payload]]) -> Iterator[Lesson]:
    for event, payload in events:
        if isinstance(payload, StoryTransitioned) and payload.loopback and payload.reason:
            text = f"the story went back from {payload.from_} to {payload.to}: {_short(payload.reason)}"
            yield Lesson("failure", text, story_id, (event.version,))


def sees(lesson: Lesson, base_role: str) -> bool:
    """Whether the role may see it: architect and po all of their project, others what their own role's work taught."""
    return base_role in _SEE_ALL or lesson.role == base_role


def nearest(lessons: Sequence[Lesson], about: str, *, most: int) -> tuple[Lesson, ...]:
    """The lessons that share words with the text, the best first; the same arguments, the same answer."""
    by_ref = {f"{one.ref}#{number}": one for number, one in enumerate(lessons)}
    notes = [Note(ref, one.text) for ref, one in by_ref.items()]
    return tuple(by_ref[row.note.ref] for row in rank_notes(notes, ask(about), limit=most))


def lesson_items(lessons: Sequence[Lesson], about: str, *, base_role: str, most: int) -> tuple[Item, ...]:
    """The lessons that the role may see and that are about this, as data (CX-27). They are the first to go."""
    kept = nearest([one for one in lessons if sees(one, base_role)], about, most=most)
    return tuple(
        Item(
            scope=LESSONS,
            level=9,
            id=one.ref,
            heading="Lessons from earlier stories",
            text=fence(f"{one.text} ({one.ref})", origin=f"the record of story {one.story_id}"),
            rank=number,
        )
        for number, one in enumerate(kept)
    )
