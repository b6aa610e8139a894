"""Child processes of an inference library, found by pid and ended by pid."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

_KEPT = b"multiprocessing.resource_tracker"
"""Python's own helper, which removes shared memory that others left."""


def descendants(pid: int) -> dict[int, str]:
    """All processes below this one, by pid with the time of their start, which tells a reused pid."""
    below: dict[int, list[tuple[int, str]]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (seen := _parent_and_start(folder)) is not None:
            below.setdefault(seen[0], []).append((int(folder.name), seen[1]))
    children: dict[int, str] = {}
    todo = [pid]
    while todo:
        for child, started in below.get(todo.pop(), []):
            if child not in children and _KEPT not in _command(child):
                children[child] = started
                todo.append(child)
    return children


def end(processes: dict[int, str], *, within_s: float = 5.0) -> list[int]:
    """These processes are gone; the pids of those that are not, after `within_s`. Blocks."""
    deadline = time.monotonic() + within_s
    while left := [pid for pid, started in processes.items() if _is_alive(pid, started)]:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            return left
        time.sleep(0.02)
    return []


def _is_alive(pid: int, started: str) -> bool:
    seen = _parent_and_start(Path(f"/proc/{pid}"))
    return seen is not None and seen[1] == started


def _parent_and_start(folder: Path) -> tuple[int, str] | None:
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else (int(fields[1]), fields[19])


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
