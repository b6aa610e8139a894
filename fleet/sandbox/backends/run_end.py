"""Which way a run ended, from what the operating system says of it (RC-13..RC-19)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from fleet.policy.runs.spec import RunReason, RunStatus
from fleet.sandbox.backends.identity import is_alive
from fleet.sandbox.backends.output import RunOutput
from fleet.sandbox.folders.workspace import remove_shared_tree

_NOT_EXECUTED = re.compile(r"[a-z][a-z_-]{0,31}: failed to execute .{1,300}\n?", re.DOTALL)

STATUS_OF: dict[RunReason, RunStatus] = {
    "ok": "passed",
    "exit_nonzero": "failed",
    "signal": "failed",
    "oom_killed": "failed",
    "pids_limit": "failed",
    "disk_limit": "failed",
    "output_limit": "failed",
    "timeout": "timeout",
    "idle_timeout": "timeout",
    "cancelled": "cancelled",
    "config": "error",
    "image_unavailable": "error",
    "mount_refused": "error",
    "sandbox_lost": "error",
    "service_unavailable": "error",
}
"""The one status of each reason."""


ENDED_BY_COMMAND: frozenset[RunReason] = frozenset(
    {"ok", "exit_nonzero", "signal", "oom_killed", "pids_limit", "output_limit", "timeout", "idle_timeout"}
)
"""The command ran and came to an end or to a limit, so that what it left is its outcome and is recorded (RC-36)."""

UNCHANGED_TREE = "unchanged: the workspace was over its disk limit"
"""What `RunResult.limits` says under `tree` where nothing of what a command left could be recorded."""


def natural_reason(exit_code: int, *, is_full: bool) -> RunReason:
    """The reason of a command that ended by itself; `is_full`: it was seen with as many processes as it may have."""
    if exit_code == 0:
        return "ok"
    if is_full:
        return "pids_limit"
    return "signal" if 128 < exit_code <= 192 else "exit_nonzero"


def is_config_error(exit_code: int | None, last_line: str) -> bool:
    """RC-15: the shim said on its last line that it refused its configuration before it started any work."""
    if exit_code != 2:
        return False
    try:
        line: Mapping[str, object] = json.loads(last_line)
        return line.get("code") == "config" and line.get("started") is False
    except (ValueError, AttributeError):
        return False


def is_missing_program(exit_code: int | None, output: RunOutput) -> bool:
    """Check S1: the launcher inside could not execute the program, and that is all that was printed.

    A program that says the same of itself makes its failure an error, never a success.
    """
    if exit_code not in (126, 127) or output.stdout.total_bytes or output.stderr.total_bytes > 2_000:
        return False
    return _NOT_EXECUTED.fullmatch(output.stderr.tail.decode(errors="replace")) is not None


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
            removed += remove_shared_tree(folder)
    return removed


def remove_unused(folder: Path, *, keep: Collection[str], unused_s: float) -> int:
    """State roots in `folder` that nobody used for so many seconds are gone, but for those to keep; how many."""
    removed = 0
    for root in folder.glob("*"):
        if root.name not in keep and time.time() - _last_use(root) > unused_s:
            removed += remove_shared_tree(root)
    return removed


def _last_use(root: Path) -> float:
    """When something was last made or removed on the upper levels, as each run does; in seconds of the epoch."""
    times = [0.0]
    for path in (root, *root.glob("*"), *root.glob("*/*"), *root.glob("*/*/*")):
        with contextlib.suppress(OSError):
            times.append(path.lstat().st_mtime)
    return max(times)
