"""How limits hold: rlimits set inside the user namespace, a watchdog outside, cgroups where they can be made."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from fleet.policy.runs.spec import Limits

PRLIMIT = "/usr/bin/prlimit"
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_OPEN_FILES = 4096
_ROOM = 64
RAM_FOLDERS = {"/tmp": 256 << 20, "/dev/shm": 64 << 20, "/home/agent": 64 << 20, "/run": 1 << 20}
"""Memory-backed folder inside -> its size in bytes."""

MECHANISMS: dict[str, str] = {
    "memory": "watchdog",
    "pids": "rlimit",
    "disk": "watchdog",
    "file_size": "rlimit",
    "open_files": "rlimit",
    "core": "rlimit",
    "cpu": "rlimit+nice",
    "wall_time": "supervisor",
    "idle_time": "supervisor",
    "output": "supervisor",
    "network": "namespace",
    "processes_view": "namespace",
    "filesystem": "namespace",
    "syscalls": "seccomp",
}
"""Limit or isolation -> what enforces it where there is no cgroup."""


def mechanisms(controllers: Collection[str] = ()) -> dict[str, str]:
    """Limit or isolation -> what enforces it, when cgroups have these controllers."""
    return MECHANISMS | dict.fromkeys(controllers, "cgroup")


class Sample(NamedTuple):
    """What all processes of a sandbox use at one moment: bytes, processes and threads, milliseconds."""

    memory_bytes: int
    processes: int
    cpu_ms: int


def rlimit_argv(limits: Limits, *, by_cgroup: Collection[str] = ()) -> tuple[str, ...]:
    """The command prefix that sets the rlimits. Inside, because RLIMIT_NPROC counts per user namespace only there.

    Args:
        by_cgroup: what a cgroup limits; then the rlimit is looser, so that the cgroup's counter tells.
    """
    cores = min(limits.cpu_millis / 1000, os.cpu_count() or 1)
    cpu_s = int(limits.overall_s * cores) + 5
    values = {
        "nproc": limits.pids + (_ROOM if "pids" in by_cgroup else 0),
        "nofile": _OPEN_FILES,
        "core": 0,
        "fsize": limits.file_bytes,
        "memlock": 65_536,
        "msgqueue": 65_536,
        "sigpending": 1_024,
        "cpu": cpu_s,
    }
    return (PRLIMIT, *(f"--{name}={value}:{value}" for name, value in values.items()), "--")


def sample_processes(first: int) -> Sample:
    """Use of the process tree below pid `first`, PID 1 of the sandbox: orphans in there become its children.

    Memory is private resident memory (resident minus shared) plus the sandbox's memory-backed file systems.
    """
    memory, count, cpu = 0, 0, 0
    waiting = [first]
    while waiting:
        pid = waiting.pop()
        try:
            resident, shared = (int(n) for n in _read(f"/proc/{pid}/statm").split()[1:3])
            fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
            threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208
            children = [int(c) for t in threads for c in _read(f"/proc/{pid}/task/{t}/children").split()]
        except (OSError, ValueError):
            continue
        memory += (resident - shared) * _PAGE
        cpu += sum(int(n) for n in fields[11:15])
        count += len(threads)
        waiting.extend(children)
    return Sample(memory + _ram_folders(first), count, cpu * 1000 // _TICKS)


def _ram_folders(first: int) -> int:
    # PID 1 is bubblewrap itself and its root never changes, so no tool can lead these paths elsewhere.
    total = 0
    for folder, size in RAM_FOLDERS.items():
        try:
            status = os.statvfs(f"/proc/{first}/root{folder}")
        except OSError:
            continue
        # Another size: the mounts of the sandbox are not made yet, and this is a folder of the host.
        if status.f_blocks * status.f_frsize == size:
            total += (status.f_blocks - status.f_bfree) * status.f_frsize
    return total


def _read(path: str) -> str:
    return Path(path).read_text(encoding="latin-1")
