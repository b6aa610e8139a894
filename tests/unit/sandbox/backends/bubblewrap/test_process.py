from __future__ import annotations

import os
from pathlib import Path

import pytest

from fleet.kernel.errors import InvalidInput, SandboxUnavailable
from fleet.policy.runs.spec import Limits
from fleet.sandbox.backends.bubblewrap.launch import Launch
from fleet.sandbox.backends.bubblewrap.process import run_process
from fleet.sandbox.backends.bubblewrap.seccomp import host_filter
from fleet.sandbox.backends.bubblewrap.stop import Stop
from fleet.sandbox.backends.identity import Identity
from fleet.sandbox.folders.stage import find_bubblewrap


def launch(bwrap: Path, *, options: tuple[str, ...] = (), argv: tuple[str, ...] = ("true",)) -> Launch:
    return Launch(
        bwrap=bwrap,
        name="fleet-test",
        options=options,
        argv=argv,
        seccomp=host_filter(),
        identity=Identity(os.geteuid(), os.getegid(), is_dropped=False),
        limits=Limits(overall_s=10),
        disk_usage=lambda: 0,
    )


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.mark.parametrize(
    ("bwrap", "options", "message"),
    [
        ("/bin/false", (), "without a word"),
        ("/nowhere/bwrap", (), "cannot be started"),
        ("", ("--no-such-option",), "no-such-option"),
        ("", ("--unshare-user", "--ro-bind", "/nowhere", "/x"), "/nowhere"),
    ],
    ids=["ends", "missing", "option", "mount"],
)
async def test_sandbox_that_cannot_be_built_is_unavailable_with_the_complaint(
    bwrap: str, options: tuple[str, ...], message: str
) -> None:
    before = descriptors()
    with pytest.raises(SandboxUnavailable, match=message):
        await run_process(launch(Path(bwrap) if bwrap else find_bubblewrap()[0], options=options), Stop())

    assert len(descriptors()) <= len(before)


async def test_command_line_that_the_kernel_refuses_is_invalid() -> None:
    with pytest.raises(InvalidInput, match="too long"):
        await run_process(launch(Path("/bin/false"), argv=("x" * (1 << 20),)), Stop())


async def test_run_that_was_stopped_before_its_start_is_not_started() -> None:
    stop = Stop()
    stop.request("cancelled")
    stop.request("timeout")
    ended = await run_process(launch(Path("/nowhere/bwrap")), stop)

    assert (ended.reason, ended.exit_code) == ("cancelled", None)
