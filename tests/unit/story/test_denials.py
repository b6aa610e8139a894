"""A task whose calls are refused again and again."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.events.payload import Payload
from fleet.events.step import StepStarted, ToolDenied
from fleet.kernel.digest import digest_of_json
from fleet.kernel.ids import EntityId, Principal
from fleet.story.state import stuck_on_denial
from tests.support.event_samples import samples

TASK = EntityId("tk-one1")


def denied(word: str = "a", **changes: Any) -> ToolDenied:
    found = samples()["ToolDenied"]
    assert isinstance(found, ToolDenied)
    return found.model_copy(update={"task_id": TASK, "call_digest": digest_of_json(word), **changes})


def step() -> StepStarted:
    found = samples()["StepStarted"]
    assert isinstance(found, StepStarted)
    return found.model_copy(update={"task_id": TASK})


@pytest.mark.rule("RT-67", "MB-40")
def test_third_identical_denial_of_a_task_makes_it_stuck() -> None:
    assert stuck_on_denial([denied()], denied()) is None
    found = stuck_on_denial([denied(), step(), denied()], denied())
    assert found is not None
    assert (found.task_id, found.pattern, found.level) == (TASK, "repeated_denial", 1)


@pytest.mark.rule("RT-67")
@pytest.mark.parametrize(
    "before",
    [
        [denied("b"), denied("b")],
        [denied(principal=Principal("agent:qa-001")), denied()],
        [denied(task_id=EntityId("tk-other2")), denied()],
        [denied(call_digest=None), denied(call_digest=None)],
        [denied(), *[step()] * 18, denied()],
    ],
)
def test_denials_that_differ_or_lie_far_back_do_not_count(before: list[Payload]) -> None:
    assert stuck_on_denial(before, denied()) is None


def test_denials_without_a_task_or_of_an_unknown_call_never_count() -> None:
    for one in (denied(task_id=None), denied(call_digest=None)):
        assert stuck_on_denial([one, one, one], one) is None


@pytest.mark.rule("MB-41")
def test_stuck_task_is_told_once() -> None:
    found = stuck_on_denial([denied(), denied()], denied())
    assert found is not None
    assert stuck_on_denial([denied(), denied(), denied(), found], denied()) is None
