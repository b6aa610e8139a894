"""The newest checkpoint is the story tree at every moment after the first merge, whatever step comes next (PL-47)."""

from __future__ import annotations

import json

import pytest

from fleet.events import CheckpointSaved, StoredEvent, TreeMerged, decode
from fleet.story import fold
from tests.support.sim_histories import MADE


@pytest.fixture(scope="module")
def events() -> list[StoredEvent]:
    return MADE["simulated"]()


@pytest.mark.rule("PL-47")
def test_every_merge_of_a_plan_is_recorded_together_with_its_checkpoint(events: list[StoredEvent]) -> None:
    merges = [e for e in events if e.type == TreeMerged.type][1:]  # the first one is the base, before any plan
    checkpoints = {e.command_id: decode(e) for e in events if e.type == CheckpointSaved.type}
    assert len(merges) == len(checkpoints) >= 2
    for event in merges:
        merged, saved = decode(event), checkpoints[event.command_id]
        assert isinstance(merged, TreeMerged)
        assert isinstance(saved, CheckpointSaved)
        assert saved.tree_digest == merged.result_digest
        after = fold([e for e in events if e.command_id == event.command_id or e.version < event.version])
        assert after is not None
        assert (saved.plan_id, saved.task_states) == (after.plan_id, {k: t.state for k, t in after.tasks.items()})


@pytest.mark.rule("PL-47", "RC-36")
def test_no_step_begins_on_a_tree_that_has_no_checkpoint(events: list[StoredEvent]) -> None:
    saved: str | None = None
    begun = 0
    for n, event in enumerate(events):
        if event.type == CheckpointSaved.type:
            saved = json.loads(event.body)["tree_digest"]
        if event.type == "StepStarted" and saved is not None:
            state = fold(events[:n])
            assert state is not None
            assert state.tree == saved
            begun += 1
    assert begun >= 3
