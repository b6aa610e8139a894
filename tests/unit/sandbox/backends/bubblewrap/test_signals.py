"""Which signals a process ignores, by what the kernel says of it."""

from __future__ import annotations

import pytest

from fleet.sandbox.backends.bubblewrap.process import default_signals_argv, ignored_signals


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        ("0000000000000000", set[int]()),
        ("0000000001001000", set[int]()),  # SIGPIPE and SIGXFSZ: Python ignores them and subprocess resets them
        ("0000000000000003", {1, 2}),
        ("8000000000000000", {64}),
    ],
)
def test_ignored_signals_are_the_bits_of_the_mask(mask: str, found: set[int]) -> None:
    assert ignored_signals(f"Name:\tpython\nSigBlk:\t00000000000000ff\nSigIgn:\t{mask}\nSigCgt:\t0\n") == found


def test_ignored_signals_of_an_unreadable_status_are_none() -> None:
    assert ignored_signals("Name:\tpython\n") == frozenset()


def test_command_of_a_process_that_ignores_nothing_needs_no_launcher() -> None:
    assert default_signals_argv() in ((), ("/usr/bin/env", "--default-signal"))
