"""What the judge of a run does about other processes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import time

_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36
_ROUNDS = 400
_COMPILED = "/toolchain/pycache"


def _prefix() -> str:
    """Where compiled modules are looked for: those of the toolchain where nobody here can write them, else nowhere."""
    is_ours = os.path.isdir(_COMPILED) and not os.access(_COMPILED, os.W_OK)  # noqa: PTH112
    return _COMPILED if is_ours else "/dev/null/none"


CACHE_PREFIX = _prefix()
NO_CACHE = ("-B", "-X", f"pycache_prefix={CACHE_PREFIX}")
"""Options of a Python that reads no compiled file from the workspace: its author may have made it."""


def adopt() -> None:
    """Orphans below this process become its children, so that `end_children` sees them."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def conceal() -> None:
    """No other process of this user may read or change memory and descriptors of this one."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def end_children() -> None:
    """No process below this one is left."""
    for _ in range(_ROUNDS):
        waiting, below = children_of(os.getpid()), list[int]()
        while waiting:
            pid = waiting.pop()
            below.append(pid)
            waiting.extend(children_of(pid))
        for pid in below:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            if not below:
                return
            time.sleep(0.005)
            continue
        return


def children_of(pid: int) -> list[int]:
    """The children of a process, of all its threads."""
    children: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/task/{thread}/children") as file:  # noqa: PTH123
                children += [int(child) for child in file.read().split()]
    return children


def read_all(stream: int, until: float, *, most: int = 1 << 40) -> bytes | None:
    """What is written until the other end is closed, or so much of it; None when that takes too long.

    Args:
        until: on the monotonic clock.
    """
    data = b""
    while len(data) < most:
        ready, _, _ = select.select([stream], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return None
        part = os.read(stream, 1 << 16)
        if not part:
            return data
        data += part
    return data
