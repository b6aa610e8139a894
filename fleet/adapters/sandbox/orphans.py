"""What dead supervisors of a state root left: their processes and folders (check S20)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path

from fleet.adapters.sandbox.identity import is_alive
from fleet.adapters.sandbox.workspace import remove_tree

__all__ = ["kill_orphans", "remove_orphans", "remove_unused"]


def kill_orphans(mark: str) -> int:
    """Every sandbox named `<mark>-<process name>` whose supervisor is dead gets SIGKILL; how many did."""
    killed = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and _is_orphan(folder, mark):
            with contextlib.suppress(OSError):
                descriptor = os.pidfd_open(int(folder.name))
                try:
                    if _is_orphan(folder, mark):
                        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                        killed += 1
                finally:
                    os.close(descriptor)
    return killed


def _is_orphan(folder: Path, mark: str) -> bool:
    try:
        name = (folder / "cmdline").read_bytes().partition(b"\0")[0].decode("ascii", "replace")
    except OSError:
        return False
    return name.startswith(f"{mark}-") and not is_alive(name.removeprefix(f"{mark}-"))


def remove_orphans(root: Path) -> int:
    """Run folders and staged files of dead supervisors are gone; how many were there."""
    removed = 0
    for folder in (*root.glob("runs/*"), *root.glob("stage/*")):
        if not is_alive("-".join(folder.name.split("-")[:3])):
            removed += remove_tree(folder)
    return removed


def remove_unused(folder: Path, *, keep: Collection[str], unused_s: float) -> int:
    """State roots in `folder` that nobody used for so many seconds are gone, but for those to keep; how many."""
    removed = 0
    for root in folder.glob("*"):
        if root.name not in keep and time.time() - _last_use(root) > unused_s:
            removed += remove_tree(root)
    return removed


def _last_use(root: Path) -> float:
    """When something was last made or removed on the upper levels, as each run does; in seconds of the epoch."""
    times = [0.0]
    for path in (root, *root.glob("*"), *root.glob("*/*"), *root.glob("*/*/*")):
        with contextlib.suppress(OSError):
            times.append(path.lstat().st_mtime)
    return max(times)
