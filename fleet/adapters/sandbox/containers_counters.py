"""What the kernel counted for a container, read from the control groups of its first process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ContainerCounters", "counters_of"]

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class ContainerCounters:
    """Folders of the control groups; None where the engine made none of its own, so that nothing is counted there."""

    memory: Path | None
    pids: Path | None
    is_v1: bool

    @property
    def oom_kills(self) -> int:
        """Processes that the kernel killed because the memory limit was reached."""
        return _field(self.memory, "memory.oom_control" if self.is_v1 else "memory.events", "oom_kill")

    @property
    def refused_forks(self) -> int:
        """How often a process was not made because the process limit was reached."""
        return _field(self.pids, "pids.events", "max")

    @property
    def peak_memory(self) -> int:
        """Most bytes at one time, 0 when it is not known."""
        return _number(self.memory, "memory.max_usage_in_bytes" if self.is_v1 else "memory.peak")


def counters_of(pid: int, *, proc: Path = Path("/proc"), root: Path = _ROOT) -> ContainerCounters:
    """The control groups of a process that are not also ours; missing ones are None."""
    theirs, ours = _groups(proc / str(pid) / "cgroup"), _groups(proc / "self" / "cgroup")
    unified = theirs.get("", "")
    is_v1 = "memory" in theirs
    found: dict[str, Path | None] = {}
    for name in ("memory", "pids"):
        group = theirs.get(name) if is_v1 else unified
        own = ours.get(name) if is_v1 else ours.get("")
        folder = root / (name if is_v1 else "") / (group or "").lstrip("/")
        found[name] = folder if group and group != own and folder.is_dir() else None
    return ContainerCounters(found["memory"], found["pids"], is_v1)


def _groups(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    fields = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    return {name: group for _, names, group in fields for name in names.split(",")}


def _read(folder: Path | None, name: str) -> str:
    try:
        return (folder / name).read_text(encoding="ascii") if folder else ""
    except OSError:
        return ""


def _number(folder: Path | None, name: str) -> int:
    """The first number of the file, 0 when there is none or it says `max`."""
    word = (_read(folder, name).split() or [""])[0]
    return int(word) if word.lstrip("-").isdecimal() else 0


def _field(folder: Path | None, name: str, field: str) -> int:
    for line in _read(folder, name).splitlines():
        key, _, value = line.partition(" ")
        if key == field and value.strip().isdecimal():
            return int(value)
    return 0
