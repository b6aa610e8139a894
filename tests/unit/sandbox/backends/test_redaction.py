from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.redaction.known_values import KNOWN_SECRET, forms_of, redact_known
from fleet.sandbox.backends.redaction import StreamRedactor, forms_in
from fleet.secrets.port import SecretDelivery, SecretValue

SECRET = "hunter2-hunter2"


def secret(text: str) -> SecretValue:
    return SecretValue(text, name="deploy-token", provider="test", version=None, ttl_s=60)


def redacted(forms: set[str] | frozenset[str], *pieces: bytes) -> bytes:
    redactor = StreamRedactor(forms)
    return b"".join([*(redactor.feed(piece) for piece in pieces), redactor.flush()])


@pytest.mark.rule("RC-35")
@pytest.mark.parametrize("size", [1, 2, 5, 7, 100])
def test_secret_that_is_split_over_reads_never_comes_out(size: int) -> None:
    data = f"a {SECRET} b {SECRET}{SECRET} hunter2-hunt".encode()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]

    assert redacted({SECRET}, *pieces).decode() == f"a {KNOWN_SECRET} b {KNOWN_SECRET}{KNOWN_SECRET} hunter2-hunt"


def test_text_that_cannot_become_a_secret_comes_out_at_once() -> None:
    redactor = StreamRedactor({SECRET})

    assert redactor.feed(b"progress 10%") == b"progress 10%"
    assert redactor.feed(b" hunter2") == b" "
    assert redactor.feed(b" was it") == b"hunter2 was it"


def test_value_that_begins_within_another_is_not_shown_by_the_cut() -> None:
    assert b"abcdef" not in redacted({"abcdef", "efghij"}, b"xabcdef", b"ghij")


def test_output_that_is_no_text_keeps_its_bytes() -> None:
    assert redacted({SECRET}, b"\xff\xc3", b"\x28\0") == b"\xff\xc3\x28\0"


@settings(max_examples=200, deadline=None)
@given(
    st.sets(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=4),
    st.lists(st.text("abcx", max_size=6), max_size=8),
)
def test_output_of_any_cuts_is_that_of_the_whole(forms: set[str], pieces: list[str]) -> None:
    whole = redact_known("".join(pieces), forms).text

    assert redacted(forms, *(piece.encode() for piece in pieces)).decode() == whole


def test_forms_of_a_delivery_are_those_of_every_value() -> None:
    delivery = SecretDelivery(("x",), {}, {"A": secret(SECRET)}, {"/run/secrets/b": secret("other-value")})

    assert forms_in(delivery) == forms_of(SECRET) | forms_of("other-value")
    assert forms_in(None) == frozenset()
