"""Names of traces and spans follow from what is known, and have the form of W3C Trace Context."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.telemetry.otlp import TraceContext, is_sampled, parse_traceparent, span_id_of, story_trace_id

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_header_of_a_span_names_it_again() -> None:
    context = TraceContext(TRACE, SPAN)
    assert context.traceparent == f"00-{TRACE}-{SPAN}-01"
    assert parse_traceparent(context.traceparent) == context


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
    ],
)
def test_header_of_another_form_names_nothing(header: str | None) -> None:
    assert parse_traceparent(header) is None


@pytest.mark.parametrize("recorded", ["", "0" * 32, "t-1", TRACE[:31]])
def test_story_without_a_recorded_trace_has_one_that_follows_from_its_id(recorded: str) -> None:
    found = story_trace_id("st-words-1", recorded)
    assert re.fullmatch(r"[0-9a-f]{32}", found)
    assert found == story_trace_id("st-words-1") != story_trace_id("st-words-2")


def test_recorded_trace_is_that_of_the_story() -> None:
    assert story_trace_id("st-words-1", TRACE) == TRACE


def test_span_ids_differ_where_names_are_split_elsewhere() -> None:
    assert re.fullmatch(r"[0-9a-f]{16}", span_id_of("step", "a", "b"))
    assert len({span_id_of("ab", "c"), span_id_of("a", "bc"), span_id_of("abc")}) == 3


@given(st.lists(st.text(max_size=8), min_size=1, max_size=3), st.floats(0, 1))
@settings(max_examples=50)
def test_share_of_traces_only_grows_with_the_ratio(names: list[str], ratio: float) -> None:
    trace_id = span_id_of(*names) * 2
    assert is_sampled(trace_id, 1.0)
    assert not is_sampled(trace_id, 0.0)
    assert is_sampled(trace_id, min(1.0, ratio + 0.1)) or not is_sampled(trace_id, ratio)
