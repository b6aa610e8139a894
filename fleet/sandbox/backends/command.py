"""The command inside a sandbox, seen from outside."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from pathlib import Path


def terminate_command(first: int) -> bool:
    """SIGTERM to the command of the sandbox whose PID 1 is `first`. False when it does not run (yet, or any more).

    PID 1 is bubblewrap itself, which ignores it. The command is the second process of its namespace.
    """
    for pid in _children_of(first):
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)
            try:
                # Asked after the descriptor is open, so the number cannot belong to another process by now.
                if _pid_inside(pid) == 2:
                    signal.pidfd_send_signal(descriptor, signal.SIGTERM)
                    return True
            finally:
                os.close(descriptor)
    return False


def _children_of(pid: int) -> list[int]:
    try:
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _pid_inside(pid: int) -> int:
    """The number of a process in its own namespace; 0 when it has ended."""
    match = re.search(r"^NSpid:.*\s(\d+)$", Path(f"/proc/{pid}/status").read_text(encoding="latin-1"), re.MULTILINE)
    return int(match.group(1)) if match else 0
