"""Replay: equal histories give equal digests, on every machine and from every prefix (GL-16, PL-49)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.kernel.digest import digest_of
from fleet.story.evolve.story import fold
from fleet.story.snapshot import encode_state, replay
from tests.support.rules import fsm
from tests.support.story_events import story

ROOT = Path(__file__).resolve().parents[3]
IN_ANOTHER_PROCESS = """
import json
from fleet.story.snapshot import replay
from tests.support.rules import fsm
from tests.support.story_events import story
print(json.dumps([[e.state_digest, e.plan_digest] for e in replay(story().events, fsm())]))
"""


@pytest.mark.rule("GL-16", "PL-49")
def test_every_version_has_the_digest_of_its_prefix_folded_from_nothing():
    events = story().events
    entries = list(replay(events, fsm()))
    assert [entry.version for entry in entries] == list(range(1, len(events) + 1))
    for cut in range(1, len(events) + 1, 7):
        state = fold(events[:cut])
        assert state is not None
        assert entries[cut - 1].state_digest == digest_of(encode_state(state))
        assert entries[cut - 1].hash == events[cut - 1].hash
    assert (entries[-1].state, entries[-1].owed) == ("DONE", ())


@pytest.mark.rule("GL-16")
def test_another_process_with_another_hash_seed_comes_to_the_same_digests():
    found = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", IN_ANOTHER_PROCESS],
                cwd=ROOT,
                env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for seed in ("1", "4711")
    ]
    assert found[0] == found[1]
    assert found[0] == [[e.state_digest, e.plan_digest] for e in replay(story().events, fsm())]


def test_another_history_has_other_digests():
    plain, shorter = list(replay(story().events, fsm())), list(replay(story(until="scope").events, fsm()))
    assert plain[: len(shorter)] == shorter
    assert plain[-1].state_digest != shorter[-1].state_digest
    assert plain[-1].plan_digest != shorter[-1].plan_digest
    assert shorter[-1].owed


def test_nothing_is_replayed_before_a_story_exists():
    assert list(replay([], fsm())) == []
