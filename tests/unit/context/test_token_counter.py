"""Packs counted by the tokenizers of the models that read them (CX-20, CX-21)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.context.assemble import assemble, build_pack
from fleet.context.budget import estimate_tokens
from fleet.context.item import Item
from fleet.context.summary_text import outline_of
from fleet.context.token_counter import ESTIMATE, Counting
from fleet.kernel.errors import ContextTooLarge
from tests.support.context import context_config, view_of
from tests.support.story_events import TASK, story
from tests.support.tokenizers import KINDS, Counter, id_of

CONFIG = context_config()
COUNTERS = {kind: Counter(kind) for kind in KINDS}
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1, max_size=60)
LINES = st.lists(
    st.one_of(
        WORDS, st.sampled_from(["- keep the lease in Redis (ARCHITECTURE, ACCEPTED): one place", "    \n\n  x  "])
    ),
    min_size=1,
    max_size=4,
).map("\n".join)
ITEMS = st.lists(
    st.builds(
        Item,
        scope=st.sampled_from(["CASE_HEADER", "MILESTONES"]),
        level=st.integers(3, 9),
        id=st.uuids().map(str),
        heading=st.sampled_from(["Story", "Decisions", "Milestones"]),
        text=LINES,
    ),
    max_size=14,
    unique_by=lambda item: item.id,
)


@pytest.mark.rule("CX-20", "CX-21", "CX-25")
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(items=ITEMS, budget=st.integers(0, 250))
def test_assembly_never_exceeds_the_budget_by_the_real_count(kind: str, items: list[Item], budget: int) -> None:
    counting = Counting((COUNTERS[kind],))
    text, dropped = assemble(items, budget=budget, counting=counting)
    assert COUNTERS[kind].count(text) <= budget
    assert assemble(items, budget=budget, counting=Counting((Counter(kind),))) == (text, dropped)


@pytest.mark.rule("CX-21")
@settings(max_examples=60, deadline=None)
@given(items=ITEMS, budget=st.integers(0, 250))
def test_ceiling_holds_for_every_model_of_the_chain(items: list[Item], budget: int) -> None:
    text, _ = assemble(items, budget=budget, counting=Counting((COUNTERS["bytes"], ESTIMATE, COUNTERS["words"])))
    assert all(counter.count(text) <= budget for counter in (COUNTERS["bytes"], ESTIMATE, COUNTERS["words"]))


@pytest.mark.rule("CX-20")
@pytest.mark.parametrize("kind", KINDS)
def test_pack_carries_count_and_name_of_the_first_reader(kind: str) -> None:
    view = view_of(story(until="merged"))
    counting = Counting((COUNTERS[kind], ESTIMATE))
    built = build_pack(view, CONFIG, role="qa", phase="TEST", counting=counting)
    assert built.counter == id_of(kind).label
    assert built.token_count == COUNTERS[kind].count(built.text) != estimate_tokens(built.text)
    plain = build_pack(view, CONFIG, role="qa", phase="TEST")
    assert (plain.counter, plain.token_count) == ("estimate", estimate_tokens(plain.text))
    assert plain.text == built.text


@pytest.mark.rule("CX-20", "CX-24")
def test_real_count_drops_what_the_estimate_takes_for_small_enough() -> None:
    view = view_of(story(until="merged"))
    whole = build_pack(view, CONFIG, role="qa", phase="TEST").text
    # A small vocabulary makes many tokens: a third of the bytes is no upper bound.
    assert (real := COUNTERS["bytes"].count(whole)) > estimate_tokens(whole)
    counting = Counting((COUNTERS["bytes"],))
    guessed = build_pack(view, CONFIG, role="qa", phase="TEST", token_budget=real - 1)
    exact = build_pack(view, CONFIG, role="qa", phase="TEST", token_budget=real - 1, counting=counting)
    assert (guessed.text, guessed.dropped) == (whole, ())
    assert exact.dropped
    assert exact.token_count < real
    assert build_pack(view, CONFIG, role="qa", phase="TEST", token_budget=real + 2, counting=counting).text == whole


@pytest.mark.rule("CX-21")
def test_pack_is_no_larger_than_what_the_smallest_context_leaves() -> None:
    view = view_of(story(until="task"))
    built = build_pack(view, CONFIG, role="developer", phase="BUILD", task_id=TASK, counting=Counting(room=700))
    assert built.budget == 700
    assert built.token_count <= 700
    with pytest.raises(ContextTooLarge) as caught:
        build_pack(view, CONFIG, role="developer", phase="BUILD", task_id=TASK, counting=Counting(room=20))
    assert caught.value.details["budget"] == 20


@pytest.mark.rule("CX-26")
def test_text_that_is_counted_does_not_grow_with_the_search() -> None:
    items = [
        Item("MILESTONES", 8, f"m{n}", "Milestones", f"- milestone {n} was reached after {n} steps") for n in range(400)
    ]
    counter = _Remembering()
    text, _ = assemble(items, budget=1500, counting=Counting((counter,)))
    whole = sum(len(item.text.encode()) for item in items)
    assert 1400 < counter.count(text) <= 1500
    assert counter.counted_bytes < 4 * whole


class _Remembering(Counter):
    """As the adapter does, it counts no text twice."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[str, int] = {}

    def count(self, text: str) -> int:
        if text not in self._counts:
            self._counts[text] = super().count(text)
        return self._counts[text]


@pytest.mark.rule("CX-20")
def test_outline_of_a_summary_goes_by_the_same_count() -> None:
    text = "## Decisions\n" + "\n".join(f"- keep the lease {n} in Redis" for n in range(60)) + "\n"
    tokens = COUNTERS["bytes"].count(text)
    assert outline_of(text, tokens=tokens, count=COUNTERS["bytes"].count) == text
    assert "more lines are left out" in outline_of(text, tokens=tokens // 2, count=COUNTERS["bytes"].count)
    assert outline_of(text, tokens=tokens - 1) == text
