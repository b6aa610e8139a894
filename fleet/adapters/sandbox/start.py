"""What a sandbox is started with."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.adapters.sandbox.cgroups import Cgroup
from fleet.adapters.sandbox.identity import Identity
from fleet.adapters.sandbox.memory_files import memory_file, sealed_file
from fleet.ports import LogSink
from fleet.tools import SECRETS_FOLDER, Limits

__all__ = ["Launch", "secret_options", "stdin_of"]

_SECRETS_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start: options for `--args`, the command, the filter, who it is, and the name shown in `ps`."""

    bwrap: Path
    name: str
    options: Sequence[str]
    argv: Sequence[str]
    seccomp: bytes
    identity: Identity
    limits: Limits
    disk_usage: Callable[[], int]
    """Bytes in the workspace; called in a thread."""
    prefix: Sequence[str] = ()
    """Runs inside, under the rlimits, before the command, and executes it in its own place: argv of a launcher."""
    inherited: Sequence[int] = ()
    """Descriptors of ours that are open inside under the same numbers; the launcher closes them."""
    stdin: bytes = b""
    """What the command reads."""
    stdin_pipe: int | None = None
    """Instead: the end of a pipe that the command reads while it runs; closed by its maker."""
    secret_env: Sequence[tuple[str, str]] = ()
    """Variables that no argument list shows."""
    secret_files: Sequence[tuple[str, bytes]] = ()
    """Path below SECRETS_FOLDER and content: in memory alone, mode 0400."""
    forms: Collection[str] = ()
    """Text that is taken out of everything that is printed."""
    log: LogSink | None = None
    cgroup: Cgroup | None = None
    """Made for this run; attached here, removed by its maker."""


def stdin_of(stack: contextlib.ExitStack, launch: Launch) -> int:
    """The descriptor that the command reads from; its file is closed with the stack, a pipe by its maker."""
    if launch.stdin_pipe is not None:
        return launch.stdin_pipe
    return sealed_file(stack, launch.stdin) if launch.stdin else subprocess.DEVNULL


def secret_options(stack: contextlib.ExitStack, launch: Launch) -> tuple[list[str], list[int]]:
    """Options that put the run's secrets in place, and the descriptors of their contents, closed with the stack."""
    options = [a for name, value in launch.secret_env for a in ("--setenv", name, value)]
    descriptors: list[int] = []
    if launch.secret_files:
        options += ["--size", str(_SECRETS_BYTES), "--perms", "0500", "--tmpfs", SECRETS_FOLDER]
        for path, content in launch.secret_files:
            descriptors.append(memory_file(stack, content))
            options += ["--perms", "0400", "--file", str(descriptors[-1]), path]
        options += ["--remount-ro", SECRETS_FOLDER]
    return options, descriptors
