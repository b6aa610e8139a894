"""Task derivation: every bound of PL-20, all problems at once, inferred dependencies, both answer forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.models.replies.json_schema import schema_problems
from fleet.planning.coach import Problem
from fleet.planning.planning_config import PlanningConfig
from fleet.planning.tasks import TASK_KINDS, DerivedDependency, DerivedPlan, derivation_schema, validate_derivation

CONFIG = PlanningConfig.model_validate(
    yaml.safe_load((Path(__file__).parents[3] / "config" / "planning.yaml").read_text("utf-8"))
)
ROLES = ("developer", "qa")


def task(**more: Any) -> dict[str, Any]:
    return {
        "title": "Parse the file",
        "description": "Read it line by line.",
        "role": "developer",
        "kind": "code",
        "estimated_hours": 2,
        "priority": 1,
        "keywords": ["parser", "file"],
        "depends_on": [],
        "acceptance_refs": ["ac-1"],
        "paths": ["src/**"],
        **more,
    }


def derive(*tasks: Any, acceptance_ids: tuple[str, ...] = ("ac-1",)) -> list[Problem] | DerivedPlan:
    return validate_derivation(
        {"tasks": list(tasks)},
        acceptance_ids=acceptance_ids,
        decision_ids={"de-1"},
        assignable_roles=ROLES,
        config=CONFIG,
    )


def plan(*tasks: Any) -> DerivedPlan:
    found = derive(*tasks)
    assert isinstance(found, DerivedPlan), found
    return found


def codes(found: list[Problem] | DerivedPlan) -> list[str]:
    assert isinstance(found, list)
    return [p.code for p in found]


@pytest.mark.rule("PL-20")
def test_valid_answer_gives_its_tasks_unchanged() -> None:
    found = plan(task(), task(title="Test it", kind="test", role="qa", keywords=["a1", "b2"], depends_on=[0]))
    assert [t.title for t in found.tasks] == ["Parse the file", "Test it"]
    assert found.dependencies == (DerivedDependency(1, 0),)
    assert found.left_out == ()


@pytest.mark.rule("PL-20")
def test_task_may_leave_out_dependencies_and_paths_and_trace_to_a_decision() -> None:
    short = task(title="Other", keywords=["x1", "y1"], acceptance_refs=["de-1"])
    del short["depends_on"]
    del short["paths"]
    found = plan(task(), short)
    assert (found.tasks[1].depends_on, found.tasks[1].paths) == ((), ())


@pytest.mark.rule("PL-20", "PL-21")
@pytest.mark.parametrize(
    ("code", "fields"),
    [
        ("task_title", {"title": ""}),
        ("task_title", {"title": "x" * 81}),
        ("task_title", {"title": None}),
        ("task_description", {"description": " "}),
        ("task_description", {"description": "x" * 4001}),
        ("task_role", {"role": "king"}),
        ("task_role", {"role": ["developer"]}),
        ("task_kind", {"kind": "magic"}),
        ("task_hours", {"estimated_hours": 0}),
        ("task_hours", {"estimated_hours": 41}),
        ("task_hours", {"estimated_hours": "2"}),
        ("task_hours", {"estimated_hours": 2.0}),
        ("task_hours", {"estimated_hours": True}),
        ("task_priority", {"priority": 0}),
        ("task_priority", {"priority": 11}),
        ("task_keywords", {"keywords": ["one"]}),
        ("task_keywords", {"keywords": ["a1", "b1", "c1", "d1", "e1", "f1"]}),
        ("task_keywords", {"keywords": ["ok", "Upper"]}),
        ("task_keywords", {"keywords": ["ok", "two words"]}),
        ("task_keywords", {"keywords": ["ok", "x" * 31]}),
        ("task_keywords", {"keywords": ["same", "same"]}),
        ("task_keywords", {"keywords": "parser"}),
        ("task_dependency", {"depends_on": [0]}),
        ("task_dependency", {"depends_on": [1]}),
        ("task_dependency", {"depends_on": [-1]}),
        ("task_dependency", {"depends_on": [True]}),
        ("task_dependency", {"depends_on": "none"}),
        ("task_trace", {"acceptance_refs": ["ac-1", "ac-9"]}),
        ("task_trace", {"acceptance_refs": ["ac-1", "ac-1"]}),
        ("task_paths", {"paths": ["../x"]}),
        ("task_paths", {"paths": ["/etc/passwd"]}),
        ("task_paths", {"paths": ["a/.git/config"]}),
        ("task_paths", {"paths": ["a\\b"]}),
        ("task_paths", {"paths": [f"f{i}" for i in range(21)]}),
        ("reply", {"points": 3}),
    ],
)
def test_value_out_of_bounds_is_a_problem_and_never_clamped(code: str, fields: dict[str, Any]) -> None:
    found = derive(task(**fields))
    assert set(codes(found)) - {"ac_uncovered"} == {code}
    assert isinstance(found, list)
    assert found[0].task_index == 0


@pytest.mark.rule("PL-20")
@pytest.mark.parametrize("tasks", [[], [task(title=f"Task {i}") for i in range(9)]])
def test_number_of_tasks_out_of_bounds_is_a_problem(tasks: list[Any]) -> None:
    assert "task_count" in codes(derive(*tasks))


@pytest.mark.rule("PL-21")
def test_all_problems_of_an_answer_are_named_at_once() -> None:
    found = derive(
        "no object",
        task(title="One", role="king", depends_on=[2]),
        task(title="ONE", estimated_hours=99, depends_on=[1], acceptance_refs=[]),
        acceptance_ids=("ac-1", "ac-2"),
    )
    assert codes(found) == [
        "reply", "task_role", "task_hours", "task_trace", "task_title", "ac_uncovered", "plan_cycle",
    ]  # fmt: skip
    assert isinstance(found, list)
    assert [p.task_index for p in found] == [0, 1, 2, 2, 2, None, None]
    assert found[-1].ids == ("1", "2")


@pytest.mark.rule("PL-13")
def test_criterion_that_no_task_serves_is_uncovered() -> None:
    (problem,) = derive(task(), acceptance_ids=("ac-1", "ac-2"))
    assert isinstance(problem, Problem)
    assert (problem.code, problem.ids) == ("ac_uncovered", ("ac-2",))


@pytest.mark.rule("PL-30")
def test_dependencies_that_form_a_cycle_are_named_in_order() -> None:
    found = derive(*(task(title=f"Task {i}", depends_on=[(i + 1) % 3]) for i in range(3)))
    assert codes(found) == ["plan_cycle"]
    assert isinstance(found, list)
    assert found[0].ids == ("0", "1", "2")


@pytest.mark.parametrize("data", [{}, {"tasks": "none"}, {"tasks": None}])
def test_answer_without_a_list_of_tasks_is_a_problem(data: dict[str, Any]) -> None:
    found = validate_derivation(data, acceptance_ids=(), decision_ids=(), assignable_roles=ROLES, config=CONFIG)
    assert codes(found) == ["task_count"]


@pytest.mark.rule("GL-7")
def test_answer_with_an_unknown_field_is_a_problem() -> None:
    data = {"tasks": [task()], "mood": "good"}
    found = validate_derivation(data, acceptance_ids=["ac-1"], decision_ids=(), assignable_roles=ROLES, config=CONFIG)
    assert codes(found) == ["reply"]


@pytest.mark.rule("PL-22")
def test_tasks_with_shared_keywords_get_an_inferred_dependency_by_priority() -> None:
    found = plan(task(title="Later", priority=2), task(title="Sooner", priority=1))
    assert found.dependencies == (DerivedDependency(0, 1, inferred=True),)


@pytest.mark.rule("PL-22")
def test_declared_dependency_is_authoritative_over_shared_keywords() -> None:
    found = plan(task(title="First", priority=1, depends_on=[1]), task(title="Second", priority=2))
    assert found.dependencies == (DerivedDependency(0, 1),)
    one_shared = plan(task(), task(title="Other", keywords=["parser", "other"]))
    assert one_shared.dependencies == ()


@pytest.mark.rule("PL-22")
def test_inferred_dependency_that_would_close_a_cycle_is_left_out_and_listed() -> None:
    # 3 needs 1 and 0 needs 2 by declaration; 1 -> 2 and 0 -> 3 in priority order would close 1 -> 2 -> 0 -> 3 -> 1.
    found = plan(
        task(title="A", priority=3, keywords=["p1", "p2"], depends_on=[2]),
        task(title="B", priority=1, keywords=["q1", "q2"], depends_on=[3]),
        task(title="C", priority=2, keywords=["q1", "q2"]),
        task(title="D", priority=4, keywords=["p1", "p2"]),
    )
    assert DerivedDependency(2, 1, inferred=True) in found.dependencies
    assert found.left_out == (DerivedDependency(3, 0, inferred=True),)


@pytest.mark.rule("PL-20")
def test_schema_accepts_a_valid_answer_and_refuses_wrong_ones() -> None:
    schema = derivation_schema(["ac-1"], ROLES, CONFIG)
    assert schema_problems({"tasks": [task()]}, schema) == ()
    wrong = task(role="king", kind="magic", estimated_hours=0, keywords=["A b"], acceptance_refs=["ac-9"], paths=[""])
    assert len(schema_problems({"tasks": [wrong]}, schema)) >= 6
    assert schema_problems({"tasks": []}, schema)
    assert "oneOf" not in str(schema)
    assert schema["properties"]["tasks"]["items"]["properties"]["kind"]["enum"] == list(TASK_KINDS)


def test_schema_of_a_story_without_criteria_has_no_empty_choice() -> None:
    item = derivation_schema([], ROLES, CONFIG)["properties"]["tasks"]["items"]["properties"]["acceptance_refs"]
    assert item["items"] == {"type": "string", "maxLength": 80}
    assert (item["minItems"], item["maxItems"]) == (1, 1)
