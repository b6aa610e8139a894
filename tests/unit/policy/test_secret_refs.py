"""References are whole values; what was meant as one and is none is an error; nothing is resolved in free text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.kernel.errors import InvalidInput
from fleet.policy.secret_refs import SCHEME, SECRETS_FOLDER, SecretPlan, parse_reference, plan_delivery, references_in

names = st.from_regex(r"[a-z][a-z0-9]{0,9}(-[a-z0-9]{1,9}){0,3}", fullmatch=True)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12) | names.map(lambda name: SCHEME + name),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=6), children, max_size=4),
    max_leaves=12,
)


def at(document: Any, pointer: str) -> Any:
    """The value at an RFC 6901 pointer."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        document = document[int(key)] if isinstance(document, list) else document[key]
    return document


def test_reference_names_its_secret() -> None:
    assert parse_reference("secret://deploy-token-2") == "deploy-token-2"


@pytest.mark.parametrize(
    "text",
    ["", "deploy-token", "see secret://deploy-token", "secret://a is a reference", "--token=secret://a", "secret:/a"],
)
def test_text_that_only_mentions_a_reference_is_none(text: str) -> None:
    assert parse_reference(text) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "A",
        "a_b",
        "-a",
        "a-",
        "a--b",
        "a/b",
        "../a",
        "a.b",
        "1a",
        "a" * 64,
        "hunter2!",
        "a?version=1",
        "\u0430",
        "a\0",
    ],
)
def test_malformed_reference_is_an_error_that_does_not_repeat_it(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_reference(SCHEME + name)
    assert len(name) < 2 or name not in caught.value.message


def test_scheme_in_other_letters_is_an_error_and_never_text() -> None:
    with pytest.raises(InvalidInput):
        parse_reference("Secret://deploy-token")


@given(names)
@settings(max_examples=50)
def test_every_valid_name_comes_back(name: str) -> None:
    assert parse_reference(SCHEME + name) == name


@given(st.text(max_size=40))
@settings(max_examples=100)
def test_any_text_is_a_name_none_or_an_error(text: str) -> None:
    for candidate in (text, SCHEME + text):
        try:
            name = parse_reference(candidate)
        except InvalidInput:
            continue
        assert name is None or candidate == SCHEME + name


def test_references_are_found_at_any_depth_in_order_and_keys_are_none() -> None:
    document = {"headers": [{"a/b~c": "secret://one"}, "secret://two"], "secret://three": "text", "n": 1}

    found = references_in(document)  # pyright: ignore[reportArgumentType]

    assert [(r.pointer, r.name) for r in found] == [("/headers/0/a~1b~0c", "one"), ("/headers/1", "two")]


def test_a_value_that_is_a_reference_itself_has_the_empty_pointer() -> None:
    assert [(r.pointer, r.name) for r in references_in("secret://one")] == [("", "one")]


def test_malformed_references_are_all_listed_by_place() -> None:
    with pytest.raises(InvalidInput) as caught:
        references_in({"a": "secret://Hunter2", "b": ["secret://ok", "secret://"]})
    assert caught.value.details["problems"] == ["/a", "/b/1"]
    assert "Hunter2" not in caught.value.message


def test_depth_is_no_limit() -> None:
    document: Any = "secret://deep"
    for _ in range(5000):
        document = [document]

    assert [r.name for r in references_in(document)] == ["deep"]


@given(documents)
@settings(max_examples=100)
def test_every_pointer_leads_to_its_reference(document: Any) -> None:
    found = references_in(document)

    assert all(at(document, r.pointer) == SCHEME + r.name for r in found)
    assert json.dumps(document).count('"secret://') >= len(found)


@pytest.mark.rule("RT-65", "RC-3")
def test_secret_of_a_variable_becomes_its_value_and_of_an_argument_a_file() -> None:
    plan = plan_delivery(
        ["deploy", "--token-file", "secret://deploy-token", "say secret://x"], {"KEY": "secret://key", "LANG": "C"}
    )

    assert plan.argv == ("deploy", "--token-file", f"{SECRETS_FOLDER}/deploy-token", "say secret://x")
    assert plan.env == {"LANG": "C"}
    assert plan.secret_env == {"KEY": "key"}
    assert plan.secret_files == {f"{SECRETS_FOLDER}/deploy-token": "deploy-token"}
    assert plan.names == ("deploy-token", "key")


def test_run_without_references_is_left_as_it_is() -> None:
    assert plan_delivery(["pytest", "-q"], {"A": "b"}) == SecretPlan(
        argv=("pytest", "-q"), env={"A": "b"}, secret_env={}, secret_files={}
    )


def test_one_secret_used_three_times_is_needed_once() -> None:
    plan = plan_delivery(["x", "secret://a", "secret://a"], {"A": "secret://a"})

    assert plan.names == ("a",)
    assert plan.argv[1] == plan.argv[2]


def test_program_cannot_be_a_secret() -> None:
    with pytest.raises(InvalidInput, match="program"):
        plan_delivery(["secret://a"], {})


@given(
    st.lists(st.text(max_size=8) | names.map(SCHEME.__add__), max_size=4),
    st.dictionaries(names, names.map(SCHEME.__add__)),
)
@settings(max_examples=60)
def test_no_plan_keeps_a_reference(arguments: list[str], env: dict[str, str]) -> None:
    plan = plan_delivery(["program", *arguments], env)

    assert not any(parse_reference(text) for text in (*plan.argv, *plan.env.values()))
    assert {*plan.secret_env, *plan.env} == env.keys()
    assert len(plan.argv) == len(arguments) + 1
