"""A stream is redacted as its whole text would be, wherever it is cut (CX-75)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.redaction.redact import MAX_LINE_CHARS, redact
from fleet.redaction.redact_stream import RedactingStream
from tests.support.secrets import NAMED, SAMPLES, planted

PLANTED = [(name, text) for name, _, text in planted()]


def streamed(*pieces: str) -> str:
    stream = RedactingStream()
    return "".join([*(stream.feed(piece) for piece in pieces), stream.flush()])


@pytest.mark.rule("CX-75")
@pytest.mark.parametrize("text", [text for _, text in PLANTED], ids=[name for name, _ in PLANTED])
def test_secret_split_in_two_at_any_place_goes_out(text: str) -> None:
    whole = redact(text).text
    step = max(1, len(text) // 60)
    assert {streamed(text[:cut], text[cut:]) for cut in range(0, len(text) + 1, step)} == {whole}


@pytest.mark.parametrize("name", ["github", "rsa", "jwt"])
def test_secret_split_at_every_place_goes_out(name: str) -> None:
    text = f"a\nkey: {SAMPLES[name].text} b\nc"
    assert {streamed(text[:cut], text[cut:]) for cut in range(len(text) + 1)} == {redact(text).text}


TEXTS = st.lists(
    st.sampled_from(
        [text for _, text in PLANTED] + ["\n", " ", "x", "\n\n", '"', "-----BEGIN " + "RSA PRIVATE KEY-----", "é"]
    ),
    max_size=6,
).map("".join)


@pytest.mark.rule("CX-75")
@given(TEXTS, st.lists(st.integers(0, 3000), max_size=8))
@settings(max_examples=150)
def test_stream_equals_the_redaction_of_its_whole(text: str, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert streamed(*(text[a:b] for a, b in zip(places, places[1:], strict=False))) == redact(text).text


def test_lines_come_out_as_soon_as_they_are_certain() -> None:
    stream = RedactingStream()
    assert stream.feed("one\ntw") == "one\n"
    assert stream.feed("o\n") == "two\n"
    assert stream.flush() == ""


def test_block_is_held_until_its_end_and_no_longer() -> None:
    key, stream = SAMPLES["rsa"].text, RedactingStream()
    first, rest = key[:200], key[200:]
    assert stream.feed(f"a\n{first}") == "a\n"
    assert stream.feed(f"{rest}\nb\n") == "[REDACTED:PRIVATE_KEY]\nb\n"


@pytest.mark.rule("CX-75")
@pytest.mark.parametrize("size", [1000, 70_000, MAX_LINE_CHARS + 5])
def test_line_longer_than_any_line_is_looked_at_in_parts_that_do_not_depend_on_the_pieces(size: int) -> None:
    filler = "lorem ipsum, dolor " * 30_000
    text = f"{filler}{NAMED['dsn'].text} {filler}{SAMPLES['github'].text} {filler}\nend {SAMPLES['jwt'].text}\n"
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    whole = redact(text)
    assert whole.counts == {"KEY_VALUE": 1, "GITHUB": 1, "JWT": 1}
    assert streamed(*pieces) == whole.text


def test_first_line_of_a_key_that_nothing_ends_is_held_for_a_bounded_time() -> None:
    stream = RedactingStream()
    line = "A1b2" * 16 + "\n"
    fed = ["-----BEGIN " + "RSA PRIVATE KEY-----\n", *([line] * 1200)]
    out = [stream.feed(piece) for piece in fed]
    assert any(out)
    assert "".join(out).startswith("[REDACTED:PRIVATE_KEY]")
