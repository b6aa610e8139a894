"""What each provider sends, as its own documentation shows it: streams, calls of tools, usage, errors.

The pages are named in fleet/models/presets.py (`documented_at`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from fleet.models.presets import PRESETS, Preset, ProviderPreset
from tests.support.model_server import Scene

Provider = Preset | Literal["responses"]
"""A provider by its preset; `responses` is OpenAI over its other API."""

Trouble = Literal["rate", "down", "overloaded", "key", "model", "too_long", "filtered", "credit", "late_error"]

_MODEL = "tiny-1b"


def facts_of(provider: Provider) -> ProviderPreset:
    """What the fleet knows of the provider."""
    return PRESETS["openai" if provider == "responses" else provider]


def stream_of(preset: Provider, *texts: str, finish: str | None = "stop", usage: bool = True) -> list[bytes]:
    """The events of a reply of plain text. Without `finish` the last events are missing."""
    if preset == "responses":
        return responses_stream([{"type": "message", "texts": texts}], finish)
    if PRESETS[preset].wire == "anthropic":
        return _messages_stream([_text_block(0, texts)], finish)
    chunks = [_openai({"content": text}) for text in texts]
    if preset == "openrouter":
        # Comments keep the connection alive while a provider is sought.
        chunks.insert(0, b": OPENROUTER PROCESSING\n\n")
    return [*chunks, *_openai_end(preset, finish, usage=usage)]


def reply(preset: Provider, *texts: str, finish: str = "stop") -> Scene:
    """A whole reply."""
    return Scene(stream_of(preset, *texts, finish=finish))


def tool_call(preset: Provider, name: str, arguments: str) -> Scene:
    """A reply that says a word and calls one tool, its arguments in two pieces where the provider cuts them."""
    if preset == "responses":
        said: dict[str, Any] = {"type": "message", "texts": ("Let me see.",)}
        call = {"type": "function_call", "call_id": "call_a1", "name": name, "arguments": arguments}
        return Scene(responses_stream([said, call], "stop"))
    if PRESETS[preset].wire == "anthropic":
        return Scene(_messages_stream([_text_block(0, ("Let me see.",)), _use_block(1, name, arguments)], "tool_use"))
    half = len(arguments) // 2
    whole = preset in ("google", "groq", "ollama")
    pieces = [arguments] if whole else [arguments[:half], arguments[half:]]
    calls: list[bytes] = []
    for number, piece in enumerate(pieces):
        use: dict[str, Any] = {"index": 0, "function": {"arguments": piece}}
        if number == 0:
            use |= {"id": "call_a1", "type": "function", "function": {"name": name, "arguments": piece}}
        if preset == "google":
            # It numbers nothing, and signs each use.
            del use["index"]
            use["extra_content"] = {"google": {"thought_signature": "c2ln"}}
        calls.append(_openai({"tool_calls": [use]}))
    finish = "stop" if preset == "google" else "tool_calls"
    return Scene([_openai({"content": "Let me see."}), *calls, *_openai_end(preset, finish, usage=True)])


def structured(preset: Provider, document: Mapping[str, Any]) -> Scene:
    """A reply that holds one JSON object as its text."""
    return reply(preset, json.dumps(document))


def trouble(preset: Provider, kind: Trouble) -> Scene:
    """An error in the provider's own shape."""
    if kind == "late_error":
        return _late_error(preset)
    status, document, headers = _ERRORS[preset](kind)
    return Scene([json.dumps(document).encode()], status=status, content_type="application/json", headers=headers)


def responses_stream(items: Sequence[Mapping[str, Any]], finish: str | None, *, model: str = _MODEL) -> list[bytes]:
    """The events of a reply of the Responses API: each item begins, comes in pieces, and comes whole.

    Args:
        items: in their order; a message has its `texts`. A call with `is_half` is cut off in its arguments.
        finish: "stop", or the reason why the reply is incomplete; None leaves the last events out.
    """
    usage = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18, "input_tokens_details": {"cached_tokens": 5}}
    head = {"id": "resp_1", "object": "response", "created_at": 0, "model": model, "output": [], "error": None}
    begun: dict[str, Any] = {**head, "status": "in_progress", "incomplete_details": None, "usage": None}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    for index, item in enumerate(items):
        events += _item_events(index, dict(item))
    if finish is not None:
        reason = {"length": "max_output_tokens"}.get(finish, finish)
        is_whole = finish == "stop"
        details = None if is_whole else {"reason": reason}
        kind = "completed" if is_whole else "incomplete"
        ended = {**head, "status": kind, "incomplete_details": details, "usage": usage}
        events.append({"type": f"response.{kind}", "response": ended})
    return [_named({**event, "sequence_number": number}) for number, event in enumerate(events)]


def _item_events(index: int, item: dict[str, Any]) -> list[dict[str, Any]]:
    at = {"output_index": index, "item_id": f"item_{index}"}
    texts, is_half = item.pop("texts", ()), item.pop("is_half", False)
    item = {"id": f"item_{index}", **item}
    match item["type"]:
        case "message":
            empty = {**item, "role": "assistant", "status": "in_progress", "content": []}
            text = {"type": "output_text", "text": "".join(texts), "annotations": []}
            whole = {**empty, "status": "completed", "content": [text]}
            pieces = [{"type": "response.output_text.delta", **at, "content_index": 0, "delta": part} for part in texts]
        case "function_call":
            empty, whole = {**item, "arguments": ""}, item
            half = len(item["arguments"]) // 2
            parts = [item["arguments"][:half], *([] if is_half else [item["arguments"][half:]])]
            pieces = [{"type": "response.function_call_arguments.delta", **at, "delta": part} for part in parts]
        case _:
            # What is encrypted may be incomplete when the item begins.
            empty, whole, pieces = {**item, "encrypted_content": "begun"}, item, []
    ends = [] if is_half else [{"type": "response.output_item.done", "output_index": index, "item": whole}]
    return [{"type": "response.output_item.added", "output_index": index, "item": empty}, *pieces, *ends]


def _openai(delta: Mapping[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": dict(delta), "finish_reason": finish}
    return _event({"id": "c", "object": "chat.completion.chunk", "created": 0, "model": _MODEL, "choices": [choice]})


def _openai_end(preset: Preset, finish: str | None, *, usage: bool) -> list[bytes]:
    if finish is None:
        return []
    counted: dict[str, Any] = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    if preset in ("openai", "openrouter", "groq"):
        counted["prompt_tokens_details"] = {"cached_tokens": 5}
    end = _openai({}, finish)
    head = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": _MODEL, "choices": []}
    counts = [_event({**head, "usage": counted})] if usage else []
    return [end, *counts, b"data: [DONE]\n\n"]


def _event(document: Mapping[str, Any], name: str | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(document)}\n\n".encode()


def _named(document: Mapping[str, Any]) -> bytes:
    return _event(document, document["type"])


def _text_block(index: int, texts: Sequence[str]) -> list[bytes]:
    deltas = [{"type": "text_delta", "text": text} for text in texts]
    return _block(index, {"type": "text", "text": ""}, deltas)


def _use_block(index: int, name: str, arguments: str) -> list[bytes]:
    half = len(arguments) // 2
    deltas = [{"type": "input_json_delta", "partial_json": part} for part in ("", arguments[:half], arguments[half:])]
    return _block(index, {"type": "tool_use", "id": "toolu_01", "name": name, "input": {}}, deltas)


def _block(index: int, start: Mapping[str, Any], deltas: Sequence[Mapping[str, Any]]) -> list[bytes]:
    return [
        _named({"type": "content_block_start", "index": index, "content_block": dict(start)}),
        _named({"type": "ping"}),
        *(_named({"type": "content_block_delta", "index": index, "delta": dict(delta)}) for delta in deltas),
        _named({"type": "content_block_stop", "index": index}),
    ]


def _messages_stream(blocks: Sequence[Sequence[bytes]], finish: str | None) -> list[bytes]:
    usage = {"input_tokens": 4, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 5, "output_tokens": 1}
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": _MODEL,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    begun = [_named({"type": "message_start", "message": message}), *(event for block in blocks for event in block)]
    if finish is None:
        return begun
    reason = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}.get(finish, finish)
    delta = {"stop_reason": reason, "stop_sequence": None}
    return [
        *begun,
        _named({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 7}}),
        _named({"type": "message_stop"}),
    ]


def _late_error(preset: Provider) -> Scene:
    """Status 200 is sent, and then something breaks."""
    begun = stream_of(preset, "half a ", finish=None)
    if preset == "responses":
        failed = {"code": "server_error", "message": "The server had an error while processing your request"}
        response = {"id": "resp_1", "model": _MODEL, "status": "failed", "error": failed, "usage": None}
        return Scene([*begun, _named({"type": "response.failed", "response": response})])
    if preset == "anthropic":
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        return Scene([*begun, _named(error)])
    if preset == "openrouter":
        late = {"code": 502, "message": "Provider disconnected"}
        choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
        head = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": _MODEL}
        return Scene([*begun, _event({**head, "error": late, "choices": [choice]})])
    error = {"message": "The server had an error while processing your request", "type": "server_error"}
    return Scene([*begun, _event({"error": error})])


_Answer = tuple[int, Any, dict[str, str]]
_WAIT = {"retry-after": "7"}


def _of_openai(kind: str) -> _Answer:
    def error(message: str, type_: str, code: str | None) -> dict[str, Any]:
        return {"error": {"message": message, "type": type_, "param": None, "code": code}}

    return {
        "rate": (429, error("Rate limit reached for tiny-1b", "requests", "rate_limit_exceeded"), _WAIT),
        "down": (500, error("The server had an error", "server_error", None), {}),
        "overloaded": (503, error("The engine is currently overloaded", "server_error", None), {}),
        "key": (401, error("Incorrect API key provided: sk-test-1234", "invalid_request_error", "invalid_api_key"), {}),
        "model": (404, error("The model `tiny-1b` does not exist", "invalid_request_error", "model_not_found"), {}),
        "too_long": (
            400,
            error(
                "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
                "invalid_request_error",
                "context_length_exceeded",
            ),
            {},
        ),
        "filtered": (400, error("Rejected by our safety system", "invalid_request_error", "content_policy"), {}),
        "credit": (429, error("You exceeded your current quota", "insufficient_quota", "insufficient_quota"), {}),
    }[kind]


def _of_anthropic(kind: str) -> _Answer:
    def error(type_: str, message: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": type_, "message": message}, "request_id": "req_1"}

    return {
        "rate": (429, error("rate_limit_error", "This request would exceed your rate limit"), _WAIT),
        "down": (500, error("api_error", "Internal server error"), {}),
        "overloaded": (529, error("overloaded_error", "Overloaded"), {}),
        "key": (401, error("authentication_error", "invalid x-api-key sk-test-1234"), {}),
        "model": (404, error("not_found_error", "model: tiny-1b"), {}),
        "too_long": (400, error("invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum"), {}),
        "filtered": (400, error("invalid_request_error", "Output blocked by content filtering policy"), {}),
        "credit": (400, error("invalid_request_error", "Your credit balance is too low"), {}),
    }[kind]


def _of_google(kind: str) -> _Answer:
    def error(code: int, status: str, message: str, **more: Any) -> list[Any]:
        return [{"error": {"code": code, "message": message, "status": status, **more}}]

    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "6.2s"}
    bad_key = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
    return {
        "rate": (429, error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", details=[retry]), {}),
        "down": (500, error(500, "INTERNAL", "An internal error has occurred"), {}),
        "overloaded": (503, error(503, "UNAVAILABLE", "The model is overloaded"), {}),
        "key": (400, error(400, "INVALID_ARGUMENT", "API key not valid. sk-test-1234", details=bad_key), {}),
        "model": (404, error(404, "NOT_FOUND", "models/tiny-1b is not found for API version v1main"), {}),
        "too_long": (
            400,
            error(400, "INVALID_ARGUMENT", "The input token count (9000) exceeds the maximum number of tokens allowed"),
            {},
        ),
        "filtered": (400, error(400, "INVALID_ARGUMENT", "The prompt was blocked for SAFETY"), {}),
        "credit": (402, error(402, "RESOURCE_EXHAUSTED", "Your prepaid credits are used up"), {}),
    }[kind]


def _of_groq(kind: str) -> _Answer:
    def error(message: str, type_: str, code: str | None = None) -> dict[str, Any]:
        return {"error": {"message": message, "type": type_} | ({"code": code} if code else {})}

    rate = "Rate limit reached for model `tiny-1b`: try again in 6.1s. Upgrade at https://groq.example/settings/billing"
    return {
        "rate": (429, error(rate, "tokens", "rate_limit_exceeded"), _WAIT),
        "down": (502, error("Bad Gateway", "internal_server_error"), {}),
        "overloaded": (498, error("Flex tier capacity exceeded", "flex"), {}),
        "key": (401, error("Invalid API Key sk-test-1234", "invalid_request_error", "invalid_api_key"), {}),
        "model": (404, error("The model `tiny-1b` does not exist", "invalid_request_error", "model_not_found"), {}),
        "too_long": (413, error("Request too large for model `tiny-1b`", "tokens", "rate_limit_exceeded"), {}),
        "filtered": (400, error("Blocked by content policy", "invalid_request_error"), {}),
        "credit": (402, error("Payment required", "invalid_request_error"), {}),
    }[kind]


def _of_openrouter(kind: str) -> _Answer:
    def error(code: int, message: str, **metadata: Any) -> dict[str, Any]:
        return {"error": {"code": code, "message": message, **({"metadata": metadata} if metadata else {})}}

    flagged = error(403, "Input was flagged by moderation", reasons=["violence"], flagged_input="...")
    return {
        "rate": (429, error(429, "You are being rate limited"), _WAIT),
        "down": (502, error(502, "Provider returned error", provider_name="x", raw="boom"), {}),
        "overloaded": (503, error(503, "No available model provider"), {}),
        "key": (401, error(401, "No auth credentials found for sk-test-1234"), {}),
        "model": (404, error(404, "No endpoints found for tiny-1b"), {}),
        "too_long": (400, error(400, "This endpoint's maximum context length is 8192 tokens"), {}),
        "filtered": (403, flagged, {}),
        "credit": (402, error(402, "Insufficient credits"), {}),
    }[kind]


def _of_ollama(kind: str) -> _Answer:
    def error(message: str) -> dict[str, Any]:
        return {"error": {"message": message, "type": "api_error", "param": None, "code": None}}

    return {
        "rate": (429, error("too many requests"), _WAIT),
        "down": (500, error("llama runner process has terminated"), {}),
        "overloaded": (503, error("server busy, please try again. maximum pending requests exceeded"), {}),
        "key": (401, error("unauthorized sk-test-1234"), {}),
        "model": (404, error('model "tiny-1b" not found, try pulling it first'), {}),
        "too_long": (400, error("prompt is too long: exceeds maximum context length"), {}),
        "filtered": (400, error("refused by content filter"), {}),
        "credit": (402, error("no credit"), {}),
    }[kind]


_ERRORS: Mapping[Provider, Callable[[str], _Answer]] = {
    "openai": _of_openai,
    "responses": _of_openai,
    "anthropic": _of_anthropic,
    "google": _of_google,
    "groq": _of_groq,
    "openrouter": _of_openrouter,
    "ollama": _of_ollama,
}
