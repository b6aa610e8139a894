"""What tokens cost: no part of a call is free."""

from __future__ import annotations

import pytest

from fleet.models.engine_config import Price
from fleet.models.usage import affordable_tokens, cost_of


@pytest.mark.rule("GL-12", "MB-20")
@pytest.mark.parametrize(
    ("tokens_in", "tokens_out", "cost"),
    [(0, 0, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1), (333_333, 0, 1), (333_334, 0, 2), (1_000_000, 1_000_000, 18)],
)
def test_part_of_a_millionth_is_charged_as_a_whole_one(tokens_in: int, tokens_out: int, cost: int) -> None:
    price = Price(in_microusd_per_mtok=3, out_microusd_per_mtok=15)
    assert cost_of(price, tokens_in=tokens_in, tokens_out=tokens_out) == cost


def test_longest_reply_that_is_affordable_costs_no_more_than_there_is() -> None:
    price = Price(in_microusd_per_mtok=3_000_000, out_microusd_per_mtok=15_000_000)
    tokens = affordable_tokens(price, 1000, tokens_in=7)
    assert tokens is not None
    assert cost_of(price, tokens_in=7, tokens_out=tokens) <= 1000 < cost_of(price, tokens_in=7, tokens_out=tokens + 1)
