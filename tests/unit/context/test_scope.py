"""The scope matrix and its check (CX-1..CX-4)."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fleet.context.scope import SCOPES, ContextConfig, check, scopes_for
from fleet.kernel.errors import InvalidInput, PolicyDenied
from tests.support.context import context_config

CONFIG = context_config()
HEADER = ("CASE_HEADER", "PLAN_HEADER")


def changed(**changes: Any) -> dict[str, Any]:
    return CONFIG.model_dump(mode="json") | changes


@pytest.mark.rule("CX-1", "CX-2")
@pytest.mark.parametrize(
    ("phase", "role", "further"),
    [
        ("DESIGN", "architect", ("DECISIONS_GLOBAL", "DEPS_DECISIONS", "MILESTONES", "SUMMARY_LAST")),
        ("DESIGN", "developer", ("DECISIONS_RELEVANT_ROLE", "DEPS_RELEVANT", "SUMMARY_LAST")),
        ("DESIGN", "devops", ("DECISIONS_RELEVANT_ROLE", "DEPS_RELEVANT", "MILESTONES")),
        ("DESIGN", "qa", ("DECISIONS_GLOBAL", "SUBTASKS_ALL", "MILESTONES", "SUMMARY_LAST")),
        ("DESIGN", "data", ("DECISIONS_RELEVANT_ROLE", "DEPS_RELEVANT")),
        ("DESIGN", "po", ("DECISIONS_GLOBAL_MIN", "SUBTASKS_ALL_MIN", "MILESTONES", "SUMMARY_LAST")),
        ("BUILD", "architect", ("DECISIONS_GLOBAL", "DEPS_DECISIONS", "SUBTASKS_ALL", "MILESTONES")),
        ("BUILD", "developer", ("DECISIONS_RELEVANT_ROLE", "DEPS_RELEVANT", "SUBTASKS_ROLE")),
        ("BUILD", "devops", ("DECISIONS_RELEVANT_ROLE", "DEPS_RELEVANT", "SUBTASKS_ROLE")),
        ("BUILD", "qa", ("DECISIONS_GLOBAL_MIN", "SUBTASKS_ALL_MIN", "MILESTONES")),
        ("BUILD", "data", ("DECISIONS_RELEVANT_ROLE", "SUBTASKS_ROLE")),
        ("BUILD", "po", ("DECISIONS_GLOBAL_MIN", "SUBTASKS_ALL_MIN", "MILESTONES", "SUMMARY_LAST")),
        ("TEST", "architect", ("DECISIONS_GLOBAL_MIN", "SUBTASKS_ALL_MIN")),
        ("TEST", "developer", ("SUBTASKS_ROLE_MIN",)),
        ("TEST", "devops", ("SUBTASKS_ROLE_MIN",)),
        ("TEST", "qa", ("DECISIONS_GLOBAL", "SUBTASKS_ALL", "MILESTONES")),
        ("TEST", "po", ("DECISIONS_GLOBAL_MIN", "SUBTASKS_ALL_MIN", "MILESTONES", "SUMMARY_LAST")),
        ("DOCS", "architect", ("DECISIONS_GLOBAL", "SUMMARY_LAST")),
        ("DOCS", "qa", ("SUBTASKS_ALL_MIN", "MILESTONES")),
        ("DOCS", "po", ("DECISIONS_GLOBAL_MIN", "SUBTASKS_ALL_MIN", "MILESTONES", "SUMMARY_LAST")),
        ("DOCS", "deployer", ("DECISIONS_RELEVANT_ROLE", "DEPS_RELEVANT", "SUBTASKS_ROLE_MIN", "MILESTONES")),
        ("DOCS", "monitor", ("DECISIONS_RELEVANT_ROLE", "DEPS_RELEVANT", "SUBTASKS_ROLE_MIN", "MILESTONES")),
    ],
)
def test_cell_of_the_matrix_names_its_scopes_and_no_other(phase: str, role: str, further: tuple[str, ...]) -> None:
    assert scopes_for(CONFIG, phase, role) == HEADER + further


@pytest.mark.rule("CX-2")
@pytest.mark.parametrize(
    ("profile", "base"),
    [("planner", "architect"), ("designer", "architect"), ("implementer", "developer"), ("tester", "qa")],
)
@pytest.mark.parametrize("phase", ["DESIGN", "BUILD", "TEST"])
def test_profile_without_a_row_uses_the_row_of_its_base_role(profile: str, base: str, phase: str) -> None:
    assert scopes_for(CONFIG, phase, profile) == scopes_for(CONFIG, phase, base)


@pytest.mark.rule("CX-2")
def test_critic_sees_what_the_author_saw_without_the_summary() -> None:
    author = scopes_for(CONFIG, "DESIGN", "developer")
    assert scopes_for(CONFIG, "DESIGN", "critic", author="developer") == tuple(s for s in author if s != "SUMMARY_LAST")
    assert "SUBTASKS_ROLE" in scopes_for(CONFIG, "BUILD", "critic", author="implementer")


def test_critic_of_an_author_who_sees_nothing_is_denied() -> None:
    with pytest.raises(PolicyDenied):
        scopes_for(CONFIG, "DOCS", "critic", author="developer")


@pytest.mark.rule("CX-3")
@pytest.mark.parametrize(
    ("phase", "role"),
    [("TEST", "data"), ("DOCS", "data"), ("DOCS", "developer"), ("DOCS", "devops"), ("DEPLOY", "qa"), ("BUILD", "ceo")],
)
def test_everything_without_a_cell_is_denied_with_its_rule(phase: str, role: str) -> None:
    with pytest.raises(PolicyDenied) as caught:
        scopes_for(CONFIG, phase, role)
    assert caught.value.details["rule_id"] == "scope_denied"
    assert not check(CONFIG, phase=phase, role=role, provided=[]).allowed


@pytest.mark.rule("CX-4")
def test_check_is_exact_about_missing_and_extra_scopes() -> None:
    exact = scopes_for(CONFIG, "TEST", "developer")
    assert check(CONFIG, phase="TEST", role="developer", provided=exact).allowed
    found = check(CONFIG, phase="TEST", role="developer", provided=["CASE_HEADER", "PLAN_HEADER", "MILESTONES"])
    assert (found.allowed, found.missing, found.extra) == (False, ("SUBTASKS_ROLE_MIN",), ("MILESTONES",))
    assert not check(CONFIG, phase="TEST", role="developer", provided=SCOPES).allowed


def test_check_of_a_denied_cell_lists_what_was_provided_as_extra() -> None:
    assert check(CONFIG, phase="TEST", role="data", provided=["MILESTONES"]).extra == ("MILESTONES",)


@pytest.mark.rule("CX-4")
def test_check_of_an_unknown_scope_is_refused() -> None:
    with pytest.raises(InvalidInput, match="EVERYTHING"):
        check(CONFIG, phase="TEST", role="qa", provided=["EVERYTHING"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"profiles": {"x": {"extends": "nobody"}}}, "nobody"),
        ({"profiles": {"qa": {"extends": "architect"}}}, "stands in the matrix and among"),
        ({"budget": CONFIG.budget.model_dump() | {"base": {"chef": 4096}}}, "chef"),
        ({"matrix": {"DESIGN": {"qa": ["ALL"]}}}, "ALL"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_config_with_a_wrong_reference_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ContextConfig.model_validate(changed(**changes))
