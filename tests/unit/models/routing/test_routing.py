"""Which engine comes next after which failure."""

from __future__ import annotations

import pytest

from fleet.models.profiles import Chain, load_models
from fleet.models.routing.routing import (
    Attempt,
    Call,
    Exhausted,
    Skip,
    backoff_ms,
    estimate_tokens,
    next_call,
    reply_room,
    skips_for,
)


def chain(*contexts: int, repairs: int = 1, **entry: object) -> Chain:
    names = [f"e{n}" for n in range(len(contexts))]
    engines = [
        {"engine_id": name, "kind": "vllm", "base_url": "u", "model": "m", "unpriced": True, "max_context": context}
        for name, context in zip(names, contexts, strict=True)
    ]
    entries = [{"engine_id": name, "max_tokens": 100, "timeout_s": 5, **entry} for name in names]
    policy = {"chain": entries, "on_malformed": {"repairs": repairs}}
    return load_models({"engines": engines, "policies": {"default": policy}}).chain_for("developer")


TWO = chain(1000, 1000)


def after(*attempts: tuple[int, str], of: Chain = TWO, skips: dict[int, Skip] | None = None) -> Call | Exhausted:
    made = [Attempt(entry, code) for entry, code in attempts]
    return next_call(of, made, skips=skips or {}, request_id="r1")


@pytest.mark.rule("MB-3")
def test_first_call_goes_to_the_first_entry_that_is_not_skipped() -> None:
    assert after() == Call(0)
    assert after(skips={0: Skip("e0", "too small")}) == Call(1)
    none_left = after(skips={0: Skip("e0", "x"), 1: Skip("e1", "x")})
    assert none_left == Exhausted("no engine of the chain can take this step")


@pytest.mark.rule("MB-4")
@pytest.mark.parametrize("code", ["model_unavailable", "model_timeout"])
def test_unavailable_engine_is_asked_once_more_after_a_wait_and_then_the_next(code: str) -> None:
    again = after((0, code))
    assert isinstance(again, Call)
    assert again.entry == 0
    assert 500 <= again.delay_ms <= 750
    assert after((0, code), (0, code)) == Call(1)
    assert isinstance(after((0, code), (0, code), (1, code), (1, code)), Exhausted)


def test_permanent_failure_is_not_tried_again() -> None:
    made = [Attempt(0, "model_unavailable", is_permanent=True)]
    assert next_call(TWO, made, skips={}, request_id="r") == Call(1)


@pytest.mark.rule("MB-4")
def test_backoff_doubles_and_is_the_same_for_the_same_request() -> None:
    waits = [backoff_ms(n, key="r1") for n in (1, 2, 3)]
    assert waits == [backoff_ms(n, key="r1") for n in (1, 2, 3)]
    assert all(low <= wait <= low * 1.5 for wait, low in zip(waits, (500, 1000, 2000), strict=True))
    assert len({backoff_ms(1, key=f"r{n}") for n in range(20)}) > 5


@pytest.mark.rule("MB-5")
def test_too_large_context_goes_to_the_next_larger_engine_only() -> None:
    three = chain(1000, 900, 2000)
    assert after((0, "context_too_large"), of=three) == Call(2)
    assert isinstance(after((2, "context_too_large"), of=three), Exhausted)


@pytest.mark.rule("MB-6")
def test_malformed_reply_is_repaired_and_then_the_next_engine_is_asked_afresh() -> None:
    assert after((0, "reply_malformed")) == Call(0, shows_problems=True)
    assert after((0, "reply_malformed"), (0, "reply_malformed")) == Call(1)
    none = chain(1000, 1000, repairs=0)
    assert after((0, "reply_malformed"), of=none) == Call(1)


def test_repair_that_met_a_dead_engine_still_shows_the_problems() -> None:
    again = after((0, "reply_malformed"), (0, "model_timeout"))
    assert isinstance(again, Call)
    assert (again.entry, again.shows_problems) == (0, True)


@pytest.mark.rule("MB-7")
def test_refusal_goes_to_the_next_engine_once() -> None:
    three = chain(1000, 1000, 1000)
    assert after((0, "reply_refused"), of=three) == Call(1)
    assert after((0, "reply_refused"), (1, "reply_refused"), of=three) == Exhausted("two engines refused to answer")


def test_failure_that_no_engine_can_mend_ends_the_chain() -> None:
    assert isinstance(after((0, "budget_exceeded")), Exhausted)


@pytest.mark.rule("MB-3")
def test_entries_that_cannot_serve_the_step_are_skipped_with_a_reason() -> None:
    skips = skips_for(chain(300, 1000), prompt_tokens=250, max_tokens=500, needs_schema=False)
    assert list(skips) == [0]
    assert "below the 350 needed" in skips[0].reason
    capped = skips_for(chain(1000, max_tokens_per_step=200), prompt_tokens=150, max_tokens=500, needs_schema=False)
    assert "limit of 200" in capped[0].reason
    strict = chain(1000, json_schema="required")
    assert "JSON schema" in skips_for(strict, prompt_tokens=1, max_tokens=1, needs_schema=True)[0].reason
    assert not skips_for(strict, prompt_tokens=1, max_tokens=1, needs_schema=False)


def test_estimate_never_falls_below_one_token_for_three_bytes() -> None:
    assert estimate_tokens("abc" * 10) == 11


def free(context: int, output: int, **entry: object) -> Chain:
    engine = {"engine_id": "e0", "kind": "vllm", "base_url": "u", "model": "m", "unpriced": True}
    sized = {**engine, "max_context": context, "max_output": output}
    policy = {"chain": [{"engine_id": "e0", "timeout_s": 5, **entry}]}
    return load_models({"engines": [sized], "policies": {"default": policy}}).chain_for("developer")


@pytest.mark.rule("MB-44")
@pytest.mark.parametrize(
    ("kind", "prompt", "context", "output", "room"),
    [
        ("draft", 2_000, 200_000, 64_000, 64_000),
        ("vote", 2_000, 200_000, 64_000, 21_333),
        ("draft", 150_000, 200_000, 64_000, 50_000),
        ("draft", 1_000, 8_192, 1_024, 1_024),
        ("critique", 1_000, 8_192, 1_024, 341),
        ("draft", 8_000, 8_192, 1_024, 256),
        ("vote", 1_000, 8_192, 300, 256),
        ("vote", 1_000, 8_192, 100, 100),
    ],
)
def test_reply_may_be_as_long_as_engine_and_window_let_it_be(
    kind: str, prompt: int, context: int, output: int, room: int
) -> None:
    assert reply_room(kind, free(context, output).entries[0], prompt_tokens=prompt) == room


@pytest.mark.rule("MB-44")
def test_bound_of_an_entry_lowers_replies_of_one_piece_and_no_session() -> None:
    link = free(200_000, 64_000, max_tokens=500).entries[0]
    assert [reply_room(kind, link, prompt_tokens=10) for kind in ("draft", "vote")] == [500, 256]
    assert [reply_room(kind, link, prompt_tokens=10) for kind in ("engineer", "change")] == [64_000, 64_000]


@pytest.mark.rule("MB-44")
def test_engine_that_would_cut_the_reply_is_passed_over_only_for_one_that_holds_all_of_it() -> None:
    alone, two = chain(1000, max_tokens=600), chain(1000, 5000, max_tokens=600)
    asked = {"prompt_tokens": 500, "max_tokens": 600, "needs_schema": False}
    assert skips_for(alone, **asked) == {}  # pyright: ignore[reportArgumentType]
    assert list(skips_for(two, **asked)) == [0]  # pyright: ignore[reportArgumentType]
    assert list(skips_for(alone, prompt_tokens=900, max_tokens=600, needs_schema=False)) == [0]
