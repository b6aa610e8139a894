"""Signals as a command finds them: none ignored and none blocked, whatever its supervisor has (nohup, daemons)."""

from __future__ import annotations

import contextlib
import functools
import re
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path

__all__ = ["default_signals_argv", "ignored_signals", "nothing_blocked"]

_ENV = "/usr/bin/env"
_RESTORED_BY_POPEN = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
_STATUS = Path("/proc/self/status")


def ignored_signals(status: str) -> frozenset[int]:
    """The signals that a process ignores, by its /proc/<pid>/status; those that subprocess resets are left out."""
    match = re.search(r"^SigIgn:\s*([0-9a-f]+)$", status, re.MULTILINE)
    mask = int(match.group(1), 16) if match else 0
    return frozenset(n for n in range(1, 65) if mask >> (n - 1) & 1) - _RESTORED_BY_POPEN


def default_signals_argv() -> tuple[str, ...]:
    """What has to run before a command so that it ignores nothing; empty, and free, where nothing is ignored.

    An ignored signal stays ignored over exec, and only the process itself can change that.
    """
    if not ignored_signals(_STATUS.read_text(encoding="latin-1")):
        return ()
    return (_ENV, "--default-signal") if _can_reset() else ()


@contextlib.contextmanager
def nothing_blocked() -> Generator[None]:
    """What this thread starts within the block has no signal blocked."""
    before = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@functools.cache
def _can_reset() -> bool:
    """True where `env` knows the option: GNU coreutils since 8.31 (2019)."""
    with contextlib.suppress(OSError):
        return subprocess.run((_ENV, "--default-signal", "true"), capture_output=True, check=False).returncode == 0
    return False
