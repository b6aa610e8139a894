"""From the answer of a server to one error."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.kernel.errors import ContextTooLarge, ModelError, ModelUnavailable, ReplyMalformed, ReplyRefused
from fleet.models.chat import ChatMessage, ChatRequest
from fleet.models.engine_config import HttpEngine
from fleet.models.engines.server_model import Partial, PartialUse, finish_reason
from fleet.models.engines.status_errors import ServerAnswer, error_of, retry_after_s, shown

ENGINE = HttpEngine(engine_id="mine", kind="openai", model="m", base_url="http://h/v1", unpriced=True)


def error(text: str, status: int | None = None, body: object = None, **headers: str) -> ModelError:
    return error_of(ServerAnswer(text, status=status, headers=headers, body=body), ENGINE, "engine", {"engine": "mine"})


@pytest.mark.parametrize(
    ("headers", "body", "wait"),
    [
        ({"retry-after": "7"}, None, 7),
        ({"retry-after": "0.2"}, None, 1),
        ({"retry-after": "999999"}, None, 3600),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:10 GMT"}, None, 10),
        ({"retry-after": "Wed, 21 Oct 2015 07:27:00 GMT"}, None, 0),
        ({"retry-after": "Wed, 21 Oct 9999 07:28:10 GMT"}, None, 3600),
        ({"retry-after": "soon"}, None, None),
        ({"retry-after": "-1"}, None, None),
        ({}, {"details": [{"x": 1}, 5, {"retryDelay": "34.1s"}]}, 35),
        ({}, {"details": 5}, None),
        ({}, "text", None),
    ],
)
def test_wait_is_read_from_header_or_body_and_bounded(headers: dict[str, str], body: Any, wait: int | None) -> None:
    assert retry_after_s(headers, body, now_s=1_445_412_480) == wait


@pytest.mark.parametrize(
    ("found", "cls", "is_permanent"),
    [
        (error("x", 429, **{"retry-after": "3"}), ModelUnavailable, False),
        (error("insufficient_quota", 429), ModelUnavailable, True),
        (error("<p>nothing here</p>", 404), ModelUnavailable, True),
        (error("no such method", 405), ModelUnavailable, True),
        (error("I am a teapot", 418), ModelUnavailable, True),
        (error("the key may not", 403), ModelUnavailable, True),
        (error("not implemented", 501), ModelUnavailable, True),
        (error("exceeds the available context size", 500), ContextTooLarge, False),
        (error('{"error": {"code": "tool_use_failed", "message": "no"}}', 400), ReplyMalformed, False),
        (error("Unauthorized", 401), ModelUnavailable, True),
        (error("late", 200, {"type": "overloaded_error"}), ModelUnavailable, False),
        (error("late", None, {"code": 502}), ModelUnavailable, False),
        (error("late", None, {"code": 99, "type": "authentication_error"}), ModelUnavailable, True),
        (error("late", None, {"type": "who knows"}), ModelUnavailable, False),
        (error("late", None, "no mapping"), ModelUnavailable, False),
        (error("late flagged", None), ReplyRefused, False),
        (error("{broken", 400), ModelUnavailable, True),
    ],
)
def test_answer_becomes_the_error_that_says_whether_to_try_again(
    found: ModelError, cls: type[ModelError], is_permanent: bool
) -> None:
    assert type(found) is cls
    assert found.details.get("permanent", False) is is_permanent


def test_wait_is_a_fact_of_the_error_only_where_waiting_helps() -> None:
    assert error("x", 503, **{"retry-after": "3"}).details == {"engine": "mine", "status": 503, "retry_after_s": 3}
    assert "retry_after_s" not in error("x", 401, **{"retry-after": "3"}).details


def test_error_names_the_status_of_the_answer() -> None:
    assert "engine: HTTP 500, boom;" in error("boom", 500).message


def test_page_is_shown_as_its_words_and_silence_as_such() -> None:
    assert shown("<html><style>a{b}</style><h1>Bad\n Gateway</h1></html>") == "Bad Gateway"
    assert shown(" ") == "an empty answer"
    assert len(shown("x" * 9000)) == 500


@pytest.mark.parametrize(
    ("reason", "cls"),
    [
        (None, ModelUnavailable),
        ("error", ModelUnavailable),
        ("content_filter", ReplyRefused),
        ("content_filter: SAFETY", ReplyRefused),
        ("refusal", ReplyRefused),
        ("function_call_filter: MALFORMED_FUNCTION_CALL", ReplyMalformed),
        ("model_context_window_exceeded", ContextTooLarge),
    ],
)
def test_reason_that_is_no_end_of_a_reply_is_an_error(reason: str | None, cls: type[ModelError]) -> None:
    with pytest.raises(cls):
        finish_reason(reason, has_uses=False, where="engine", engine="mine")


@pytest.mark.parametrize(
    ("reason", "has_uses", "found"),
    [
        ("stop", False, "stop"),
        ("end_turn", False, "stop"),
        ("unheard of", False, "stop"),
        ("stop", True, "tool_use"),
        ("tool_calls", True, "tool_use"),
        ("max_tokens", True, "length"),
        ("abort", True, "abort"),
    ],
)
def test_reason_of_every_provider_is_one_of_ours(reason: str, has_uses: bool, found: str) -> None:
    assert finish_reason(reason, has_uses=has_uses, where="engine", engine="mine") == found


def test_partial_reply_counts_calls_too_and_holds_no_lone_surrogates() -> None:
    partial = Partial()
    assert partial.add("a\ud800b") == "a?b"
    assert partial.add("") == ""
    partial.uses.append(PartialUse(name="t", pieces=["{", "}"]))
    request = ChatRequest(messages=(ChatMessage(role="user", content="hello"),))
    assert (partial.counted(request).tokens_in, partial.counted(request).tokens_out) == (2, 3)
    assert partial.tool_uses[0].id == "call-1"
