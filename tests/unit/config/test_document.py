"""Config files are strict YAML; every refusal names file, place and reason."""

from __future__ import annotations

import pytest

from fleet.config.document import MAX_DOCUMENT_BYTES, parse_document, validated
from fleet.config.settings import RateSettings
from fleet.kernel.errors import ConfigError

_LAUGHS = b"a0: &a0 [1, 1]\n" + b"".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n".encode() for n in range(1, 9)
)


def test_document_with_nested_keys_is_returned_as_mapping() -> None:
    assert parse_document(b"a: {b: [1, x]}\n", file="f.yaml") == {"a": {"b": [1, "x"]}}


def test_document_with_an_alias_repeats_the_value() -> None:
    assert parse_document(b"a: &x [1]\nb: *x\n", file="f.yaml") == {"a": [1], "b": [1]}


def test_document_that_is_empty_is_an_empty_mapping() -> None:
    assert parse_document(b"# only a comment\n", file="f.yaml") == {}


@pytest.mark.rule("GL-22")
@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"a: 1\nb: 2\na: 3\n", "line 3: key 'a' stands twice"),
        (b"x:\n  a: 1\n  a: 2\n", "line 3: key 'a' stands twice"),
        (b"a: &x {b: *x}\n", "holds more than 100000 values"),
        (_LAUGHS, "holds more than 100000 values"),
        (b"a: &x {b: 1}\nc: {<<: *x}\n", "tag:yaml.org,2002:merge"),
        (b"a: [1\n", "line 2"),
        (b"a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        (b"- 1\n", "must hold keys and values, not a list"),
        (b"1: x\n", "key 1 is no text"),
        (b"a: \xff\n", "is not UTF-8 at byte 3"),
        (b"a: \x00\n", "is not YAML"),
        (b"a: " + b"[" * 3000, "more than 100 deep"),
        (b"a: " + b"[" * 500_000 + b"]" * 500_000, "more than 100 deep"),
        (b"#" * (MAX_DOCUMENT_BYTES + 1), "more than 1048576"),
    ],
    ids=[
        "twice",
        "twice-nested",
        "in-itself",
        "laughs",
        "merge",
        "syntax",
        "object",
        "list",
        "number-key",
        "utf8",
        "control",
        "deep",
        "deep-as-a-file",
        "size",
    ],
)
def test_document_that_is_not_strict_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_document(raw, file="f.yaml")
    assert caught.value.message.startswith("f.yaml")
    assert reason in caught.value.message


@pytest.mark.rule("GL-22")
def test_model_with_several_problems_names_all_of_them_and_no_value() -> None:
    with pytest.raises(ConfigError) as caught:
        validated(RateSettings, {"requests_per_minute": 0, "strems": "hunter2"}, file="serve.yaml")
    paths = {problem["path"] for problem in caught.value.details["problems"]}
    assert paths == {"requests_per_minute", "streams", "strems"}
    assert "hunter2" not in caught.value.message


def test_model_is_frozen() -> None:
    rate = validated(RateSettings, {"requests_per_minute": 1, "streams": 1}, file="serve.yaml")
    with pytest.raises(ValueError, match="frozen"):
        rate.streams = 2  # type: ignore[misc]


@pytest.mark.rule("GL-22")
@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("engines.1.weights.file", 6),
        ("engines.1.vllm.model", 4),
        ("roles.a.b.tools", 8),
        ("roles.a.b.scope", 7),
        ("rules", None),
        ("(whole file)", None),
    ],
    ids=["list", "variant", "dotted-key", "missing", "unknown", "whole"],
)
def test_line_of_a_path_is_that_of_its_key_or_of_what_is_nearest_above_it(path: str, line: int | None) -> None:
    text = b"engines:\n- model: x\n-\n  model: y\n  weights:\n    file: z\nroles: {a.b: {\n  tools: []}}\n"
    assert parse_document(text, file="f.yaml").find_line(path) == line
