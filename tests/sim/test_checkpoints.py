"""The newest checkpoint is the story tree at every moment after the first merge; a person goes back to one (PL-47)."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fleet.events.codec import decode
from fleet.events.envelope import StoredEvent
from fleet.events.plan import CheckpointSaved
from fleet.events.step import StepFinished
from fleet.events.story import StoryClosed
from fleet.events.task import TreeMerged
from fleet.kernel.ids import StreamId
from fleet.story.evolve.story import fold
from fleet.workspace.service.specs import PACK
from tests.support.sim_histories import MADE, STORY
from tests.support.sim_judge import expected_ends, judge, parks_of
from tests.support.sim_world import FULL, Outcome, Scenario, simulate
from tests.support.simulation import simulated


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


@pytest.mark.rule("GR-64", "RP-36")
def test_every_merge_names_the_run_that_made_its_commit(events: list[StoredEvent]) -> None:
    made = [m for m in merges(events) if m.base_digest != m.result_digest]
    packed = {
        end.step_id
        for end in map(decode, events)
        if isinstance(end, StepFinished) and any(one.path == PACK for one in end.artifacts)
    }
    assert len(made) >= 2
    assert {merged.step_id for merged in made} <= packed
    assert len({merged.step_id for merged in made}) == len(made)


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


# A story of two tasks whose person, asked about the documents, sets the tree back to where the first task left it.

RESTORED = Scenario("restored", stories=("restored",), shards=1, faults_until_s=0.0)


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return simulate("peace", RESTORED)


@pytest.fixture(scope="module")
def gone_back(outcome: Outcome) -> list[StoredEvent]:
    with simulated("read") as loop:
        return loop.run_until_complete(outcome.stores.log.read(StreamId.of_story(STORY)))


def merges(events: list[StoredEvent]) -> list[TreeMerged]:
    return [p for p in map(decode, events) if isinstance(p, TreeMerged)]


@pytest.mark.rule("PL-47", "PL-43")
def test_restored_story_goes_on_to_its_end_and_its_branch_holds_what_was_undone_too(
    outcome: Outcome, gone_back: list[StoredEvent]
):
    verdict = judge(outcome, None)
    assert parks_of(verdict) == []
    assert isinstance(decode(gone_back[-1]), StoryClosed)
    _, first, second, docs, back, again, documents = merges(gone_back)
    assert back.restored_from is not None
    assert back.task_id is None
    # A merge like every other: on top of the last tree and the last commit, which both stay.
    assert (back.base_digest, back.result_digest) == (docs.result_digest, first.result_digest)
    assert len({m.commit for m in (first, second, docs, back, again, documents)}) == 6
    assert {f.path: f.change for f in back.files}.keys() == {f.path for m in (second, docs) for f in m.files}
    # The work was done anew and came to the same, so the very same tree was accepted, measured and documented again.
    assert (again.result_digest, documents.result_digest) == (second.result_digest, docs.result_digest)
    assert outcome.stores.forge.moved[f"fleet/{STORY}"] == 1


@pytest.mark.rule("PL-47", "PL-49")
def test_restoration_is_one_append_with_its_tasks_its_state_and_a_checkpoint(gone_back: list[StoredEvent]):
    at = next(e for e in gone_back if e.type == TreeMerged.type and json.loads(e.body).get("restored_from"))
    together = [e.type for e in gone_back if e.command_id == at.command_id]
    assert together == ["TreeMerged", "TaskTransitioned", "StoryTransitioned", "CheckpointSaved"]
    before = fold([e for e in gone_back if e.version < at.version])
    after = fold([e for e in gone_back if e.version < at.version + len(together)])
    assert before is not None
    assert after is not None
    assert [t.state for t in before.tasks.values()] == ["done", "done"]
    assert [t.state for t in after.tasks.values()] == ["done", "todo"]
    newest = list(after.checkpoints.values())[-1]
    assert (newest.tree, newest.task_states) == (after.tree, {k: t.state for k, t in after.tasks.items()})
    assert (before.state, after.state) == ("DOCS", "BUILD")


@pytest.mark.rule("PL-47", "CN-122")
def test_story_is_restored_under_faults_of_every_kind_and_ends_as_without_any():
    scenario = replace(FULL, name="restored-full", stories=("restored",))
    expected = expected_ends(scenario)
    for seed in range(3):
        judge(simulate(seed, scenario), expected)


@pytest.mark.rule("PL-47")
@pytest.mark.parametrize("forward_at", [247, 271, 292, 301, 310, 322])
def test_what_was_undone_is_had_again_whatever_is_under_way(forward_at: int):
    outcome = simulate("peace", replace(RESTORED, forward_at=forward_at))
    verdict = judge(outcome, None)
    assert parks_of(verdict) == []
    found = merges(list(verdict.events[StreamId.of_story(STORY)]))
    back, forward = (m for m in found if m.restored_from is not None)
    assert forward.result_digest == found[2].result_digest != back.result_digest
    state = verdict.states[STORY]
    assert (state.closed, {t.state for t in state.tasks.values()}) == (True, {"done"})
    assert all(c.status != "IN_PROGRESS" for c in state.councils.values())
