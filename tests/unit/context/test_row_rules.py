"""Which stories, tasks and decisions each role sees (CX-10..CX-15)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fleet.context.row_rules import RowRules
from fleet.events.approval import ApprovalRequested
from fleet.kernel.ids import EntityId, Principal
from fleet.policy.roles import load_roles
from fleet.story.state import Claim, StoryState, TaskState
from tests.support.rules import files, fsm
from tests.support.story_events import DECISION, DOC_TASK, TASK, decision_payload, digest, story, subject, task_of

RULES = RowRules(lambda _: fsm(), load_roles(files().document("roles.yaml")).roles)
DEV, OTHER = Principal("user:dev"), Principal("user:other")


def task(**changes: Any) -> TaskState:
    state = {name: changes.pop(name) for name in ("state", "claim", "author") if name in changes}
    return TaskState(task=task_of(TASK, **changes), **state)


def of(*tasks: TaskState, state: str = "BUILD", lifecycle: str = "agile") -> StoryState:
    """A story in this state with these tasks, for which nothing waits."""
    found = story(until="planned").state
    held = {f"tk-{n}": one for n, one in enumerate(tasks)}
    return replace(found, tasks=held, state=state, lifecycle=lifecycle, approvals={})


def stories_of(role: str, state: StoryState, who: Principal = DEV) -> bool:
    return RULES.sees_story(who, {role}, state)


def categories_of(role: str) -> set[str]:
    found = story(until="planned").state.decisions[DECISION]
    every = ("ARCHITECTURE", "INFRASTRUCTURE", "SECURITY", "QUALITY", "TESTING", "DATA", "SCOPE")
    return {
        name
        for name in every
        if RULES.sees_decision(DEV, {role}, replace(found, proposed=decision_payload(category=name)))
    }


@pytest.mark.rule("CX-10")
@pytest.mark.parametrize(("who", "held"), [("user:ana", {"po"}), ("system:council", set[str]())])
def test_po_and_services_see_every_row(who: str, held: set[str]) -> None:
    state = of(task(role="data", claim=Claim(OTHER, 9)))
    assert RULES.sees_every_story(Principal(who), held)
    assert RULES.sees_story(Principal(who), held, state)
    assert all(RULES.sees_task(Principal(who), held, one) for one in state.tasks.values())


@pytest.mark.parametrize("held", [set[str](), {"admin"}, {"nobody"}])
def test_who_holds_no_role_of_the_team_sees_no_story(held: set[str]) -> None:
    state = story(until="planned").state
    assert not RULES.sees_story(DEV, held, state)
    assert not any(RULES.sees_task(DEV, held, one) for one in state.tasks.values())
    assert not any(RULES.sees_decision(DEV, held, one) for one in state.decisions.values())


@pytest.mark.rule("CX-12")
def test_developer_sees_stories_with_tasks_that_are_its_own_or_free_for_its_role() -> None:
    assert stories_of("developer", of(task()))
    assert stories_of("implementer", of(task())), "a profile has the tasks of its base role"
    assert not stories_of("developer", of())
    assert not stories_of("developer", of(task(role="data", kind="data")))
    assert not stories_of("developer", of(task(state="implementing", claim=Claim(OTHER, 9))))
    assert stories_of("developer", of(task(state="implementing", claim=Claim(OTHER, 9)), task(claim=Claim(DEV, 9))))
    assert RULES.sees_task(DEV, {"developer"}, task(state="implementing", claim=Claim(DEV, 9)))
    assert RULES.sees_task(DEV, {"developer"}, task(state="arch_reviewing", claim=Claim(OTHER, 9))), "a reviewer's"
    assert not RULES.sees_task(DEV, {"developer"}, task(state="implementing", claim=Claim(OTHER, 9)))
    assert not RULES.sees_task(DEV, {"developer"}, task(role="data", kind="data"))
    assert categories_of("developer") >= {"QUALITY", "DATA", "SECURITY"}, "all of a story that it sees"


@pytest.mark.rule("CX-13")
@pytest.mark.parametrize(
    ("state", "seen"),
    [
        (of(task(state="implementing")), False),
        (of(task(state="qa_passed")), False),
        (of(task(state="pending_qa")), True),
        (of(task(state="qa_testing")), True),
        (of(task(state="done"), state="TEST"), True),
        (of(task(state="done"), state="REVIEW", lifecycle="sdlc"), True),
        (of(task(state="done"), state="DOCS"), False),
        (of(state="REVIEW", lifecycle="gone"), False),
    ],
)
def test_qa_sees_stories_in_test_or_with_a_task_that_it_is_to_test(state: StoryState, seen: bool) -> None:
    assert stories_of("qa", state) is seen
    assert stories_of("tester", state) is seen


@pytest.mark.rule("CX-13")
def test_qa_sees_tests_tasks_in_its_states_and_decisions_of_its_categories() -> None:
    assert RULES.sees_task(DEV, {"qa"}, task(kind="test"))
    assert RULES.sees_task(DEV, {"qa"}, task(state="qa_failed"))
    assert not RULES.sees_task(DEV, {"qa"}, task(state="implementing"))
    assert categories_of("qa") == {"QUALITY", "TESTING", "ARCHITECTURE"}


@pytest.mark.rule("CX-14")
def test_devops_sees_stories_with_its_tasks_or_in_operation() -> None:
    own = task(role="devops", kind="deploy")
    assert stories_of("devops", of(task(), own))
    assert stories_of("devops", of(task(role="deployer", kind="deploy"))), "a profile's task is the base role's"
    assert not stories_of("devops", of(task()))
    for state in ("DEPLOY", "MONITOR"):
        assert stories_of("devops", of(task(), state=state, lifecycle="sdlc"))
        assert not stories_of("data", of(task(), state=state, lifecycle="sdlc"))
    assert RULES.sees_task(DEV, {"devops"}, own)
    assert not RULES.sees_task(DEV, {"devops"}, task())
    assert categories_of("devops") == {"INFRASTRUCTURE", "SECURITY", "ARCHITECTURE"}


@pytest.mark.rule("CX-15")
def test_data_sees_stories_with_its_tasks() -> None:
    own = task(role="data", kind="data")
    assert stories_of("data", of(task(), own))
    assert not stories_of("data", of(task()))
    assert not RULES.sees_task(DEV, {"data"}, task())
    assert categories_of("data") == {"DATA", "ARCHITECTURE"}


def test_several_roles_see_what_each_of_them_sees() -> None:
    found = of(task(role="data", kind="data"), state="TEST")
    (own,) = found.tasks.values()
    assert RULES.sees_task(DEV, {"qa", "data"}, own)
    assert not RULES.sees_task(DEV, {"qa"}, own)


def test_who_is_asked_to_decide_sees_the_story() -> None:
    asked = ApprovalRequested(
        approval_id=EntityId("ap-1x"),
        gate="waive_dimension",
        role="qa",
        actor="human",
        subject=subject("report", "rp-1", digest("report")),
        risk="low",
        expires_at=9**15,
        attempt=1,
        card_digest=digest("card"),
        requested_by=Principal("system:council"),
    )
    waits = story(until="planned").add(asked).state
    assert RULES.sees_story(DEV, {"qa"}, waits)
    assert not RULES.sees_story(DEV, {"data"}, waits)
    assert DOC_TASK in waits.tasks
