"""A known value is taken out of text in every form in which a program may print it."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fleet.redaction.known_values import KNOWN_SECRET, MIN_SECRET_CHARS, forms_of, redact_known

VALUE = 'p"ss w\u00f6rd/+1234'
values = st.text(st.characters(min_codepoint=33, max_codepoint=0x17F), min_size=8, max_size=24).filter(
    lambda text: not any(c in text for c in "[]:_") and text not in KNOWN_SECRET
)


@pytest.mark.rule("CX-60")
@pytest.mark.parametrize(
    "printed",
    [
        VALUE,
        json.dumps({"password": VALUE}),
        json.dumps({"password": VALUE}, ensure_ascii=False),
        f"https://u:{quote(VALUE, safe='')}@host/",
        VALUE.encode().hex(),
        VALUE.encode().hex().upper(),
        base64.b64encode(VALUE.encode()).decode(),
        base64.urlsafe_b64encode(VALUE.encode()).decode(),
    ],
)
def test_value_is_taken_out_in_this_form(printed: str) -> None:
    redacted = redact_known(f"before {printed} after", forms_of(VALUE))

    assert redacted.places == 1
    assert KNOWN_SECRET in redacted.text
    assert redacted.text.startswith("before ")
    assert redacted.text.endswith(" after")


@pytest.mark.parametrize("user", ["", "a", "ab", "abc"])
def test_value_is_taken_out_of_a_basic_authorization_header(user: str) -> None:
    header = base64.b64encode(f"{user}:{VALUE}".encode()).decode()

    redacted = redact_known(header, forms_of(VALUE))

    assert redacted.places == 1
    assert len(redacted.text.replace(KNOWN_SECRET, "")) <= len(user) * 4 // 3 + 6


def test_lines_of_a_key_are_taken_out_one_by_one() -> None:
    key = "-----BEGIN-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END-----\n"

    assert "kqhkiG9w" not in redact_known("  kqhkiG9w0BAQEF\n", forms_of(key)).text


def test_short_forms_are_left_out() -> None:
    assert forms_of("abc") == {"616263"}
    assert all(len(form) >= MIN_SECRET_CHARS for form in forms_of("abcdef\nx\n"))


def test_nothing_known_changes_nothing() -> None:
    assert redact_known("text", ()) == ("text", 0)


def test_longer_value_goes_first() -> None:
    assert redact_known("abcdefgh", {"abcdef", "abcdefgh"}) == (KNOWN_SECRET, 1)


def test_marks_stay_as_they_are() -> None:
    assert redact_known(f"{KNOWN_SECRET} REDACTED", {"REDACTED"}) == (f"{KNOWN_SECRET} {KNOWN_SECRET}", 1)


@pytest.mark.rule("CX-60")
@pytest.mark.parametrize("printed", ["[REDACTED:MY_SECRET_VALUE]", "[REDACTED:KNOWN_SECRET:MY_SECRET_VALUE]"])
def test_value_that_a_program_prints_as_a_mark_is_taken_out(printed: str) -> None:
    redacted = redact_known(printed, forms_of("MY_SECRET_VALUE"))

    assert redacted.places == 1
    assert "MY_SECRET_VALUE" not in redacted.text
    assert redact_known(redacted.text, forms_of("MY_SECRET_VALUE")).places == 0


@given(value=values, before=st.text(max_size=20), after=st.text(max_size=20))
@settings(max_examples=150)
def test_no_text_keeps_a_value_and_doing_it_again_changes_nothing(value: str, before: str, after: str) -> None:
    assume(value not in before + KNOWN_SECRET + after)
    forms = forms_of(value)

    once = redact_known(before + value + after, forms).text

    assert value not in once
    assert redact_known(once, forms).text == once
