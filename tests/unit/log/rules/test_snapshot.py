"""Snapshots are kept packed, and what is no packed snapshot is none."""

from __future__ import annotations

import zlib

import pytest

from fleet.log.rules import packed, unpacked
from fleet.story.snapshot import encode_state
from tests.support.story_events import story


def test_state_of_a_story_takes_a_fraction_of_its_room() -> None:
    state = encode_state(story().state)
    small = packed(state, max_bytes=len(state))
    assert small is not None
    assert len(small) < len(state) / 4
    assert unpacked(small) == state


@pytest.mark.parametrize("data", [b"", b'{"state":1}', zlib.compress(b"state" * 99)[:-4], zlib.compress(b"a") + b"b"])
def test_anything_else_is_no_snapshot(data: bytes) -> None:
    assert unpacked(data) is None
