"""What people and models are shown of an output."""

from __future__ import annotations

import pytest

from fleet.policy.runs.outcome import plain_text


@pytest.mark.check("S26")
@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]8;;http://evil/\x07text\x1b]8;;\x07", "text"),
        ("\x1b]52;c;ZXZpbA==\x07after", "after"),
        ("a\u202egnp.exe\u2066b", "agnp.exeb"),
        ("one\r\ntwo\tthree", "one\ntwo\tthree"),
        ("nul\0bell\x07", "nulbell"),
    ],
)
def test_control_sequences_are_not_shown(printed: str, shown: str) -> None:
    assert plain_text(printed) == shown


@pytest.mark.check("S26")
def test_carriage_return_hides_nothing() -> None:
    shown = plain_text("secret failure\rall is well")

    assert "secret failure" in shown
    assert "\r" not in shown
