"""Arguments against their declared types and limits, and the globs of rules."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.policy.arguments import argument_problems, glob_matches, host_of, path_problems, texts_of
from fleet.policy.capabilities import ArgSpec


def reasons(value: object, **spec: Any) -> list[str]:
    return [problem.reason for problem in argument_problems({"x": value}, {"x": ArgSpec(**spec)})]


@pytest.mark.rule("RT-56")
@pytest.mark.parametrize(
    ("value", "spec", "reason"),
    [
        (7, {"type": "integer", "maximum": 5}, "between None and 5"),
        ("a;b", {"type": "line", "deny_characters": ";|"}, "the characters ;"),
        ("src/a", {"type": "line", "allowed_prefix": ("docs/",)}, "it must begin with docs/"),
        ("a b", {"type": "line", "pattern": "[a-z]+"}, "it must match"),
        ("red", {"type": "choice", "choices": ("blue",)}, "one of blue"),
        (["a"] * 3, {"type": "lines", "max_items": 2}, "over 2 items"),
        ("a\0b", {"type": "text"}, "NUL"),
        ("a\u2028b", {"type": "line"}, "newlines"),
    ],
)
def test_argument_over_a_limit_is_named(value: object, spec: dict[str, Any], reason: str) -> None:
    (found,) = reasons(value, **spec)
    assert reason in found


def test_argument_within_its_limits_has_no_problem() -> None:
    assert reasons("a\nb", type="text") == reasons({"a": 1}, type="object") == reasons([], type="lines") == []


def test_texts_of_an_argument_are_all_that_rules_look_at() -> None:
    assert texts_of(["a", 3, True, None, {"b": "c"}, ["d"]]) == ("a", "3", "true", "d")
    assert texts_of(False) == ("false",)


@pytest.mark.rule("RT-57")
def test_root_of_the_workspace_is_a_path_and_its_parent_is_none() -> None:
    specs = {"path": ArgSpec(type="path")}
    assert list(path_problems({"path": "."}, specs)) == []
    assert [p.rule_id for p in path_problems({"path": ".."}, specs)] == ["path_outside"]


@pytest.mark.parametrize(
    ("glob", "text", "fits"),
    [
        ("tests/**", "tests/a/b.py", True),
        ("tests/**", "testsx/a.py", False),
        ("**/test_*.py", "test_a.py", True),
        ("**/test_*.py", "a/b/test_c.py", True),
        ("**/test_*.py", "a/xtest_c.py", False),
        ("fleet/*", "fleet/a/b", False),
        ("fleet/*", "fleet/a\nb", True),
        ("v?.0", "v1x0", False),
        ("main", "main\n", False),
    ],
)
def test_glob_stops_at_slashes_unless_it_is_double(glob: str, text: str, fits: bool) -> None:
    assert glob_matches(glob, text) is fits


@pytest.mark.rule("RT-58", "RT-59")
def test_host_is_read_from_listed_forms_only() -> None:
    assert host_of("git@Git.example.org:a/b.git") == "git.example.org"
    assert host_of("https://a.example.org.") is None
    assert host_of("https://a.example.org\n/") is None
    assert host_of("https:///x") is None
