"""Which way a run ended, from what the operating system says of it (RC-13..RC-19)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from fleet.adapters.sandbox.output import RunOutput
from fleet.tools import RunReason, RunStatus

__all__ = ["STATUS_OF", "is_config_error", "is_missing_program", "natural_reason"]

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
