"""Lessons of earlier stories, on and off under the same ceiling of tokens: what packs hold, and what that costs.

In each earlier story a review refused one thing. A later story is about the same thing in other words; its pack should
hold that lesson among all others. Whether a team then does better is another question: to be answered by running
stories with `lessons.enabled` on and off in config/context.yaml, under one budget of tokens.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.figures import Figure
from fleet.config.files import ConfigFiles, packaged_directory
from fleet.context.assemble import build_pack
from fleet.context.lessons import Lesson, LessonRule
from fleet.context.scope import ContextConfig
from fleet.context.view import StoryView
from fleet.events.codec import encode
from fleet.events.envelope import Head
from fleet.events.story import AcceptanceCriterion, StoryCreated
from fleet.kernel.digest import digest_of
from fleet.kernel.ids import CommandId, EntityId, Principal, StoryId, StreamId
from fleet.log.memory import MemoryEventLog
from fleet.log.port import Appended, AppendRequest
from fleet.story.evolve.story import fold
from fleet.story.state import StoryState

_ABOUT = (
    ("round totals of an invoice", "totals were rounded line by line: round the invoice once, at its end"),
    ("expire carts in the shop", "carts never expired: set a time to live when the cart is written"),
    ("escape titles in the feed", "titles of the feed were not escaped: escape ampersands in every title"),
    ("retry uploads of reports", "uploads were repeated without end: stop after five tries and tell the caller"),
    ("sort search results by date", "results with the same date changed places: sort by date and then by id"),
    ("parse dates of imported orders", "dates without a zone were taken as local: read imported dates as UTC"),
    ("limit the size of attachments", "attachments were read whole: refuse what is too large before reading it"),
    ("cache prices of a catalogue", "the cache kept old prices: key the catalogue by its version"),
)
_COPIES = 25
"""Stories about other things for each of these."""


async def measure(folder: Path) -> list[Figure]:
    """How often the right lesson is in the pack, and what lessons take of its tokens and of the time to build it."""
    config = ConfigFiles(packaged_directory()).load("context.yaml", ContextConfig)
    on = config.model_copy(update={"lessons": LessonRule(enabled=True)})
    known = _known()
    hits, ceiling, more, ms_on, ms_off = 0, 0, list[int](), list[float](), list[float]()
    for number, (topic, _) in enumerate(_ABOUT):
        view = StoryView(state=await _story(f"st-later{number}", topic), lessons=known)
        before = time.process_time()
        without = build_pack(view, config, role="architect", phase="DESIGN")
        between = time.process_time()
        with_ = build_pack(view, on, role="architect", phase="DESIGN")
        ms_off.append(1000 * (between - before))
        ms_on.append(1000 * (time.process_time() - between))
        assert without.text == build_pack(replace(view, lessons=()), on, role="architect", phase="DESIGN").text
        assert with_.token_count <= with_.budget == without.budget
        ceiling = with_.budget
        hits += _ABOUT[number][1] in with_.text
        more.append(with_.token_count - without.token_count)
    note = f"{len(known)} lessons, ceiling {ceiling} tokens on and off"
    return [
        Figure("lessons: the right one is in the pack", 100 * hits / len(_ABOUT), "%", note=note),
        Figure("lessons: tokens of a pack that they take", statistics.median(more), "tokens", note=note),
        Figure(
            "lessons: a pack with them, processor", statistics.median(ms_on), "ms", "without", statistics.median(ms_off)
        ),
    ]


def _known() -> tuple[Lesson, ...]:
    told = [said for _, said in _ABOUT]
    told += [
        f"module {n} of part {n % 7} lacked a test of its error: add one for error {n}"
        for n in range(len(_ABOUT) * _COPIES)
    ]
    return tuple(
        Lesson("mend", text, StoryId(f"st-earlier{number}"), (7, 9), "developer") for number, text in enumerate(told)
    )


async def _story(name: str, topic: str) -> StoryState:
    log, stream = MemoryEventLog(), StreamId.of_story(StoryId(name))
    created = StoryCreated(
        project_id=EntityId("pr-bench"),
        epic_id=EntityId("ep-bench"),
        title=topic.capitalize(),
        description=f"We want to {topic}.",
        acceptance_criteria=(AcceptanceCriterion(ac_id=EntityId("ac-1"), text=f"It is possible to {topic}."),),
        constraints={},
        tags=(),
        rigor="L1",
        lifecycle="agile",
        language="en",
        priority=1,
        requester=Principal("user:bench"),
        content_digest=digest_of(topic.encode()),
        config={},
    )
    outcome = await log.append(
        AppendRequest(
            stream=stream,
            events=[encode(created)],
            expected=Head(),
            command_id=CommandId(f"{name}/1"),
            actor=Principal("user:bench"),
            ts_ms=1,
        )
    )
    assert isinstance(outcome, Appended)
    state = fold(outcome.events)
    assert state is not None
    return state
