"""Stamps of files: what tells, without reading it, that a file is as it was when it was written."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import NamedTuple

_REALTIME_COARSE = 5
"""Of Linux; the module `time` has no name for it."""


class Stamp(NamedTuple):
    """What every change of a file changes: the kernel sets `ctime_ns`, and nothing in a sandbox can set it back."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


Stamps = Mapping[str, Stamp]
"""Files as they were written, by path: one with the same stamp still has the same content and mode."""
NO_STAMPS: Stamps = {}


def stamp_of(status: os.stat_result) -> Stamp:
    """The stamp of the file with this status."""
    return Stamp(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def is_as_stamped(status: os.stat_result, stamp: Stamp) -> bool:
    """Whether the file with this status has this stamp."""
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns) == stamp


def settled(stamps: Stamps) -> Stamps:
    """Those whose next change must show: the kernel's clock moves in steps, and it has not moved on since the last."""
    last = max((stamp.ctime_ns for stamp in stamps.values()), default=0)
    return {path: stamp for path, stamp in stamps.items() if stamp.ctime_ns < last}


def now_ns() -> int:
    """The clock from which the kernel takes the times of files: later changes have no earlier time."""
    return time.clock_gettime_ns(_REALTIME_COARSE)
