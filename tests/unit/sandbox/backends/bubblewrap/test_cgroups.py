from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Literal

import pytest

from fleet.policy.runs.spec import Limits
from fleet.sandbox.backends.bubblewrap.cgroups import (
    Cgroup,
    Cgroups,
    Controller,
    Parent,
    delegate,
    find_parents,
    own_parents,
)

V1 = """\
9:name=systemd:/
8:pids:/box
4:memory:/box/inner
2:cpu,cpuacct:/
0::/
"""
V1_MOUNTS = """\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /box /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw shared:3 - cgroup cgroup rw,pids
40 31 0:37 / /proc rw - proc proc rw
"""


def test_own_cgroups_of_version_1_are_found_below_their_mounts() -> None:
    root = Path("/sys/fs/cgroup")

    assert own_parents(V1, V1_MOUNTS) == {
        "cpu": Parent(root / "cpu,cpuacct", 1),
        "memory": Parent(root / "memory/inner", 1),
        "pids": Parent(root / "pids/box", 1),
    }


def test_own_cgroup_outside_of_what_is_mounted_is_none() -> None:
    assert own_parents("4:memory:/../other\n", V1_MOUNTS) == {}


@pytest.mark.parametrize("leaf", ["", "/fleet-supervisor"])
def test_own_cgroup_of_version_2_is_the_one_around_our_leaf(tmp_path: Path, leaf: str) -> None:
    own = tmp_path / "fleet.scope"
    (own / "fleet-supervisor").mkdir(parents=True)
    (own / "cgroup.controllers").write_text("cpu memory io\n")
    mounts = f"41 31 0:38 / {tmp_path} rw - cgroup2 cgroup2 rw\n"

    assert own_parents(f"0::/fleet.scope{leaf}\n", mounts) == {"memory": Parent(own, 2), "cpu": Parent(own, 2)}


@pytest.mark.parametrize(("before", "after"), [("cpu\n", "+memory"), ("cpu memory\n", "cpu memory\n")])
def test_controller_of_version_2_is_handed_down_once(tmp_path: Path, before: str, after: str) -> None:
    control = tmp_path / "cgroup.subtree_control"
    control.write_text(before)
    delegate(tmp_path, "memory")

    assert control.read_text() == after


def test_controller_of_a_cgroup_that_is_not_ours_is_not_handed_down(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        delegate(tmp_path / "missing", "memory")


SETTINGS: dict[Literal[1, 2], dict[str, str]] = {
    1: {
        "memory.limit_in_bytes": "67108864",
        "memory.memsw.limit_in_bytes": "67108864",
        "pids.max": "33",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "50000",
    },
    2: {
        "memory.max": "67108864",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "33",
        "cpu.max": "50000 100000",
    },
}


@pytest.mark.rule("RC-30")
@pytest.mark.parametrize("version", [1, 2])
def test_limits_are_written_and_counters_read_as_the_kernel_has_them(tmp_path: Path, version: Literal[1, 2]) -> None:
    controllers: tuple[Controller, ...] = ("memory", "pids", "cpu")
    cgroup = Cgroup({c: Parent(tmp_path, version) for c in controllers})
    for name in ("memory.memsw.limit_in_bytes", "memory.swap.max"):
        (tmp_path / name).touch()
    for name in ("memory.oom_control", "memory.events", "pids.events"):
        (tmp_path / name).write_text("oom 3\noom_kill 2\nmax 5\n")
    for name in ("memory.max_usage_in_bytes", "memory.peak"):
        (tmp_path / name).write_text("4096\n")
    cgroup.limit(Limits(memory_bytes=64 << 20, pids=33, cpu_millis=500))
    cgroup.attach(4711)

    written = {name: (tmp_path / name).read_text() for name in SETTINGS[version]}
    assert written == SETTINGS[version]
    assert (tmp_path / "cgroup.procs").read_text() == "4711"
    assert (cgroup.oom_kills(), cgroup.refused_forks(), cgroup.peak_memory()) == (2, 5, 4096)


def test_cgroup_without_counters_counts_nothing(tmp_path: Path) -> None:
    cgroup = Cgroup({"memory": Parent(tmp_path, 2)})

    assert (cgroup.oom_kills(), cgroup.refused_forks(), cgroup.peak_memory()) == (0, 0, 0)
    assert Cgroup({}).peak_memory() == 0


def test_cgroups_that_cannot_be_made_are_none(tmp_path: Path) -> None:
    nowhere = Cgroups("fleet-0", "1-1-1", {"pids": Parent(tmp_path / "missing", 1)})

    assert nowhere.make("a", Limits()) is None
    assert Cgroups("fleet-0", "1-1-1", {}).make("a", Limits()) is None
    assert nowhere.without(frozenset({"pids"})).controllers == frozenset()


needs_cgroups = pytest.mark.skipif(not find_parents(), reason="no cgroup can be made here")


@needs_cgroups
def test_stale_cgroup_of_a_dead_supervisor_is_swept_with_its_processes() -> None:
    dead = Cgroups("fleet-test", "999999999-1-00000000", find_parents())
    cgroup = dead.make("aa", Limits())
    assert cgroup is not None
    process = subprocess.Popen(["sleep", "60"])
    cgroup.attach(process.pid)
    live = Cgroups("fleet-test", "1-1-1", find_parents())

    assert live.sweep(lambda _: True) == 0
    # The zombie is gone from its cgroup only once it is reaped.
    assert live.sweep(lambda owner: owner != "999999999-1-00000000") >= 1
    assert process.wait() == -9
    assert live.sweep(lambda _: False) == 0
