"""Limits by cgroups, version 1 or 2, where this process may make them; always below its own.

Source: docs/design/sandbox.md, section 6.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from fleet.policy.runs.spec import Limits

Controller = Literal["memory", "pids", "cpu"]
CONTROLLERS: tuple[Controller, ...] = ("memory", "pids", "cpu")
_LEAF = "fleet-supervisor"
_PERIOD_US = 100_000
_REMOVE_S = 5.0
_PAUSE_S = 0.002
_CONTROL_FILE: dict[Controller, dict[int, str]] = {
    "memory": {1: "memory.limit_in_bytes", 2: "memory.max"},
    "pids": {1: "pids.max", 2: "pids.max"},
    "cpu": {1: "cpu.cfs_quota_us", 2: "cpu.max"},
}


@dataclass(frozen=True, slots=True)
class Parent:
    """Our own cgroup of one controller."""

    folder: Path
    version: Literal[1, 2]


def own_parents(memberships: str, mounts: str) -> dict[Controller, Parent]:
    """Our own cgroup for each controller, as far as one is mounted.

    Args:
        memberships: text of /proc/self/cgroup.
        mounts: text of /proc/self/mountinfo.
    """
    own = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in memberships.splitlines()}
    parents: dict[Controller, Parent] = {}
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        root, point = left.split()[3:5]
        kind, _, options = right.split()[:3]
        if kind == "cgroup2" and "" in own:
            folder = _below(point, root, own[""])
            if folder is not None and folder.name == _LEAF:
                folder = folder.parent
            for name in _v2_controllers(folder) if folder else ():
                parents.setdefault(name, Parent(folder, 2))  # pyright: ignore[reportArgumentType]
        elif kind == "cgroup":
            path = next(
                (p for names, p in own.items() if names and set(names.split(",")) <= set(options.split(","))), None
            )
            folder = _below(point, root, path) if path is not None else None
            for name in CONTROLLERS:
                if folder is not None and name in options.split(","):
                    parents[name] = Parent(folder, 1)
    return parents


def _below(point: str, root: str, path: str) -> Path | None:
    """Where our cgroup `path` is seen, when its hierarchy is mounted from `root`; None for one outside."""
    if ".." in path.split("/"):
        return None
    if root != "/" and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    return Path(point, path.lstrip("/"))


def _v2_controllers(folder: Path) -> tuple[Controller, ...]:
    try:
        names = (folder / "cgroup.controllers").read_text(encoding="ascii").split()
    except OSError:
        return ()
    return tuple(name for name in CONTROLLERS if name in names)


def find_parents() -> dict[Controller, Parent]:
    """Where this process can make cgroups that limit, found by making one; empty where it cannot."""
    try:
        memberships, mounts = (Path(f"/proc/self/{n}").read_text(encoding="utf-8") for n in ("cgroup", "mountinfo"))
    except OSError:
        return {}
    return {c: p for c, p in own_parents(memberships, mounts).items() if _is_usable(c, p)}


def _is_usable(controller: Controller, parent: Parent) -> bool:
    probe = parent.folder / f"fleet-probe-{os.getpid()}"
    try:
        if parent.version == 2:
            delegate(parent.folder, controller)
        probe.mkdir()
    except OSError:
        return False
    try:
        return os.access(probe / _CONTROL_FILE[controller][parent.version], os.W_OK)
    finally:
        with contextlib.suppress(OSError):
            probe.rmdir()


def delegate(folder: Path, controller: Controller) -> None:
    """Cgroups below `folder` have the controller. A cgroup with children that limit may hold no process itself."""
    control = folder / "cgroup.subtree_control"
    if controller in control.read_text(encoding="ascii").split():
        return
    try:
        control.write_text(f"+{controller}", encoding="ascii")
    except OSError as error:
        members = (folder / "cgroup.procs").read_text(encoding="ascii").split()
        if error.errno != errno.EBUSY or members != [str(os.getpid())]:
            raise
        leaf = folder / _LEAF
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        control.write_text(f"+{controller}", encoding="ascii")


class Cgroups:
    """The cgroups of one supervisor; their names begin with `mark`, so that a later supervisor can sweep them.

    Args:
        mark: names the state root.
        owner: name of this process, as `process_name` gives it.
        parents: where they are made; `find_parents` finds them.
    """

    def __init__(self, mark: str, owner: str, parents: Mapping[Controller, Parent]) -> None:
        self._mark, self._owner, self._parents = mark, owner, dict(parents)

    @property
    def controllers(self) -> frozenset[Controller]:
        """What is limited by cgroups here."""
        return frozenset(self._parents)

    def without(self, controllers: frozenset[Controller]) -> Cgroups:
        """The same, but these controllers are not used: a probe found that they do not hold."""
        kept: dict[Controller, Parent] = {c: p for c, p in self._parents.items() if c not in controllers}
        return Cgroups(self._mark, self._owner, kept)

    def make(self, name: str, limits: Limits) -> Cgroup | None:
        """A new cgroup with the limits in force; None where there are none, or this one cannot be made."""
        if not self._parents:
            return None
        name = f"{self._mark}-{self._owner}-{name}"
        made = Cgroup({c: replace(p, folder=p.folder / name) for c, p in self._parents.items()})
        try:
            made.create(limits)
        except OSError:
            made.remove()
            return None
        return made

    def sweep(self, is_alive: Callable[[str], bool]) -> int:
        """End and remove what dead supervisors left; the number of cgroups removed."""
        removed = 0
        for folder in {p.folder for p in self._parents.values()}:
            for stale in folder.glob(f"{self._mark}-*"):
                owner = stale.name.removeprefix(f"{self._mark}-").rpartition("-")[0]
                if not is_alive(owner):
                    _kill_all(stale)
                    removed += _remove(stale)
        return removed


class Cgroup:
    """One cgroup per controller, or one for all of them (version 2), around one run."""

    def __init__(self, folders: Mapping[Controller, Parent]) -> None:
        self._folders = dict(folders)

    @property
    def controllers(self) -> frozenset[Controller]:
        """What this cgroup limits."""
        return frozenset(self._folders)

    def create(self, limits: Limits) -> None:
        """The cgroup exists and its limits are set; OSError when one of them cannot be."""
        for folder in self._unique():
            folder.mkdir()
        self.limit(limits)

    def limit(self, limits: Limits) -> None:
        """The limits hold for everything in the cgroup; OSError when one of them cannot be set."""
        for controller, place in self._folders.items():
            for name, value in _settings(controller, place, limits):
                (place.folder / name).write_text(value, encoding="ascii")

    def attach(self, pid: int) -> None:
        """The process and everything it starts from now on is limited."""
        for folder in self._unique():
            (folder / "cgroup.procs").write_text(str(pid), encoding="ascii")

    def oom_kills(self) -> int:
        """How many processes the kernel killed here because the memory limit was reached."""
        return self._count("memory", {1: "memory.oom_control", 2: "memory.events"}, "oom_kill")

    def refused_forks(self) -> int:
        """How many processes or threads could not be started because of the limit."""
        return self._count("pids", {1: "pids.events", 2: "pids.events"}, "max")

    def peak_memory(self) -> int:
        """Most bytes that were charged at one time, page cache included; 0 when unknown."""
        place = self._folders.get("memory")
        if place is None:
            return 0
        name = "memory.max_usage_in_bytes" if place.version == 1 else "memory.peak"
        with contextlib.suppress(OSError, ValueError):
            return int((place.folder / name).read_text(encoding="ascii"))
        return 0

    def remove(self) -> None:
        """The cgroup is gone, and so is every process that still was in it."""
        for folder in self._unique():
            _remove(folder)

    def _unique(self) -> list[Path]:
        return list(dict.fromkeys(p.folder for p in self._folders.values()))

    def _count(self, controller: Controller, files: Mapping[int, str], key: str) -> int:
        place = self._folders.get(controller)
        if place is None:
            return 0
        with contextlib.suppress(OSError):
            for line in (place.folder / files[place.version]).read_text(encoding="ascii").splitlines():
                name, _, value = line.partition(" ")
                if name == key:
                    return int(value)
        return 0


def _settings(controller: Controller, place: Parent, limits: Limits) -> Iterator[tuple[str, str]]:
    """Control files and values, in the order in which the kernel takes them."""
    if controller == "pids":
        yield "pids.max", str(limits.pids)
    elif controller == "cpu":
        quota = limits.cpu_millis * _PERIOD_US // 1_000
        if place.version == 2:
            yield "cpu.max", f"{quota} {_PERIOD_US}"
        else:
            yield "cpu.cfs_period_us", str(_PERIOD_US)
            yield "cpu.cfs_quota_us", str(quota)
    elif place.version == 2:
        yield "memory.max", str(limits.memory_bytes)
        # A kernel without swap has no such file, and needs none.
        if (place.folder / "memory.swap.max").exists():
            yield "memory.swap.max", "0"
        yield "memory.oom.group", "1"
    else:
        yield "memory.limit_in_bytes", str(limits.memory_bytes)
        if (place.folder / "memory.memsw.limit_in_bytes").exists():
            yield "memory.memsw.limit_in_bytes", str(limits.memory_bytes)
        else:
            yield "memory.swappiness", "0"


def _kill_all(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for pid in (folder / "cgroup.procs").read_text(encoding="ascii").split():
            # A process of another namespace is shown as 0, and `kill(0)` would be ourselves.
            if int(pid) > 0:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)


def _remove(folder: Path) -> bool:
    """The cgroup is gone; False when there was none. A process that was just killed holds it for a moment."""
    deadline = time.monotonic() + _REMOVE_S
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return False
        except OSError:
            if time.monotonic() > deadline:
                return False
            _kill_all(folder)
            time.sleep(_PAUSE_S)
            continue
        return True
