"""Shares of busy time add up to it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.models.routing.circuit import BusyMeter


@pytest.mark.rule("MB-15")
def test_two_calls_at_once_share_what_they_had_together() -> None:
    meter = BusyMeter()
    first = meter.begin(0)
    second = meter.begin(100)
    assert meter.running == 2
    assert meter.end(first, 300) == pytest.approx(200)
    assert meter.end(second, 400) == pytest.approx(200)
    assert meter.busy_ms(1000) == 400


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 7), st.booleans()), max_size=40))
def test_shares_always_add_up_to_the_busy_time(steps: list[tuple[int, int, bool]]) -> None:
    meter, marks, now, charged = BusyMeter(), list[float](), 0, 0.0
    for wait, which, begins in steps:
        now += wait
        if begins:
            marks.append(meter.begin(now))
        elif marks:
            charged += meter.end(marks.pop(which % len(marks)), now)
    charged += sum(meter.end(mark, now) for mark in marks)
    assert charged == pytest.approx(meter.busy_ms(now))
