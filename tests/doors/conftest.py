"""The fleet that all tests of doors share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.task_at_hand import TaskAtHand
from tests.support.world import World, joined_world, running_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One real fleet for all doors; a test makes what it changes, and reads what others made."""
    if home := os.environ.get("DOORS_HOME"):
        joined = joined_world(tmp_path_factory.mktemp("doors"), Path(home))
        with joined.client:
            yield joined
        return
    with running_world(tmp_path_factory.mktemp("doors"), tmp_path_factory.mktemp("d")) as found:
        yield found


@pytest.fixture(scope="session")
def at_hand(world: World) -> TaskAtHand:
    """A task that the caller has claimed; made on first use, and again once the team has done it."""
    return TaskAtHand(world)


@pytest.fixture(autouse=True)
def doors_answered(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test goes through every door that its marks name."""
    named = {door for mark in request.node.iter_markers("door") for door in mark.args}
    if not named:
        yield
        return
    world: World = request.getfixturevalue("world")
    world.passed.clear()
    yield
    assert named - world.passed == set(), "these doors were not gone through, or did not answer well"
