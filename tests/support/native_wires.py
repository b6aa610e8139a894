"""Stand-ins for Anthropic, OpenAI, vLLM and llama.cpp under a whole team: native calls, thoughts, cache, refusals.

Each of them is as strict as the real server where that is: what the documentation says is refused, is refused.
Sources: Anthropic "Extended thinking" and "Prompt caching"; OpenAI "Reasoning models"; vLLM "Reasoning
Outputs"; llama.cpp "server/README".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.engineering.tools import OFFERS
from fleet.models.chat import ToolUse
from fleet.models.prompts.tool_text import tool_uses_in
from tests.support.openai_server import Scripted
from tests.support.providers import responses_stream
from tests.support.team_server import ENGINEER, engineers_answer

_CUT = "=== CALL read\n=== ARG path\nREADME.md\n=== END\n=== CALL files\n=== ARG glob\n**/*.py\n=== END\n"
SCRIPT = (ENGINEER[0], _CUT, *ENGINEER[1:])
"""As `ENGINEER`; the second turn is cut off in the middle of its second call."""
_CUT_AT, _REFUSED_AT = 1, 3


@dataclass(frozen=True)
class Said:
    """What the model says in one turn of a session."""

    turn: int
    uses: tuple[ToolUse, ...]

    @property
    def is_cut(self) -> bool:
        return self.turn == _CUT_AT

    @property
    def thought(self) -> str:
        return f"Thought of turn {self.turn}."


def said_in(messages: list[dict[str, Any]], last: str) -> Said | None:
    """The next turn of an engineer; None where the model refuses, once, in a later turn."""
    turn = sum(message["role"] == "assistant" for message in messages)
    if turn == _REFUSED_AT and "could not be used" not in last:
        return None
    uses = tool_uses_in(SCRIPT[min(turn, len(SCRIPT) - 1)], "blocks", OFFERS).uses
    return Said(turn, tuple(use.model_copy(update={"id": f"call_{turn}_{n}"}) for n, use in enumerate(uses)))


@dataclass
class OpenAIWire:
    """vLLM or llama.cpp: both speak the OpenAI form, and differ in how they send what a model thought."""

    thought_field: str
    problems: list[str] = field(default_factory=list[str])
    """Requests that were refused, by why."""
    sent_back: int = 0
    """Thoughts that came back as they were sent."""

    def __call__(self, request: dict[str, Any]) -> Scripted:
        messages = request["messages"]
        if not str(messages[0]["content"]).startswith("Work: engineer"):
            return engineers_answer(request)
        if problem := next(self._problems(messages), None):
            self.problems.append(problem)
            return Scripted(status=400, error=problem)
        said = said_in(messages, str(messages[-1]["content"]))
        if said is None:
            return Scripted(finish="content_filter")
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{self.thought_field: part} for part in (said.thought[:7], said.thought[7:])]
        deltas += [{"content": "Next step."}]
        for n, use in enumerate(said.uses):
            half = len(use.arguments) // 2
            head = {"index": n, "id": use.id, "type": "function", "function": {"name": use.name, "arguments": ""}}
            deltas.append({"tool_calls": [head]})
            parts = [use.arguments[:half], use.arguments[half:]]
            is_half = said.is_cut and n == len(said.uses) - 1
            deltas += [
                {"tool_calls": [{"index": n, "function": {"arguments": part}}]} for part in parts[: 1 if is_half else 2]
            ]
        finish = "length" if said.is_cut else "tool_calls"
        counted = {"prompt_tokens": 900, "completion_tokens": 50, "total_tokens": 950}
        usage = {**counted, "prompt_tokens_details": {"cached_tokens": 800}}
        common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": request["model"]}
        choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": finish})
        chunks: list[dict[str, Any]] = [{**common, "choices": [choice]} for choice in choices]
        chunks.append({**common, "choices": [], "usage": usage})
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        return Scripted(raw="".join([*lines, "data: [DONE]\n\n"]).encode())

    def _problems(self, messages: list[dict[str, Any]]) -> Iterator[str]:
        open_ids: list[str] = []
        turn = 0
        for message in messages:
            if message["role"] == "tool":
                if message["tool_call_id"] not in open_ids:
                    yield f"tool message for an unknown call {message['tool_call_id']}"
                open_ids.remove(message["tool_call_id"])
                continue
            if open_ids:
                yield f"no result for {open_ids}"
            if message["role"] == "assistant":
                # A chat template renders the arguments as an object, and the thoughts before the calls.
                for use in message.get("tool_calls") or ():
                    if not isinstance(json.loads(use["function"]["arguments"]), dict):
                        yield "arguments are no object"
                    open_ids.append(use["id"])
                if message.get(self.thought_field) != f"Thought of turn {turn}.":
                    yield f"turn {turn} came back without its {self.thought_field}"
                self.sent_back += 1
                turn += 1


@dataclass
class ResponsesWire:
    """The Responses API of a model that reasons, with nothing stored at the server."""

    problems: list[str] = field(default_factory=list[str])
    """Requests that were refused, by why."""
    sent_back: int = 0
    """Thoughts that came back as they were sent."""

    def __call__(self, request: dict[str, Any]) -> Scripted:
        items = request["input"]
        plain = [
            {"role": item.get("role", "tool"), "content": str(item.get("content") or item.get("output") or "")}
            for item in items
        ]
        if not plain[0]["content"].startswith("Work: engineer"):
            said: dict[str, Any] = {"type": "message", "texts": [engineers_answer({"messages": plain}).text]}
            return Scripted(raw=b"".join(responses_stream([said], "stop")))
        if "temperature" in request:
            # As models that reason do; it is learned once.
            error = "Unsupported parameter: 'temperature' is not supported with this model."
            return Scripted(status=400, error=error)
        if problem := next(self._problems(request), None):
            self.problems.append(problem)
            return Scripted(status=400, error=problem)
        turn = sum(item.get("type") == "reasoning" for item in items)
        next_said = said_in([{"role": "assistant"}] * turn, plain[-1]["content"])
        if next_said is None:
            return Scripted(raw=b"".join(responses_stream([], "content_filter")))
        thought = {"type": "reasoning", "id": f"rs_{turn}", "summary": [], "encrypted_content": _sealed(f"rs_{turn}")}
        calls: list[dict[str, Any]] = [
            {"type": "function_call", "call_id": use.id, "name": use.name, "arguments": use.arguments}
            for use in next_said.uses
        ]
        if next_said.is_cut:
            calls[-1]["is_half"] = True
        finish = "length" if next_said.is_cut else "stop"
        return Scripted(raw=b"".join(responses_stream([thought, *calls], finish)))

    def _problems(self, request: dict[str, Any]) -> Iterator[str]:
        if request["store"] is not False or request["include"] != ["reasoning.encrypted_content"]:
            yield "this account stores nothing"
        open_ids: list[str] = []
        items = request["input"]
        for number, item in enumerate(items):
            match item.get("type", "message"):
                case "reasoning":
                    if item["encrypted_content"] != _sealed(item["id"]):
                        yield f"The encrypted content for item {item['id']} could not be verified."
                    if items[number + 1].get("type") != "function_call":
                        yield f"Item '{item['id']}' of type 'reasoning' was provided without its following item"
                    self.sent_back += 1
                case "function_call":
                    if not isinstance(json.loads(item["arguments"]), dict):
                        yield "arguments are no object"
                    if items[number - 1].get("type") not in ("reasoning", "function_call"):
                        yield f"turn of {item['call_id']} came back without its reasoning"
                    open_ids.append(item["call_id"])
                case "function_call_output":
                    if item["call_id"] not in open_ids:
                        yield f"No tool call found for function call output with call_id {item['call_id']}."
                    open_ids.remove(item["call_id"])
                case _ if open_ids:
                    yield f"No tool output found for function call {open_ids[0]}."
                case _:
                    pass


@dataclass
class AnthropicWire:
    """The Messages API with extended thinking and prompt caching."""

    problems: list[str] = field(default_factory=list[str])
    sent_back: int = 0
    read: int = 0
    """Tokens of sessions that came from the cache."""
    prompts: int = 0
    """Tokens of all prompts of sessions."""
    _kept: set[str] = field(default_factory=set[str])

    def __call__(self, request: dict[str, Any]) -> Scripted:
        system = request.get("system", "")
        rules = system if isinstance(system, str) else "".join(block["text"] for block in system)
        plain = [{"role": "system", "content": rules}, *map(_plain, request["messages"])]
        if not rules.startswith("Work: engineer"):
            return Scripted(raw=_stream([_text(engineers_answer({"messages": plain}).text)], "end_turn", _USAGE))
        if problem := next(self._problems(request), None):
            self.problems.append(problem)
            error = {"type": "error", "error": {"type": "invalid_request_error", "message": problem}}
            return Scripted(status=400, error=json.dumps(error))
        usage = self._usage(request)
        said = said_in(request["messages"], str(plain[-1]["content"]))
        if said is None:
            return Scripted(raw=_stream([_text("I cannot")], "refusal", usage))
        blocks = [_thinking(said.thought), _redacted(f"hidden {said.turn}"), _text("Next step.")]
        for n, use in enumerate(said.uses):
            blocks.append(_use(use, is_half=said.is_cut and n == len(said.uses) - 1))
        return Scripted(raw=_stream(blocks, "max_tokens" if said.is_cut else "tool_use", usage))

    def _problems(self, request: dict[str, Any]) -> Iterator[str]:
        messages = request["messages"]
        marks = json.dumps(request).count('"cache_control"')
        if marks > 4:
            yield f"A maximum of 4 blocks with cache_control may be provided. Found {marks}."
        if request["max_tokens"] <= request["thinking"]["budget_tokens"]:
            yield "`max_tokens` must be greater than `thinking.budget_tokens`."
        yield from self._problems_of(messages)

    def _problems_of(self, messages: list[dict[str, Any]]) -> Iterator[str]:
        open_ids: list[str] = []
        for number, message in enumerate(messages):
            if message["role"] != ("user", "assistant")[number % 2]:
                yield "roles must alternate between user and assistant"
            for block in message["content"]:
                match block["type"]:
                    case "text" if not block["text"].strip():
                        yield "text content blocks must be non-empty"
                    case "tool_use":
                        open_ids.append(block["id"])
                    case "tool_result":
                        if block["tool_use_id"] not in open_ids:
                            yield f"unexpected `tool_use_id` {block['tool_use_id']} in `tool_result` blocks"
                        open_ids.remove(block["tool_use_id"])
                    case "thinking":
                        if block["signature"] != _signed(block["thinking"]):
                            yield f"messages.{number}: Invalid `signature` in `thinking` block"
                        self.sent_back += 1
                    case _:
                        pass
            if message["role"] == "user" and open_ids:
                yield f"`tool_use` ids were found without `tool_result` blocks immediately after: {open_ids}"
            kinds = [block["type"] for block in message["content"]]
            if "tool_use" in kinds and kinds[:2] != ["thinking", "redacted_thinking"]:
                yield "Expected `thinking` or `redacted_thinking`, but found `tool_use`."

    def _usage(self, request: dict[str, Any]) -> dict[str, int]:
        """What of the prompt a marked prefix of an earlier request holds, block for block."""
        blocks = [*request["tools"], *request["system"], *(b for m in request["messages"] for b in m["content"])]
        size = prefix = read = marked = 0
        digest, marks = hashlib.sha256(), set[str]()
        for block in blocks:
            bare = {name: value for name, value in block.items() if name != "cache_control"}
            text = json.dumps(bare, sort_keys=True)
            digest.update(text.encode())
            size += len(text) // 4
            if digest.hexdigest() in self._kept:
                read = size
            if "cache_control" in block:
                marks.add(digest.hexdigest())
                marked = size
        self._kept |= marks
        prefix = max(0, marked - read)
        self.read, self.prompts = self.read + read, self.prompts + size
        fresh = size - read - prefix
        return {"input_tokens": fresh, "cache_creation_input_tokens": prefix, "cache_read_input_tokens": read}


_USAGE: Mapping[str, int] = {"input_tokens": 90, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
_Block = tuple[dict[str, Any], list[dict[str, Any]]]


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    texts = [str(block.get("text") or block.get("content") or "") for block in message["content"]]
    return {"role": message["role"], "content": "\n".join(texts)}


def _sealed(item: str) -> str:
    return "gAAAA" + hashlib.sha256(b"sealed" + item.encode()).hexdigest()


def _signed(text: str) -> str:
    return hashlib.sha256(b"key" + text.encode()).hexdigest()


def _thinking(text: str) -> _Block:
    parts = [{"type": "thinking_delta", "thinking": part} for part in (text[:9], text[9:])]
    signature = _signed(text)
    signed = [{"type": "signature_delta", "signature": signature}]
    return {"type": "thinking", "thinking": "", "signature": ""}, [*parts, *signed]


def _redacted(data: str) -> _Block:
    return {"type": "redacted_thinking", "data": data}, []


def _text(text: str) -> _Block:
    return {"type": "text", "text": ""}, [{"type": "text_delta", "text": text}]


def _use(use: ToolUse, *, is_half: bool) -> _Block:
    half = len(use.arguments) // 2
    parts = [use.arguments[:half], *([] if is_half else [use.arguments[half:]])]
    deltas = [{"type": "input_json_delta", "partial_json": part} for part in ("", *parts)]
    return {"type": "tool_use", "id": use.id, "name": use.name, "input": {}}, deltas


def _stream(blocks: list[_Block], reason: str, usage: Mapping[str, int]) -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "tiny-1b", "content": []}
    begun = {**message, "stop_reason": None, "stop_sequence": None, "usage": {**usage, "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}, {"type": "ping"}]
    for index, (start, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    ended = {"stop_reason": reason, "stop_sequence": None}
    events.append({"type": "message_delta", "delta": ended, "usage": {"output_tokens": 50}})
    events.append({"type": "message_stop"})
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
