"""From reply text to validated values."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.kernel.errors import InvalidInput, ReplyMalformed
from fleet.models.chat import ToolUse
from fleet.models.prompts.prompt import KINDS
from fleet.models.replies.code_reply import TestLanguage, authored_tests, code_blocks, edits_of
from fleet.models.replies.json_reply import json_object
from fleet.models.replies.json_schema import describe_schema, schema_problems
from fleet.models.replies.replies import critique_schema, document_schema, parse_reply, proposal_schema, review_schema
from fleet.models.replies.session_reply import MAX_TEXT_CHARS, MAX_USES, SessionReply

ADD = "def add(a, b):\n    return a + b\n"


def problems_of(error: pytest.ExceptionInfo[ReplyMalformed]) -> list[str]:
    return error.value.details["problems"]


def draft(text: str, targets: tuple[str, ...] = ("src/calc.py",), new: tuple[str, ...] = ()) -> list[dict[str, str]]:
    return parse_reply(text, "stop", kind="draft", target_paths=targets, new_paths=new)["edits"]


def test_block_without_a_name_is_for_the_single_target() -> None:
    expected = [{"path": "src/calc.py", "mode": "definitions", "content": ADD}]
    assert draft(f"```python\n{ADD}```") == expected
    assert draft(f"Here it is:\r\n\r\n```py\r\n{ADD}```\r\nThis adds.") == expected
    assert draft(f"```python\n{ADD}") == expected


@pytest.mark.parametrize(
    "text",
    [
        f"```python\n# file: src/calc.py\n{ADD}```",
        f"```python\n# src/calc.py\n{ADD}```",
        f"```python\n# File: calc.py\n{ADD}```",
        f"`src/calc.py`:\n\n```python\n{ADD}```",
        f"### ./src/calc.py\n```\n{ADD}```",
        f"**File: src/calc.py**\n~~~python\n{ADD}~~~",
        f"1. src/calc.py\n```python\n{ADD}```",
    ],
)
def test_named_block_is_for_its_file(text: str) -> None:
    assert draft(text, targets=("src/calc.py", "src/other.py")) == [
        {"path": "src/calc.py", "mode": "definitions", "content": ADD}
    ]


def test_new_path_is_a_whole_file() -> None:
    assert draft(f"```python\n{ADD}```", new=("src/calc.py",))[0]["mode"] == "file"


def test_example_of_use_after_the_code_and_shell_blocks_are_left_out() -> None:
    text = f"```bash\npip install x\n```\n```python\n{ADD}```\nUse it:\n```python\nprint(add(1, 2))\n```"
    assert [edit["content"] for edit in draft(text)] == [ADD]


def test_two_named_blocks_are_two_edits() -> None:
    text = f"```python\n# file: a.py\n{ADD}```\n```python\n# file: b.py\nB = 1\n```"
    assert [edit["path"] for edit in draft(text, targets=("a.py", "b.py"))] == ["a.py", "b.py"]


def test_without_targets_any_path_inside_the_repository_is_taken() -> None:
    assert edits_of(f"```python\n# file: x/y.py\n{ADD}```", target_paths=())["edits"][0]["path"] == "x/y.py"


@pytest.mark.parametrize(
    ("text", "targets", "problem"),
    [
        ("def add(a, b): return a + b", ("a.py",), "no code block"),
        ("```python\n\n```", ("a.py",), "no code block"),
        ("```bash\nls\n```", ("a.py",), "no code block"),
        (f"```python\n{ADD}```", ("a.py", "b.py"), "names no file"),
        (f"```python\n{ADD}```", (), "names no file"),
        (f"```python\n# file: c.py\n{ADD}```", ("a.py",), "c.py is not a file of this task: use a.py"),
        (f"```python\n# file: m.py\n{ADD}```", ("a/m.py", "b/m.py"), "not a file of this task"),
        (f"```python\n# file: ../x.py\n{ADD}```", (), "paths inside the repository"),
        (f"```python\n# file: a.py\n{ADD}```\n```python\n# file: a.py\nX = 1\n```", ("a.py",), "two code blocks"),
    ],
)
def test_unusable_code_reply_says_what_to_do(text: str, targets: tuple[str, ...], problem: str) -> None:
    with pytest.raises(ReplyMalformed) as caught:
        draft(text, targets)
    assert problem in "; ".join(problems_of(caught))


@pytest.mark.rule("MB-6")
@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"engineer"}))
def test_reply_that_was_cut_off_is_malformed_whatever_it_holds(kind: Any) -> None:
    with pytest.raises(ReplyMalformed, match="cut off"):
        parse_reply(f"```python\n{ADD}```", "length", kind=kind, target_paths=("a.py",))


def test_reply_of_a_session_is_kept_as_it_is_and_bounded() -> None:
    uses = [ToolUse(id="", name="n" * 200, arguments="{" * 2_000_000)] * 40
    value = parse_reply("x" * 300_000, "length", kind="engineer", uses=uses)
    reply = SessionReply.model_validate(value)
    assert reply.is_cut
    assert len(reply.text) == MAX_TEXT_CHARS
    assert len(reply.uses) == MAX_USES
    assert len({use.id for use in reply.uses}) == MAX_USES
    assert max(len(use.arguments) for use in reply.uses) < 100
    assert reply.uses[0].name == "n" * 80
    assert parse_reply("", "stop", kind="engineer") == {"text": "", "is_cut": False, "uses": []}


def test_tests_are_joined_and_their_names_listed_once() -> None:
    text = (
        "```python\nimport m\n\ndef test_a():\n    pass\n\nasync def test_b():\n    pass\n```\n"
        "```python\nclass TestC:\n    def test_a(self):\n        pass\n```\n```python\nX = 1\n```"
    )
    value = parse_reply(text, "stop", kind="tests")
    assert value["names"] == ["test_a", "test_b"]
    assert "TestC" in value["code"]
    assert "X = 1" not in value["code"]


@pytest.mark.rule("MB-6", "CN-23")
def test_whole_tests_of_a_reply_that_was_cut_off_count() -> None:
    whole = "import m\n\ndef test_a():\n    assert m.f(1) == 2\n\ndef test_b():\n    assert m.f(2) == 3\n"
    cut = f"```python\n{whole}    assert m.f(\n        3) == [1,\n        2,\n   "
    assert parse_reply(cut, "length", kind="tests") == {"code": whole, "names": ["test_a", "test_b"]}


@pytest.mark.rule("MB-6")
@pytest.mark.parametrize("text", ["```python\ndef test_a():\n    assert f(", "no code", "```python\nx = 1\ny = 2\nz"])
def test_cut_reply_without_a_whole_test_is_asked_for_again_shorter(text: str) -> None:
    with pytest.raises(ReplyMalformed, match="answer again, shorter"):
        parse_reply(text, "length", kind="tests")


@pytest.mark.parametrize(("text", "problem"), [("none", "no code block"), ("```python\nx = 1\n```", "defines no test")])
def test_reply_without_tests_is_malformed(text: str, problem: str) -> None:
    with pytest.raises(ReplyMalformed, match=problem):
        authored_tests(text)


@settings(max_examples=80, deadline=None)
@given(st.text(alphabet='`~\n #file:abc.py/{}"\\', max_size=200))
def test_any_text_is_parsed_or_refused_but_never_breaks_the_parser(text: str) -> None:
    assert isinstance(code_blocks(text), tuple)
    for parse in (lambda: draft(text), lambda: json_object(text)):
        with contextlib.suppress(ReplyMalformed):
            assert isinstance(parse(), list | dict)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "x}"}',
        '  {"a": "x}"}\n',
        'Sure:\n```json\n{"a": "x}"}\n```\nDone.',
        'I say {not json} but {"a": "x}"} is.',
        '```\n{"a": "x}"}\n```',
    ],
)
def test_json_object_is_found(text: str) -> None:
    assert json_object(text) == {"a": "x}"}


def test_line_break_within_a_text_is_taken_as_it_stands() -> None:
    assert json_object('{"a": "x\n\ty"}') == {"a": "x\n\ty"}


def test_escaped_quotes_do_not_end_a_string() -> None:
    assert json_object('x {"a": "\\"}\\\\"} y') == {"a": '"}\\'}


@pytest.mark.rule("GL-12")
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no object", "no JSON object"),
        ("[1, 2]", "no JSON object"),
        ('{"a": 1.5}', "whole, not 1.5"),
        ('{"a": NaN}', "whole, not NaN"),
        ('{"a": 1, "a": 2}', "a key is repeated"),
        ('{"a": ', "no valid JSON"),
        ("{" * 30, "no valid JSON"),
        ('{"a":' * 100_000, "no valid JSON"),
    ],
)
def test_text_without_a_strict_json_object_is_malformed(text: str, problem: str) -> None:
    with pytest.raises(ReplyMalformed, match=problem):
        json_object(text)


@pytest.mark.parametrize(
    ("value", "schema", "problem"),
    [
        ("x", {"type": "integer"}, 'reply must be an integer, not "x"'),
        (True, {"type": "integer"}, "reply must be an integer"),
        (1, {"type": ["string", "null"]}, "reply must be a string or a null"),
        (1, {"type": "boolean"}, "must be a boolean"),
        ("c", {"enum": ["a", "b"]}, 'one of "a", "b"'),
        ("x" * 99, {"const": 1}, "reply must be 1, not"),
        ({}, {"type": "object", "required": ["a"]}, "reply.a is missing"),
        ({"b": 1}, {"properties": {"a": {}}, "additionalProperties": False}, "reply.b is not expected; expected are a"),
        ({"a": "x"}, {"properties": {"a": {"type": "object"}}}, "reply.a must be an object"),
        ([1], {"minItems": 2}, "1 items, the minimum is 2"),
        ([1, 2], {"maxItems": 1}, "2 items, the maximum is 1"),
        ([1, 1], {"uniqueItems": True}, "must not repeat"),
        ([1, "x"], {"items": {"type": "integer"}}, "reply[1] must be an integer"),
        (1, {"minimum": 2}, "reply is 1, the minimum is 2"),
        (3, {"maximum": 2}, "reply is 3, the maximum is 2"),
        ("", {"minLength": 1}, "0 characters, the minimum is 1"),
        ("abc", {"maxLength": 2}, "3 characters, the maximum is 2"),
        ("abc", {"pattern": "^x"}, "must match ^x"),
    ],
)
def test_schema_problem_names_place_and_reason(value: Any, schema: dict[str, Any], problem: str) -> None:
    (found,) = schema_problems(value, schema)
    assert problem in found


@pytest.mark.parametrize("value", [None, True, 3, "x", [1, 2], {"a": {"b": 1}}])
def test_value_without_constraints_has_no_problems(value: Any) -> None:
    assert schema_problems(value, {}) == ()
    assert schema_problems(value, {"type": ["null", "boolean", "integer", "string", "array", "object"]}) == ()


def test_all_problems_are_listed_up_to_twenty() -> None:
    assert len(schema_problems(["x"] * 50, {"items": {"type": "integer"}})) == 20


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"oneOf": []}, "oneOf"),
        ({"type": "text"}, "type"),
        ({"$ref": "https://schemas.example/x.json"}, "https://schemas.example/x.json"),
        ({"$ref": "#/$defs/none"}, "/$defs/none"),
    ],
)
def test_schema_that_is_none_is_refused_instead_of_ignored(schema: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(named)):
        schema_problems(1, schema)


WRITTEN_BY_PYDANTIC = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "depth": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
        "ratio": {"type": "number", "exclusiveMaximum": 1},
        "mode": {"$ref": "#/$defs/Mode"},
    },
    "required": ["path"],
    "$defs": {"Mode": {"enum": ["fast", "slow"]}},
}


@pytest.mark.parametrize(
    ("value", "problems"),
    [
        ({"path": "a", "depth": None, "ratio": 0.5, "mode": "fast"}, ()),
        (
            {"path": 5, "depth": "many", "ratio": "x", "mode": "quick"},
            (
                "reply.path must be a string, not 5",
                'reply.depth fits no form: reply.depth must be an integer, not "many" or '
                'reply.depth must be a null, not "many"',
                'reply.ratio must be a number, not "x"',
                'reply.mode must be one of "fast", "slow", not "quick"',
            ),
        ),
        ({"path": "a", "ratio": 1}, ("reply.ratio is wrong: 1 is greater than or equal to the maximum of 1",)),
    ],
)
def test_schemas_as_servers_write_them_hold_whole(value: dict[str, Any], problems: tuple[str, ...]) -> None:
    assert schema_problems(value, WRITTEN_BY_PYDANTIC) == problems


def test_findings_are_told_in_the_order_of_the_reply() -> None:
    schema = {"properties": {"a": {"type": "string"}}, "required": ["c"], "additionalProperties": False}
    found = schema_problems({"b": 1, "a": 2}, schema)
    assert [words.split(" ")[0] for words in found] == ["reply.c", "reply.b", "reply.a"]


def test_structured_reply_is_validated_against_the_schema() -> None:
    good = json.dumps({"broken_criterion": "none", "reason": "ok"})
    assert parse_reply(good, "stop", kind="review", json_schema=review_schema(["ac-1"])) == {
        "broken_criterion": "none",
        "reason": "ok",
    }
    with pytest.raises(ReplyMalformed) as caught:
        parse_reply('{"broken_criterion": "maybe"}', "stop", kind="review", json_schema=review_schema(["ac-1"]))
    assert len(problems_of(caught)) == 2
    assert parse_reply('{"x": 1}', "stop", kind="derive") == {"x": 1}


def test_proposal_needs_each_criterion_and_a_listed_path() -> None:
    schema = proposal_schema(["ac-1", "ac-2"], ["a.py"])
    one = {"ac": "ac-1", "how": "h"}
    value = {"summary": "s", "interface": "f()", "path": "a.py", "criteria": [one, one], "risk": ""}
    assert schema_problems(value, schema) == ()
    assert schema_problems({**value, "path": "b.py", "criteria": [one]}, schema)
    assert schema_problems({**value, "path": "b.py"}, proposal_schema(["ac-1", "ac-2"])) == ()


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (
            review_schema(["ac-1"]),
            '{"broken_criterion": "none" or "ac-1", "reason": "text of at most 300 characters"}',
        ),
        ({"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 3}}, "[whole number 1 to 3, ...]"),
        ({"type": "integer"}, "whole number"),
        ({"type": "boolean"}, "true or false"),
        ({"type": "string"}, '"text"'),
        ({"type": "null"}, "null"),
        ({"const": 1}, "1"),
        ({}, "value"),
    ],
)
def test_schema_is_described_in_one_line(schema: dict[str, Any], text: str) -> None:
    assert describe_schema(schema) == text


def test_shipped_schemas_are_small_closed_and_use_the_checked_subset() -> None:
    for schema in (critique_schema(), review_schema(["ac-1"]), document_schema(), proposal_schema(["ac-1"], ["a.py"])):
        assert schema["additionalProperties"] is False
        assert schema_problems({}, schema)
        assert len(describe_schema(schema)) < 400


TESTS = {
    "node": "// file: ./test/sums.test.mjs\nimport { test } from 'node:test';\n\ntest('ac-1 adds', () => {});\n"
    "await test(\"ac-2 takes away\", () => {});\n  test('inner', () => {});\n",
    "go": "// file: sums/more_test.go\npackage sums\n\nfunc Test_ac_1_adds(t *testing.T) {}\n\n"
    "func TestAC2(t *testing.T) {}\n\nfunc Testing(t *testing.T) {}\nfunc TestMain(m *testing.M) {}\n",
    "rust": "// file: tests/sums.rs\n#[test]\nfn ac_1_adds() {}\n\n#[test]\n#[should_panic]\nfn ac_2_fails() {}\n\n"
    "fn helper() {}\n",
}


@pytest.mark.rule("CN-23")
@pytest.mark.parametrize(
    ("language", "path", "names"),
    [
        ("node", "test/sums.test.mjs", ["ac-1 adds", "ac-2 takes away"]),
        ("go", "sums/more_test.go", ["Test_ac_1_adds", "TestAC2"]),
        ("rust", "tests/sums.rs", ["ac_1_adds", "ac_2_fails"]),
    ],
)
def test_tests_of_a_language_are_one_file_with_path_and_names(
    language: TestLanguage, path: str, names: list[str]
) -> None:
    text = f"Run it so:\n```sh\nmake test\n```\nThe tests:\n```{language}\n{TESTS[language]}```\n"
    value = parse_reply(text, "stop", kind="tests", language=language)
    code = TESTS[language].partition("\n")[2]
    assert value == {"language": language, "path": path, "code": code, "names": names}


NODE_FILE = "// file: test/a.test.mjs\n"


@pytest.mark.rule("CN-23", "MB-6")
@pytest.mark.parametrize(
    ("language", "code", "words"),
    [
        ("node", f"{NODE_FILE}const nothing = 1;\n", "defines no test"),
        ("node", "test('ac-1', () => {});\n", "names its file: `// file: test/NAME.test.mjs`"),
        ("node", "// file: ../test/a.test.mjs\ntest('ac-1', () => {});\n", "names its file"),
        ("node", "// file: /etc/a.test.mjs\ntest('ac-1', () => {});\n", "names its file"),
        ("node", "// file: node_modules/a/a.test.mjs\ntest('ac-1', () => {});\n", "names its file"),
        ("node", "// file: sums.js\ntest('ac-1', () => {});\n", "names its file"),
        ("node", f"{NODE_FILE}test('ac-1', () => {{}});\ntest('ac-1', () => {{}});\n", "two tests are named 'ac-1'"),
        ("node", f"{NODE_FILE}test('a\\u0020b', () => {{}});\n", "no plain name"),
        ("node", NODE_FILE + "".join(f"test('n{n}', () => {{}});\n" for n in range(201)), "more than 200 tests"),
        ("go", "// file: vendor/a_test.go\nfunc TestA(t *testing.T) {}\n", "names its file"),
        ("go", "// file: a.go\nfunc TestA(t *testing.T) {}\n", "names its file: `// file: FOLDER/NAME_test.go`"),
        ("go", "// file: a_test.go\nfunc TestMain(m *testing.M) {}\n", "defines no test"),
        ("rust", "// file: src/lib.rs\n#[test]\nfn a() {}\n", "names its file: `// file: tests/NAME.rs`"),
        ("rust", "// file: tests/a.rs\nfn a() {}\n", "defines no test"),
    ],
)
def test_tests_of_a_language_that_are_no_such_file_are_malformed(language: TestLanguage, code: str, words: str) -> None:
    with pytest.raises(ReplyMalformed) as error:
        parse_reply(f"```\n{code}```\n", "stop", kind="tests", language=language)
    assert any(words in problem for problem in problems_of(error)), problems_of(error)


@pytest.mark.rule("CN-23", "MB-6")
def test_tests_of_a_language_in_several_blocks_or_none_or_cut_off_are_malformed() -> None:
    block = f"```go\n{TESTS['go']}```\n"
    for text, ended, words in [
        ("Nothing to test.", "stop", "between ```go and ```"),
        (block + block, "stop", "several code blocks"),
        (block, "length", "cut off"),
    ]:
        with pytest.raises(ReplyMalformed, match=words):
            parse_reply(text, ended, kind="tests", language="go")  # pyright: ignore[reportArgumentType]
