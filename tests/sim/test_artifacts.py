"""Where the documents of a story are kept: in its tree and the blob store, or there alone (PL-53)."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest

from fleet.events.codec import decode
from fleet.events.payload import Payload
from fleet.events.plan import CheckpointSaved
from fleet.events.story import StoryClosed
from fleet.events.task import TreeMerged
from fleet.events.workspace import DocsProduced
from fleet.kernel.ids import StreamId
from fleet.trees.service import read_tree
from tests.support.sim_histories import STORY
from tests.support.sim_judge import expected_ends, judge, parks_of
from tests.support.sim_world import FULL, Scenario, simulate
from tests.support.simulation import simulated

FOLDER = f"docs/stories/{STORY}/"
WRITTEN = Scenario("written", stories=("branch",), shards=1, faults_until_s=0.0)
KEPT = replace(WRITTEN, name="kept", artifacts="off")


@dataclass(frozen=True)
class Left:
    """What a whole story left behind."""

    payloads: list[Payload]
    docs: dict[str, bytes]
    """Documents by the last part of their path, as the blob store has them."""
    files: set[str]
    """Paths in the tree of the last commit."""

    def of(self, kind: type[Payload]) -> list[Payload]:
        return [payload for payload in self.payloads if isinstance(payload, kind)]


def left_by(scenario: Scenario) -> Left:
    outcome = simulate("peace", scenario)
    assert parks_of(judge(outcome, None)) == []

    async def what() -> Left:
        stores = outcome.stores
        payloads = [decode(event) for event in await stores.log.read(StreamId.of_story(STORY))]
        (produced,) = (payload for payload in payloads if isinstance(payload, DocsProduced))
        docs = {d.path.removeprefix(FOLDER): await stores.blobs.get(d.artifact_digest) for d in produced.docs}
        last = [payload for payload in payloads if isinstance(payload, TreeMerged)][-1]
        return Left(payloads, docs, set(await read_tree(stores.blobs, last.result_digest)))

    with simulated("read") as loop:
        return loop.run_until_complete(what())


@pytest.fixture(scope="module")
def written() -> Left:
    return left_by(WRITTEN)


@pytest.fixture(scope="module")
def kept() -> Left:
    return left_by(KEPT)


@pytest.mark.rule("PL-53")
def test_documents_stand_in_the_tree_and_in_the_blob_store(written: Left) -> None:
    assert {"requirements.md", "plan.json", "design.md", "test-report.json"} <= written.docs.keys()
    assert {FOLDER + name for name in written.docs} <= written.files
    assert len(written.of(TreeMerged)) == 3  # the base, the task, the documents


@pytest.mark.rule("PL-53")
def test_documents_that_are_switched_off_stand_in_the_blob_store_alone(written: Left, kept: Left) -> None:
    assert isinstance(kept.payloads[-1], StoryClosed)
    assert kept.docs.keys() == written.docs.keys()
    assert all(kept.docs.values())
    assert b"acceptance criteria" in kept.docs["requirements.md"].lower()
    assert json.loads(kept.docs["plan.json"])[0]["title"] == json.loads(written.docs["plan.json"])[0]["title"]
    assert not [path for path in kept.files if path.startswith("docs/")]
    assert kept.files == {path for path in written.files if not path.startswith(FOLDER)}


@pytest.mark.rule("PL-53", "PL-47")
def test_tree_without_documents_is_neither_merged_nor_saved_once_more(kept: Left) -> None:
    base, task = kept.of(TreeMerged)
    (produced,) = kept.of(DocsProduced)
    assert isinstance(base, TreeMerged)
    assert isinstance(task, TreeMerged)
    assert isinstance(produced, DocsProduced)
    assert base.result_digest != task.result_digest == produced.tree_digest
    assert len(kept.of(CheckpointSaved)) == 1
    # Each criterion names the run that measured this very tree.
    assert all(produced.criteria.values())


@pytest.mark.rule("PL-53", "CN-122")
def test_story_without_documents_in_its_tree_comes_to_the_same_end_under_faults() -> None:
    scenario = replace(FULL, name="kept-full", stories=("branch",), artifacts="off")
    expected = expected_ends(scenario)
    for seed in range(2):
        judge(simulate(seed, scenario), expected)
