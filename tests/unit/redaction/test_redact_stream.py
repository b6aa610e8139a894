"""A stream is redacted as its whole text would be, wherever it is cut (CX-75)."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fleet.redaction.blocks import blocks
from fleet.redaction.redact import MAX_LINE_CHARS, RedactingStream, redact
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


_KEY = "-----BEGIN " + "RSA PRIVATE KEY-----"
PIECES = [
    *(
        "\n",
        "\n\n",
        "\r\n",
        " ",
        "  ",
        "\t",
        "x",
        "é",
        "İ",
        '"',
        "'",
        "{",
        ",",
        "=",
        "- ",
        "+",
        "\\n",
        "\\r",
        "\\\\n",
        '\\"',
    ),
    *(_KEY, "Private-Lines: 3\n", "A1b2" * 16 + "\n", "password: |\n", "  secret: >-\n    a b c\n", "key: >\n"),
    *("access.key: |\n  s3cr3t9x\n", "DB_PASSWORD=", "POSTGRES_PASSWORD=changeme", "pwd: ", "to\u212aen=abc123XYZ9\n"),
    *("--password ", "token=", "sha512-", "lorem ipsum dolor\n" * 60),
]
"""Of what decides where a secret ends: breaks, real and as escapes, quotes, names, beginnings of blocks."""
TEXTS = st.lists(st.sampled_from(PIECES) | st.sampled_from([text for _, text in PLANTED]), max_size=8).map("".join)
CUTS = st.lists(st.integers(0, 3000), max_size=8)


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[a:b] for a, b in zip(places, places[1:], strict=False)]


@pytest.mark.rule("CX-75")
@given(TEXTS, CUTS)
@settings(max_examples=200)
@example('POSTGRES_PASSWORD=changeme{"note": "see ' + _KEY + "\\n" + "A1b2" * 16 + '"}', [])
@example('a\nDB_PASSWORD=correct horse 9{"note": "see ' + _KEY + "\\n" + "A1b2" * 16 + '"}\nb', [3])
@example("x\nto\u212aen=abc123XYZ9\nİ", [2])
@example("access.key: |\n  s3cr3t9x\n" + "lorem ipsum dolor\n" * 60, [40])
@example('"password: |\\n  x\ny"', [])
@example("access.key: |\n  s3cr3t9x\n+{}" + _KEY + "\n" + "A1b2" * 16 + "\n", [0])
@example("password: |\n  <yours>\n  token: |\n    s3cr3t9x\n  +" + _KEY + "\n", [12, 20])
def test_stream_equals_the_redaction_of_its_whole(text: str, cuts: list[int]) -> None:
    assert streamed(*pieces_of(text, cuts)) == redact(text).text


@pytest.mark.wide
@pytest.mark.timeout(900)
@pytest.mark.rule("CX-75")
@given(TEXTS, CUTS, st.integers(1, 40))
@settings(max_examples=15_000, suppress_health_check=list(HealthCheck))
def test_stream_equals_the_redaction_of_its_whole_however_it_is_cut(text: str, cuts: list[int], size: int) -> None:
    """The longer sibling of the test above: any cuts, and pieces of one size from a single character on."""
    whole = redact(text).text
    assert streamed(*pieces_of(text, cuts)) == whole
    assert streamed(*(text[at : at + size] for at in range(0, len(text), size))) == whole


@given(TEXTS, TEXTS)
@settings(max_examples=200)
def test_line_is_looked_at_by_itself(before: str, after: str) -> None:
    """What stands on other lines changes nothing, unless a block goes on from one to the other."""
    first = f"{before}\n"
    if any(block.is_open or block.end >= len(first) for block, _ in blocks(first)):
        return
    assert redact(first + after).text == redact(first).text + redact(after).text


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
