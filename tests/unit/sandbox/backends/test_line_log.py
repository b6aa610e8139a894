from __future__ import annotations

import json

import pytest

from fleet.policy.runs.log_lines import MAX_LINE_CHARS, LogLine
from fleet.sandbox.backends.output import LineLog


def log_of(*fed: tuple[str, bytes], max_bytes: int = 1 << 20) -> tuple[LineLog, list[LogLine]]:
    seen: list[LogLine] = []
    log = LineLog(seen.append, max_bytes=max_bytes, now_ms=lambda: 7)
    for stream, data in fed:
        log.feed("stdout" if stream == "out" else "stderr", data)
    log.finish()
    return log, seen


@pytest.mark.rule("RC-22", "RC-35")
def test_lines_of_both_streams_are_numbered_together_and_kept_as_told() -> None:
    log, seen = log_of(("out", b"one\ntw"), ("err", b'bad "\xff\r\n'), ("out", b"o\n\nlast"))

    assert [(line.n, line.stream, line.level, line.line) for line in seen] == [
        (1, "stdout", "info", "one"),
        (2, "stderr", "error", 'bad "\ufffd'),
        (3, "stdout", "info", "two"),
        (4, "stdout", "info", ""),
        (5, "stdout", "info", "last"),
    ]
    assert [LogLine.model_validate(json.loads(row)) for row in log.ndjson.splitlines()] == seen


@pytest.mark.parametrize("is_open", [True, False])
def test_long_line_is_cut_into_several_and_no_character_in_two(is_open: bool) -> None:
    text = "x" + "\u00fc" * MAX_LINE_CHARS
    _, seen = log_of(("out", text.encode() + (b"" if is_open else b"\n")))

    assert "".join(line.line for line in seen) == text
    assert max(len(line.line) for line in seen) <= MAX_LINE_CHARS
    assert len(seen) > 1


@pytest.mark.rule("RC-33")
def test_log_over_its_cap_is_full_and_tells_no_more() -> None:
    log, seen = log_of(("out", b"line\n" * 100), max_bytes=500)

    assert log.is_full
    assert len(log.ndjson) <= 500
    assert len(log.ndjson.splitlines()) == len(seen) > 3
