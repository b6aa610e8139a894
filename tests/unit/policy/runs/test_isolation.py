"""What a fleet may go without, and what it never may."""

from __future__ import annotations

import pytest

from fleet.policy.runs.isolation import WAIVABLE, item_of, split_unmet

FINDINGS = ("disk (check 31): no quota here", "pids (check 30): no limit", "kernel_files: readable")


@pytest.mark.rule("RC-32")
def test_waived_items_are_told_apart_from_those_that_refuse_a_run() -> None:
    assert split_unmet(FINDINGS, {"disk"}) == (FINDINGS[1:], FINDINGS[:1])
    assert split_unmet(FINDINGS, ()) == (FINDINGS, ())
    assert split_unmet((), WAIVABLE) == ((), ())


@pytest.mark.rule("RC-32")
@pytest.mark.parametrize(
    "item", ["wall_time", "idle_time", "memory", "pids", "output", "kill_all", "controls", "sandbox"]
)
def test_time_memory_processes_and_output_are_never_waived(item: str) -> None:
    finding = f"{item} (check 1): it does not hold"
    assert item not in WAIVABLE
    assert split_unmet([finding], [item]) == ((finding,), ())


def test_item_of_a_finding_is_its_first_word() -> None:
    assert [item_of(finding) for finding in FINDINGS] == ["disk", "pids", "kernel_files"]
