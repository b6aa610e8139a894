"""Small texts stay whole, and large ones share the rest of the room evenly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.models.routing.fair_queue import fair_shares


@pytest.mark.parametrize(
    ("sizes", "room", "expected"),
    [([], 9, []), ([3, 4], 9, [3, 4]), ([100, 2, 100], 10, [4, 2, 4]), ([5, 5], 0, [0, 0]), ([7, 7], 9, [4, 5])],
)
def test_room_is_shared(sizes: list[int], room: int, expected: list[int]) -> None:
    assert fair_shares(sizes, room) == expected


@given(st.lists(st.integers(0, 1000), max_size=20), st.integers(0, 5000))
def test_no_room_is_wasted_and_none_is_taken_twice(sizes: list[int], room: int) -> None:
    shares = fair_shares(sizes, room)
    assert sum(shares) == min(sum(sizes), room)
    assert all(share <= size for share, size in zip(shares, sizes, strict=True))
