from __future__ import annotations

import typing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fleet.policy.runs.spec import FINAL_STATUSES, RunReason
from fleet.sandbox.backends.output import RunOutput
from fleet.sandbox.backends.run_end import (
    STATUS_OF,
    is_config_error,
    is_missing_program,
    natural_reason,
    remove_orphans,
)


def test_status_of_every_reason_is_final() -> None:
    assert set(STATUS_OF) == set(typing.get_args(RunReason))
    assert set(STATUS_OF.values()) == FINAL_STATUSES


@pytest.mark.rule("RC-13", "RC-14")
@pytest.mark.parametrize(
    ("code", "is_full", "reason"),
    [
        (0, False, "ok"),
        (0, True, "ok"),
        (2, False, "exit_nonzero"),
        (128, False, "exit_nonzero"),
        (137, False, "signal"),
        (192, False, "signal"),
        (193, False, "exit_nonzero"),
        (1, True, "pids_limit"),
    ],
)
def test_reason_of_a_natural_end(code: int, is_full: bool, reason: str) -> None:
    assert natural_reason(code, is_full=is_full) == reason


@pytest.mark.rule("RC-15")
@pytest.mark.parametrize(
    ("code", "line", "expected"),
    [
        (2, '{"code": "config", "started": false}', True),
        (1, '{"code": "config", "started": false}', False),
        (2, '{"code": "config", "started": true}', False),
        (2, '{"code": "other", "started": false}', False),
        (2, "[]", False),
        (2, "usage: tool", False),
        (None, "", False),
    ],
)
def test_config_error_is_what_the_shim_says(code: int | None, line: str, expected: bool) -> None:
    assert is_config_error(code, line) is expected


@pytest.mark.parametrize(
    ("code", "stdout", "stderr", "expected"),
    [
        (127, b"", b"prlimit: failed to execute nowhere: No such file or directory\n", True),
        (126, b"", b"prlimit: failed to execute /workspace: Permission denied\n", True),
        (1, b"", b"prlimit: failed to execute nowhere: No such file or directory\n", False),
        (127, b"worked\n", b"prlimit: failed to execute nowhere: No such file or directory\n", False),
        (127, b"", b"bash: nowhere: command not found\n", False),
    ],
)
def test_missing_program_is_what_the_launcher_alone_says(
    code: int, stdout: bytes, stderr: bytes, expected: bool
) -> None:
    output = RunOutput(1 << 20)
    output.feed("stdout", stdout)
    output.feed("stderr", stderr)
    output.finish()

    assert is_missing_program(code, output) is expected


def test_folders_of_dead_supervisors_are_removed_by_several_at_once(tmp_path: Path) -> None:
    for run in range(40):
        for part in range(20):
            (tmp_path / "runs" / f"nobody-{run}" / f"part-{part}" / "deep").mkdir(parents=True)
    with ThreadPoolExecutor(4) as several:
        # Whoever finds a folder half removed by another goes on beside it.
        list(several.map(remove_orphans, [tmp_path] * 4))
    assert list((tmp_path / "runs").iterdir()) == []
