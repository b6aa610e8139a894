"""Measuring a tree twice: the tests on whose results its reports disagree count from L2 on (RG-46)."""

from __future__ import annotations

import json

import pytest

from fleet.events.story import RigorChanged
from fleet.events.task import TreeMerged
from fleet.owner.duties.procedure import measure_tree
from fleet.sandbox.memory import ProgramEnd
from fleet.story.intents import MeasureTree
from fleet.trees.tree import FileEntry, encode_tree
from fleet.workspace.service.specs import JUNIT, SUMMARY
from tests.support.bench import World
from tests.support.story_events import story

FAILS = '<failure message="it was too slow"/>'


def measured(*, fails: bool) -> ProgramEnd:
    """A pipeline in which a hundred tests passed, and one more passed or failed."""
    cases = "".join(f'<testcase classname="tests.test_page" name="test_{n}"/>' for n in range(100))
    last = f'<testcase classname="tests.test_page" name="test_load">{FAILS if fails else ""}</testcase>'
    names = ("build", "unit", "lint", "static", "e2e")
    stages = [{"name": name, "status": "passed", "exit_code": 0} for name in names]
    stages[1] |= {"status": "failed" if fails else "passed", "exit_code": int(fails)}
    summary = {"schema": 1, "stages": stages, "exit_code": int(fails)}
    junit = f"<testsuites><testsuite>{cases}{last}</testsuite></testsuites>"
    return ProgramEnd(int(fails), written={SUMMARY: json.dumps(summary).encode(), JUNIT: junit.encode()})


@pytest.mark.rule("RG-46")
async def test_test_that_failed_and_then_passed_on_one_tree_is_named_and_counts_as_failed_at_l2():
    ends = iter([measured(fails=True), measured(fails=False), measured(fails=False)])
    world = World(program=lambda _: next(ends))
    blob = await world.blobs.put(b"def page(): ...\n")
    tree = await world.blobs.put(encode_tree({"page.py": FileEntry("100644", blob)}))
    log = story(only=("created", "scored", "started"))
    log.add(TreeMerged(base_digest=tree, result_digest=tree, commit="0a" * 20, files=()))
    await log.write_to(world.log)
    bench = await world.bench()
    await measure_tree(bench, MeasureTree(tree=tree))
    first = bench.state.reports[tree]
    assert (first.flaky, first.summary.unit and first.summary.unit.failed) == (None, 1)
    for rigor in ("L2", "L3"):
        why = "customers see it from now on"
        await bench.journal.record(f"rigor/{rigor}", RigorChanged(from_=bench.state.rigor, to=rigor, reason=why))
        await measure_tree(bench, MeasureTree(tree=tree))
        report, score = bench.state.reports[tree], bench.state.scores[tree]
        assert report.flaky is not None
        # Two passes do not take back that the test failed on this very tree.
        assert report.flaky.unit == ("tests.test_page::test_load",)
        assert report.summary.unit is not None
        assert report.summary.unit.failed == 0
        assert (score.rigor, score.verdict) == (rigor, "block")
        assert any(
            reason.startswith("results differ on this tree") and "test_load" in reason for reason in score.reasons
        )
        assert next(d.value for d in score.dimensions if d.name == "unit") == "0.9900 (100 of 101 passed)"
