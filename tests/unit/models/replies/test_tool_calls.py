"""Calls of tools in three forms become one validated call, or an answer for the model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.models.chat import ChatMessage, ChatRequest, ToolOffer, ToolUse
from fleet.models.prompts.tool_text import tool_uses_in, with_tools_as_text
from fleet.models.replies.tool_calls import TextToolForm, ToolProblem, offer_of, parse_tool_use
from fleet.policy.rules.calls import ToolCall

TEXT = {"type": "string"}
READ = offer_of(
    "files",
    "read",
    description="One file.",
    parameters={"type": "object", "properties": {"path": TEXT}, "required": ["path"]},
)
WRITE = offer_of(
    "files",
    "write",
    description="A whole file.",
    parameters={
        "type": "object",
        "properties": {"path": TEXT, "content": TEXT, "mode": {"type": "integer"}, "tags": {"type": "array"}},
        "required": ["path", "content"],
    },
)
STATUS = offer_of("git", "status", description="What changed.", parameters={"type": "object", "properties": {}})
OFFERS = (READ, WRITE, STATUS)


def native(name: str, arguments: str) -> ToolCall | ToolProblem:
    return parse_tool_use(ToolUse(id="u1", name=name, arguments=arguments), OFFERS)


def calls_in(text: str, form: TextToolForm = "json") -> list[ToolCall | str]:
    """What becomes of each use in a reply: the call, or the text for the model."""
    found = [parse_tool_use(use, OFFERS) for use in tool_uses_in(text, form, OFFERS).uses]
    return [one.text if isinstance(one, ToolProblem) else one for one in found]


READ_A = ToolCall(tool="files", op="read", args={"path": "a.py"})
JSON_A = '{"tool": "files", "op": "read", "args": {"path": "a.py"}}'
BLOCK_A = "=== CALL files read\n=== ARG path\na.py\n=== END"


@pytest.mark.rule("MB-14")
def test_all_three_forms_become_the_same_call() -> None:
    assert native("files__read", '{"path": "a.py"}') == READ_A
    assert calls_in(JSON_A) == [READ_A]
    assert calls_in(BLOCK_A, "blocks") == [READ_A]


@pytest.mark.rule("MB-14")
@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("files__burn", "{}", "there is no tool 'files__burn'; the tools are: files__read, files__write, git__status"),
        ("files__read", '{"path": "a", "force": 1}', "unknown force; the arguments are: path"),
        ("git__status", '{"x": 1}', "unknown x; the arguments are: none"),
        ("files__read", "{}", "path is missing"),
        ("files__read", '{"path": 7}', "path must be a string, not 7"),
        ("files__read", "{'path': 'a'}", "not valid JSON"),
        ("files__read", '{"path": "a"', "not valid JSON"),
        ("files__read", '["a"]', "they must be one JSON object"),
        ("files__read", '{"path": "a", "path": "b"}', "a key is repeated"),
        ("files__write", '{"path": "a", "content": "", "mode": NaN}', "NaN is no JSON"),
        ("files__write", '{"path": "a", "content": "", "tags": [0.5]}', "use texts and integers"),
        ("files__read", '{"path": "\\ud800"}', "use texts and integers"),
        ("files__read", "[" * 100_000, "not valid JSON"),
        ("files__read", '{"path": "' + "x" * 1_048_576 + '"}', "longer than 1048576 characters"),
    ],
)
def test_use_that_is_no_call_goes_back_as_text_and_is_not_executed(name: str, arguments: str, told: str) -> None:
    found = native(name, arguments)
    assert isinstance(found, ToolProblem)
    assert found.text.startswith("Not executed: ")
    assert told in found.text
    assert (found.use_id, found.name) == ("u1", name)


def test_blocks_are_shown_with_the_names_of_a_real_tool() -> None:
    request = ChatRequest(messages=(ChatMessage(role="user", content="go"),), tools=OFFERS)
    told = with_tools_as_text(request, "blocks").messages[0].content
    assert "For example:\n=== CALL files read\n=== ARG path\n(its value)\n=== END" in told
    bare = ToolOffer(name="look", description="d", parameters={})
    told = with_tools_as_text(request.model_copy(update={"tools": (bare,)}), "blocks").messages[0].content
    assert "For example:\n=== CALL look\n=== END" in told


@pytest.mark.rule("MB-14")
def test_form_object_holds_the_reply_to_one_call_or_an_answer() -> None:
    request = ChatRequest(messages=(ChatMessage(role="user", content="go"),), tools=OFFERS)
    asked = with_tools_as_text(request, "object")
    assert asked.json_schema is not None
    read, _, _, answer = asked.json_schema["anyOf"]
    assert read["properties"]["op"] == {"const": "read"}
    assert read["properties"]["args"] == READ.parameters
    assert answer["required"] == ["answer"]
    assert '{"answer": "TEXT"}' in asked.messages[0].content
    assert calls_in(JSON_A, "object") == [READ_A]
    assert tool_uses_in('{"answer": "it is in a.py"}', "object", OFFERS) == ("it is in a.py", ())
    assert tool_uses_in("words alone", "object", OFFERS) == ("words alone", ())
    assert tool_uses_in('{"answer": 7}', "object", OFFERS).text == '{"answer": 7}'
    plain = with_tools_as_text(request.model_copy(update={"tools": ()}), "object")
    assert plain.json_schema is None
    bare = ToolOffer(name="look", description="d", parameters={"type": "object", "properties": {}})
    (look, _) = (with_tools_as_text(request.model_copy(update={"tools": (bare,)}), "object").json_schema or {})["anyOf"]
    assert list(look["properties"]) == ["tool", "args"]


def test_line_breaks_within_an_argument_are_taken_as_they_stand() -> None:
    code = native("files__write", '{"path": "a.py", "content": "x = 1\ny = 2\n"}')
    assert code == ToolCall(tool="files", op="write", args={"path": "a.py", "content": "x = 1\ny = 2\n"})


def test_call_without_arguments_needs_no_json() -> None:
    assert native("git__status", "") == ToolCall(tool="git", op="status")


def test_schema_that_is_none_still_names_what_is_missing() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "number"}, "q": {"oneOf": []}}, "required": ["q"]}
    offer = ToolOffer(name="mcp__call", description="d", parameters=schema)
    found = parse_tool_use(ToolUse(id="u", name="mcp__call", arguments='{"n": 1}'), [offer])
    assert isinstance(found, ToolProblem)
    assert "q is missing" in found.text
    open_offer = ToolOffer(name="mcp__call", description="d", parameters={"additionalProperties": True})
    assert parse_tool_use(ToolUse(id="u", name="mcp__call", arguments='{"z": 1}'), [open_offer]) == ToolCall(
        tool="mcp", op="call", args={"z": 1}
    )


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{JSON_A}\n```",
        f"Let me look.\n```\n{JSON_A}\n```\nThen I go on.",
        f"<tool_call>\n{JSON_A}\n</tool_call>",
        f"I read it: {JSON_A} and wait.",
        f"[{JSON_A}]",
        '{"name": "files__read", "arguments": {"path": "a.py"}}',
        '{"name": "files__read", "arguments": "{\\"path\\": \\"a.py\\"}"}',
        '{"tool": "files__read", "parameters": {"path": "a.py"}}',
        '{"tool_calls": [{"id": "1", "function": {"name": "files__read", "arguments": {"path": "a.py"}}}]}',
        '{"thought": "first {this}"}\n' + JSON_A,
        "A set {1, 2} in words, then\n" + JSON_A,
    ],
)
def test_habits_of_small_models_around_json_are_read(text: str) -> None:
    assert calls_in(text) == [READ_A]


@pytest.mark.parametrize(
    "text",
    [
        "No tool is needed.",
        '{"ok": true, "items": [1, 2]}',
        '{"tool": "hammer"}',
        "x = {'a': 1}; y = [1, 2]",
        "{" * 5000,
        '{"name": "Ada", "role": "author"}',
        "=== CALL files read\n=== END",
    ],
)
def test_answer_without_a_call_stays_as_it_is(text: str) -> None:
    assert tool_uses_in(text, "json", OFFERS) == (text, ())


def test_text_around_the_calls_is_kept_and_the_calls_are_taken_out() -> None:
    found = tool_uses_in(f"First.\n```json\n{JSON_A}\n```\nNext.\n{JSON_A}", "json", OFFERS)
    assert found.text == "First.\n\nNext."
    assert [use.id for use in found.uses] == ["text-1", "text-2"]


@pytest.mark.parametrize(
    "broken", ['{"tool": "files", "op": "read", "args": {"path": \'a\'}}', '{"tool": "files__read", "args": {']
)
def test_broken_json_call_is_told_to_the_model_and_never_guessed(broken: str) -> None:
    (found,) = calls_in(f"Now:\n{broken}")
    assert isinstance(found, str)
    assert "files__read are not valid JSON" in found


CODE = 'def f(x):\n    """Text with "quotes" and {braces}."""\n    return x\n'


def test_block_keeps_text_as_it_was_written_and_reads_other_types_as_json() -> None:
    text = f"I write it.\n=== CALL files write\n=== ARG path\na.py\n=== ARG content\n{CODE}\n=== ARG mode\n420"
    text += '\n=== ARG tags\n["x"]\n=== END\nDone.'
    found = tool_uses_in(text, "blocks", OFFERS)
    assert found.text == "I write it.\nDone."
    (call,) = calls_in(text, "blocks")
    assert call == ToolCall(
        tool="files", op="write", args={"path": "a.py", "content": CODE, "mode": 420, "tags": ["x"]}
    )


@pytest.mark.parametrize("head", ["files read", "files__read", "files.read", "files:read"])
def test_block_may_name_its_tool_in_every_usual_way(head: str) -> None:
    assert calls_in(f"=== CALL {head}\n=== ARG path:\na.py\n=== END OF CALL", "blocks") == [READ_A]


@pytest.mark.parametrize(
    "text", ["=== CALL files read\n=== ARG path\na.p", f"=== CALL files read\n=== ARG path\n{BLOCK_A}"]
)
def test_block_without_an_end_is_never_executed(text: str) -> None:
    first = calls_in(text, "blocks")[0]
    assert first if isinstance(first, str) else first == ToolCall(tool="files", op="read", args={"path": ""})


def test_value_that_is_no_json_where_json_is_wanted_is_told() -> None:
    text = "=== CALL files write\n=== ARG path\na\n=== ARG content\n\n=== ARG mode\nrw-r--r--\n=== END"
    assert calls_in(text, "blocks") == [
        'Not executed: the arguments of files__write are wrong: mode must be an integer, not "rw-r--r--".'
    ]


def conversation(*messages: ChatMessage) -> ChatRequest:
    return ChatRequest(messages=messages, tools=OFFERS)


USER = ChatMessage(role="user", content="go")
USES = (
    ToolUse(id="1", name="files__read", arguments='{"path": "a.py"}'),
    ToolUse(id="2", name="git__status", arguments=""),
)


@pytest.mark.parametrize("form", ["json", "blocks"])
def test_offer_calls_and_results_are_told_in_words(form: TextToolForm) -> None:
    told = with_tools_as_text(
        conversation(
            ChatMessage(role="system", content="Be brief."),
            USER,
            ChatMessage(role="assistant", content="I look.", tool_uses=USES),
            ChatMessage(role="tool", content="print(1)", tool_use_id="1"),
            ChatMessage(role="tool", content="clean", tool_use_id="2"),
            ChatMessage(role="user", content="and now?"),
        ),
        form,
    )
    assert told.tools == ()
    assert [message.role for message in told.messages] == ["system", "user", "assistant", "user"]
    system, _, wrote, results = (message.content for message in told.messages)
    assert system.startswith("Be brief.\n\nYou may use these tools.")
    named = "files read" if form == "blocks" else 'tool "files" op "read"'
    assert f'- {named}: One file. args {{"path": "text"}}' in system
    assert '"mode" (optional): whole number' in system
    assert calls_in(wrote, form) == [READ_A, ToolCall(tool="git", op="status")]
    assert results == (
        'Result of tool "files" op "read":\nprint(1)\n\nResult of tool "git" op "status":\nclean\n\nand now?'
    )


def test_conversation_that_begins_without_system_message_gets_one() -> None:
    told = with_tools_as_text(conversation(USER), "json")
    assert [message.role for message in told.messages] == ["system", "user"]


def test_results_at_the_end_and_broken_calls_are_told_as_they_were() -> None:
    broken = (ToolUse(id="1", name="files__read", arguments='{"path": '),)
    told = with_tools_as_text(
        ChatRequest(
            messages=(
                USER,
                ChatMessage(role="assistant", content="", tool_uses=broken),
                ChatMessage(role="tool", content="Not executed.", tool_use_id="?"),
                ChatMessage(role="assistant", content="Sorry."),
                ChatMessage(role="tool", content="late", tool_use_id="?"),
            )
        ),
        "json",
    )
    contents = [message.content for message in told.messages]
    assert contents == ["go", '{"path": ', "Result of the tool:\nNot executed.", "Sorry.", "Result of the tool:\nlate"]


LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"))


@pytest.mark.rule("MB-14")
@settings(max_examples=40, deadline=None)
@given(path=LINES.filter(lambda text: not text.startswith("===")), content=LINES)
def test_what_is_written_in_a_form_is_read_back_from_it(path: str, content: str) -> None:
    args: dict[str, Any] = {"path": path, "content": f"x {content}\n{{"}
    use = ToolUse(id="1", name="files__write", arguments=json.dumps(args))
    for form in ("json", "blocks"):
        told = with_tools_as_text(conversation(USER, ChatMessage(role="assistant", content="", tool_uses=(use,))), form)
        assert calls_in(told.messages[-1].content, form) == [ToolCall(tool="files", op="write", args=args)]


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from('{}[]":,=\n tolfiescargnmdh_ARGCALEND'), max_size=200))
def test_no_reply_breaks_the_reader(text: str) -> None:
    for form in ("json", "blocks"):
        for use in tool_uses_in(text, form, OFFERS).uses:
            parse_tool_use(use, OFFERS)
