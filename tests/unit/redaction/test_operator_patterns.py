"""Patterns that an operator adds: bounded, tried on samples, refused when slow, and used everywhere (CX-76)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fleet.kernel.errors import ConfigError
from fleet.redaction.bounded_expression import extent_of
from fleet.redaction.operator_patterns import OperatorPattern, OperatorRedaction, check_speed
from fleet.redaction.redact import RedactingStream, redact, use_operator_patterns
from fleet.redaction.redact_json import redact_json
from fleet.redaction.secrets import find_secrets

STAFF = OperatorPattern(name="STAFF_BADGE", expression="badge-[0-9]{6}", samples=("my badge-123456",))
TICKET = OperatorPattern(
    name="TICKET",
    expression=r"\bdoor (?P<secret>[a-z]{4}-[a-z]{4})\b",
    any_case=True,
    samples=("the door ABCD-efgh is open",),
    harmless=("the door is open", "door abcd-efghi"),
)


@pytest.fixture(autouse=True)
def _added() -> Iterator[None]:
    use_operator_patterns([STAFF.compiled, TICKET.compiled])
    yield
    use_operator_patterns([])


def made(**changes: Any) -> OperatorPattern:
    values: dict[str, Any] = {"name": "STAFF_BADGE", "expression": "badge-[0-9]{6}", "samples": ["badge-123456"]}
    return OperatorPattern.model_validate({**values, **changes})


@pytest.mark.rule("CX-76")
def test_added_patterns_are_taken_out_of_every_kind_of_text() -> None:
    assert redact("badge-123456 at\ndoor abcd-efgh").text == "[REDACTED:STAFF_BADGE] at\ndoor [REDACTED:TICKET]"
    assert redact("badge-123456 badge-1").counts == {"STAFF_BADGE": 1}
    assert redact_json({"a": ["badge-123456"], "b": 1}) == {"a": ["[REDACTED:STAFF_BADGE]"], "b": 1}
    stream = RedactingStream()
    parts = [*map(stream.feed, ("my bad", "ge-12", "3456\nand")), stream.flush()]
    assert "".join(parts) == "my [REDACTED:STAFF_BADGE]\nand"
    assert find_secrets("x = 'badge-123456'") == ["STAFF_BADGE"]
    assert redact("ghp_" + "a1B2c3D4e5" * 4).counts == {"GITHUB": 1}, "those of the catalogue stay"


@pytest.mark.rule("CX-76")
def test_texts_that_were_looked_at_before_are_looked_at_again_with_new_patterns() -> None:
    use_operator_patterns([])
    assert redact_json(["badge-654321"]) == ["badge-654321"]
    use_operator_patterns([STAFF.compiled])
    assert redact_json(["badge-654321"]) == ["[REDACTED:STAFF_BADGE]"]


@pytest.mark.rule("CX-61", "CX-76")
@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "badge-123456",
                "door ABCD-efgh",
                "[REDACTED:AWS]",
                "[REDACTED:",
                "]",
                "\n",
                " ",
                "password=x1y2z3",
                "door ",
            ]
        )
    ).map("".join)
)
def test_redacting_again_changes_nothing(text: str) -> None:
    once = redact(text).text
    assert redact(once).text == once


@pytest.mark.rule("CX-76")
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"samples": []}, "at least 1"),
        ({"samples": ["badge-12345"]}, "not found in its samples 1"),
        ({"harmless": ["no", "badge-123456"]}, "found in its harmless texts 2"),
        ({"name": "JWT_"}, "match pattern"),
        ({"name": "GITHUB"}, "class of the catalogue"),
        ({"name": "badge"}, "match pattern"),
        ({"expression": "badge-[0-9]+"}, "without a bound"),
        ({"expression": "badge-[0-9]{6,}"}, "badge"),
        ({"expression": "(a|aa){1,50}c", "samples": ["aac"]}, "one form and one length"),
        ({"expression": "([a-z]{1,9}){2,9}", "samples": ["abcdefg"]}, "one form and one length"),
        ({"expression": "[a-z]{1,80}[a-z]{1,80}-", "samples": ["abcdefg-"]}, "ways at one place"),
        ({"expression": "(?:(?:[ab]{99}){99}){99}", "samples": ["ab"]}, "characters, 8192 are allowed"),
        ({"expression": "[0-9]{3}", "samples": ["123"]}, "less than 4 characters"),
        ({"expression": r"(badge)-\1"}, "an escape"),
        ({"expression": "(?=x)badge"}, "of groups only"),
        ({"expression": "(badge"}, "not closed"),
        ({"expression": "badge)"}, "not opened"),
        ({"expression": "[badge"}, "a set that is not closed"),
        ({"expression": "badge{6}{7}"}, "repetition of a repetition"),
        ({"expression": "?badge"}, "repeats nothing"),
        ({"expression": "badge{9,3}"}, "least <= most"),
        ({"expression": "(" * 12 + "badge" + ")" * 12}, "nested"),
        ({"expression": "[z-a]badge"}, "bad character range"),
    ],
)
def test_pattern_that_is_not_bounded_or_fails_its_samples_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        made(**changes)


@pytest.mark.rule("CX-76")
def test_pattern_that_is_found_in_a_placeholder_or_named_twice_is_refused() -> None:
    wide = made(name="WIDE", expression="[A-Z]{4,9}", samples=["ABCDE"])
    with pytest.raises(ValidationError, match="WIDE is found in"):
        OperatorRedaction(patterns=(wide,))
    with pytest.raises(ValidationError, match="same name"):
        OperatorRedaction(patterns=(STAFF, STAFF))
    assert OperatorRedaction(patterns=(STAFF, TICKET)).patterns


@pytest.mark.rule("CX-76")
def test_pattern_that_is_slow_on_texts_that_almost_match_is_refused() -> None:
    slow = made(expression="[a-z]{1,60}[a-z]{1,60}-!", samples=["abcdefgh-!"])

    def seconds(work: Callable[[], object]) -> float:
        started = time.thread_time()
        work()
        return time.thread_time() - started

    with pytest.raises(ConfigError, match="STAFF_BADGE takes"):
        check_speed([STAFF, slow], seconds=seconds, max_s=0.03)
    check_speed([STAFF, TICKET], seconds=seconds, max_s=0.03)


@pytest.mark.parametrize(
    ("expression", "extent"),
    [
        ("abc", (1, 3, 3)),
        (r"corp-[a-z0-9]{20,40}-[A-Z]{2,4}", (63, 28, 50)),
        ("a|bc|def", (3, 1, 3)),
        ("(?:ab)?cde", (2, 3, 5)),
        (r"^\bab\.\x41$", (1, 4, 4)),
        ("(?:(?:a|b){2}){4}", (256, 8, 8)),
        ("[]a]{4}", (1, 4, 4)),
    ],
)
def test_extent_counts_ways_and_lengths(expression: str, extent: tuple[int, int, int]) -> None:
    found = extent_of(expression)
    assert (found.ways, found.least, found.most) == extent
