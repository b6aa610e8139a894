"""Figures of context, each recomputed from the raw bodies of the events (AP-99)."""

from __future__ import annotations

import json
import re
from collections import Counter
from fractions import Fraction
from statistics import median_low
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.events.context import ContextPackBuilt, DroppedScope, SummaryRecorded
from fleet.events.story import QuestionRaised
from fleet.kernel.ids import EntityId
from fleet.report.context_figures import ContextFigures, context_figures, sum_figures
from tests.support.event_samples import samples
from tests.support.story_events import StoryLog, created_payload, digest


def pack(number: int, **changes: Any) -> ContextPackBuilt:
    """A pack of the developer in BUILD that left two decisions out."""
    fields: dict[str, Any] = {
        "pack_id": EntityId(f"rp-pack{number}"),
        "as_role": "developer",
        "phase": "BUILD",
        "scopes": ("CASE_HEADER",),
        "token_count": 1000 * number,
        "budget": 4096,
        "hash": digest(f"pack {number}"),
        "dropped": (DroppedScope(scope="DECISIONS_GLOBAL", count=2),),
        "as_of": number,
    }
    return ContextPackBuilt(**(fields | changes))


def summary(number: int, **changes: Any) -> SummaryRecorded:
    """A summary of ten thousand tokens that kept everything."""
    fields: dict[str, Any] = {
        "summary_id": EntityId(f"rp-sum{number}"),
        "covers_from": 1,
        "covers_to": number,
        "summary_digest": digest(f"summary {number}"),
        "tokens_before": 10_000,
        "tokens_after": 2_500,
        "ratio": "0.75",
        "recall": {"decision": "1", "path": "1"},
    }
    return SummaryRecorded(**(fields | changes))


def told(log: StoryLog) -> StoryLog:
    """A story in which all of it happened."""
    question = samples()["QuestionRaised"]
    assert isinstance(question, QuestionRaised)
    log.add(created_payload())
    log.add(pack(1), pack(3), pack(2), pack(4, as_role="qa", phase="TEST", dropped=()))
    log.add(summary(1), summary(2, tokens_after=7_500, target_missed="path", recall={"decision": "0.5", "path": "1"}))
    log.add(question.model_copy(update={"text": "Is [REDACTED:AWS] or [REDACTED:AWS] right, [REDACTED:JWT]?"}))
    return log


@pytest.mark.rule("AP-99", "CX-21", "CX-51")
def test_every_figure_is_what_the_bodies_of_the_events_say() -> None:
    log = told(StoryLog())
    figures = context_figures(log.events)
    bodies = [json.loads(e.body) for e in log.events if e.type == "ContextPackBuilt"]
    for (role, phase), found in figures.packs.items():
        own = [b for b in bodies if (b["as_role"], b["phase"]) == (role, phase)]
        sizes = [b["token_count"] for b in own]
        assert (found.packs, found.tokens_median, found.tokens_largest) == (len(own), median_low(sizes), max(sizes))
        assert found.used == Fraction(sum(sizes), sum(b["budget"] for b in own))
        assert found.budget_median == 4096
    assert set(figures.packs) == {("developer", "BUILD"), ("qa", "TEST")}
    assert figures.packs["developer", "BUILD"].dropped == Counter({"DECISIONS_GLOBAL": 6})
    assert figures.packs["qa", "TEST"].dropped.total() == 0
    found = figures.compression
    assert (found.summaries, found.targets_missed, found.ratio) == (2, 1, Fraction(1, 2))
    assert (found.lowest_recall, found.recall["path"]) == (Fraction(1, 2), 1)
    raw = b"".join(e.body for e in log.events)
    assert figures.redactions == Counter(m.decode() for m in re.findall(rb"\[REDACTED:(\w+)\]", raw))
    assert figures.redactions == {"AWS": 2, "JWT": 1}


def test_story_without_packs_has_figures_without_a_ratio() -> None:
    found = context_figures(StoryLog().add(created_payload()).events)
    assert found == ContextFigures()
    assert (found.compression.ratio, found.compression.lowest_recall) == (None, None)


@pytest.mark.rule("AP-99")
@given(cuts=st.lists(st.integers(0, 8), max_size=4))
def test_parts_of_a_story_sum_up_to_the_whole_of_it(cuts: list[int]) -> None:
    events = told(StoryLog()).events
    bounds = [0, *sorted(cuts), len(events)]
    parts = [context_figures(events[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]
    assert sum_figures(parts) == context_figures(events)
    assert sum_figures([sum_figures(parts[:2]), *parts[2:]]) == context_figures(events)
