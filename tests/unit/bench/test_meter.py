"""Token budgets of arms."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.bench.meter import TokenMeter
from fleet.kernel.errors import BudgetExceeded
from fleet.models.chat import ChatMessage, ChatReply, ChatRequest, Sampling, TokenUsage


def request(text: str, max_tokens: int = 100) -> ChatRequest:
    return ChatRequest(messages=(ChatMessage(role="user", content=text),), sampling=Sampling(max_tokens=max_tokens))


def reply(tokens_in: int, tokens_out: int) -> ChatReply:
    usage = TokenUsage(tokens_in=tokens_in, tokens_out=tokens_out)
    return ChatReply(text="x", finish_reason="stop", usage=usage, engine="e", model="m", latency_ms=5)


def test_first_call_is_bounded_by_bytes_and_a_known_prompt_by_its_count():
    meter = TokenMeter(1000)
    assert meter.bound(request("x" * 300)) == 316
    meter.settle(request("x" * 300), reply(100, 20), stage="draft")
    assert meter.bound(request("x" * 300)) == 100
    assert meter.bound(request("y" * 300)) == 110 + 16
    assert (meter.spent, meter.unspent, meter.by_stage) == (120, 880, {"draft": 120})


def test_figures_that_a_test_printed_are_bounded_whatever_the_words_before_took():
    meter = TokenMeter(4000)
    words = "return the numbers in ascending order and keep the others as they are\n" * 10
    meter.settle(request(words), reply(len(words) // 5, 20), stage="draft")
    printed = ", ".join(str(n % 10) for n in range(200))
    # A tokenizer that has a token for each digit, each comma and each space, as that of Qwen2.5 has.
    assert meter.bound(request(words + printed)) >= len(words) // 5 + len(printed)
    assert meter.bound(request(words + printed)) < len(words + printed)


def test_reply_bound_shrinks_to_what_is_left_but_not_below_half():
    meter = TokenMeter(400)
    assert meter.fitted(request("x" * 100)).sampling.max_tokens == 100
    assert TokenMeter(190).fitted(request("x" * 100)).sampling.max_tokens == 74
    with pytest.raises(BudgetExceeded, match="the arm ends here"):
        TokenMeter(160).fitted(request("x" * 100))


def test_spoilt_reply_stays_on_the_bill():
    meter = TokenMeter(1000)
    meter.settle(request("a"), reply(10, 5), stage="tests")
    meter.spoil()
    assert [c.is_usable for c in meter.calls] == [False]
    assert meter.spent == 15


@settings(max_examples=60)
@given(
    st.integers(100, 5000),
    st.lists(st.tuples(st.integers(1, 600), st.integers(1, 200)), max_size=30),
    st.integers(2, 5),
)
def test_budget_is_never_exceeded_when_tokens_have_a_steady_size(
    budget: int, calls: list[tuple[int, int]], bytes_per_token: int
):
    meter = TokenMeter(budget)
    for size, wanted in calls:
        asked = request("z" * size, wanted)
        try:
            fitted = meter.fitted(asked)
        except BudgetExceeded:
            continue
        meter.settle(fitted, reply(size // bytes_per_token + 4, fitted.sampling.max_tokens), stage="s")
        assert meter.spent <= budget
