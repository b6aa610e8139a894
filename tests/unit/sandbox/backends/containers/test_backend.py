"""The command line of a container, the profile, the counters, and an engine that is a script."""

from __future__ import annotations

import asyncio
import json
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import InvalidInput, SandboxUnavailable
from fleet.policy.runs.spec import Limits, OutputStream, RunResult, RunSpec, Usage
from fleet.sandbox.backends.bubblewrap.seccomp import CHECKED, DENIED, UNANSWERED
from fleet.sandbox.backends.bubblewrap.seccomp_profile import oci_profile
from fleet.sandbox.backends.containers.backend import ContainerBackend, health_of, limits_report, mechanisms_of
from fleet.sandbox.backends.containers.engine import Engine, skeleton
from fleet.sandbox.backends.containers.launch import (
    ContainerFolder,
    EngineFacts,
    command_env,
    container_args,
    enter_request,
)
from fleet.sandbox.backends.containers.process import ContainerCounters, ContainerEnded, counters_of
from fleet.sandbox.backends.identity import Identity
from fleet.sandbox.backends.toolchain import Toolchain
from fleet.trees.memory import MemoryBlobStore

TOOLCHAIN = Toolchain(((Path("/t"), "/toolchain"),), "/toolchain/bin:/usr/bin", (("A", "1"),), digest_of(b""))
PODMAN = EngineFacts("podman", "4.3.1", is_rootless=False)
ROOTLESS = EngineFacts("podman", "4.3.1", is_rootless=True, controllers=frozenset())
DOCKER = EngineFacts("docker", "28", is_rootless=False)


def args_of(facts: EngineFacts, *, workspace: str = "/w", has_secrets: bool = False) -> list[str]:
    place = Path("/s")
    folder = ContainerFolder(
        workspace=Path(workspace), etc=place / "etc", inside=place / "inside", filter=place / "filter",
        seccomp_profile=place / "seccomp.json", pid_file=place / "pid", link=place / "link", stdin=Path("/in"),
    )  # fmt: skip
    return container_args(
        facts, folder, TOOLCHAIN, limits=Limits(cpu_millis=500), who=Identity(61000, 61000, is_dropped=True),
        name="fleet-x", labels={"swefleet.state": "m"}, image="i", has_secrets=has_secrets,
    )  # fmt: skip


def after(args: list[str], option: str) -> list[str]:
    return [args[n + 1] for n, arg in enumerate(args) if arg == option]


@pytest.mark.rule("RC-31")
@pytest.mark.parametrize("facts", [PODMAN, ROOTLESS, DOCKER], ids=["podman", "rootless", "docker"])
def test_command_line_always_isolates(facts: EngineFacts) -> None:
    args = args_of(facts)

    assert after(args, "--network") == ["none"]
    assert after(args, "--cap-drop") == ["all"]
    assert "--read-only" in args
    assert {"no-new-privileges", "seccomp=/s/seccomp.json"} <= set(after(args, "--security-opt"))
    assert after(args, "--pull") == ["never"]
    assert [m for m in after(args, "--mount") if "readonly" not in m] == [
        f"type=bind,source=/w,target=/workspace{'' if facts.name == 'docker' else ',nosuid,nodev'}"
    ]
    program = ["/toolchain/bin/python", "-IS", "/fleet/inside/enter.py", "/fleet/filter", "/fleet/link"]
    start = args.index("i")
    assert args[start + 1 : start + 6] == program


@pytest.mark.rule("RC-30")
def test_command_line_limits_where_the_engine_applies_limits() -> None:
    limited, ignored = args_of(PODMAN), args_of(ROOTLESS)

    assert (after(limited, "--memory"), after(limited, "--memory-swap")) == ([str(1 << 30)], [str(1 << 30)])
    assert (after(limited, "--pids-limit"), after(limited, "--cpus")) == (["257"], ["0.5"])
    assert not {"--memory", "--pids-limit", "--cpus"} & set(ignored)


def test_command_line_runs_as_a_user_of_its_own() -> None:
    assert after(args_of(PODMAN), "--user") == ["61000:61000"]
    assert after(args_of(ROOTLESS), "--userns") == ["keep-id:uid=1000,gid=1000"]
    assert after(args_of(DOCKER), "--runtime") == []


def test_command_line_has_a_place_for_secrets_only_where_there_are_some() -> None:
    assert not any("/run/secrets" in t for t in after(args_of(PODMAN), "--tmpfs"))
    assert any("/run/secrets:rw,noexec" in t for t in after(args_of(PODMAN, has_secrets=True), "--tmpfs"))


@pytest.mark.parametrize("path", ["/a,b", '/a"b', "/a\nb"])
def test_path_that_would_be_read_as_options_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be mounted"):
        args_of(PODMAN, workspace=path)


def test_request_for_inside_holds_what_no_command_line_shows() -> None:
    env = command_env(PODMAN, TOOLCHAIN, {"X": "y"})
    request = enter_request(
        ("a", "b"), env, {"/f": "t"}, cwd="/workspace/.", has_stdin=True, limits=Limits(overall_s=5)
    )

    assert (request["argv"], request["files"], request["stdin"]) == (["a", "b"], {"/f": "t"}, "/fleet/stdin")
    assert (request["env"]["SANDBOX"], request["env"]["A"], request["env"]["X"]) == ("podman", "1", "y")
    assert request["deadline_s"] == 5 + 10 + 15


# The profile.


def refuses(profile: dict[str, object], name: str, *args: int) -> int | None:
    """What libseccomp does with such rules: the error number of a rule of which every comparison holds."""
    rules = profile["syscalls"]
    assert isinstance(rules, list)
    for rule in rules:
        if name in rule["names"] and all(holds(a, args[a["index"]]) for a in rule["args"]):
            return rule["errnoRet"]
    return None


def holds(argument: dict[str, int], value: int) -> bool:
    match argument["op"]:
        case "SCMP_CMP_MASKED_EQ":
            return value & argument["value"] == argument["valueTwo"]
        case "SCMP_CMP_EQ":
            return value == argument["value"]
        case "SCMP_CMP_NE":
            return value != argument["value"]
        case other:
            assert other == "SCMP_CMP_GT"
            return value > argument["value"]


@pytest.mark.rule("RC-31")
@pytest.mark.parametrize(
    ("name", "args", "refused"),
    [
        ("mount", (), 1),
        ("clone3", (), 38),
        ("clone", (0x11,), None),
        ("clone", (0x10000000,), 1),
        ("clone", (0x80,), None),
        ("unshare", (0x80,), 1),
        *(("socket", (family, 1, 0), None) for family in (1, 2, 10, 16)),
        *(("socket", (family, 1, 0), 97) for family in (0, 3, 9, 11, 15, 17, 40, 1 << 32 | 2)),
        ("socket", (16, 3, 15), 97),
        ("socketpair", (1,), None),
        ("socketpair", (2,), 97),
        ("ioctl", (0, 0x5401), None),
        ("ioctl", (0, 0x5412), 1),
        ("ioctl", (0, 7 << 32 | 0x541C), 1),
        ("personality", (0,), None),
        ("personality", (0xFFFFFFFF,), None),
        *(("personality", (value,), 1) for value in (1, 0x40000, 0x80000000, 0xFFFFFFFE, 0x7FFFFFFF)),
        ("chmod", (0, 0o755), None),
        ("chmod", (0, 0o4755), 1),
        ("mkdirat", (0, 0, 0o2755), 1),
        ("openat", (0, 0, 0, 0o4755), None),
        ("openat", (0, 0, 0x41, 0o644), None),
        ("openat", (0, 0, 0x41, 0o4755), 1),
        ("open", (0, 0x400002, 0o2755), 1),
        ("read", (0, 0, 0), None),
    ],
)
def test_profile_answers_like_the_filter(name: str, args: tuple[int, ...], refused: int | None) -> None:
    assert refuses(oci_profile("x86_64"), name, *args) == refused


def test_profile_names_every_call_of_the_table_that_the_machine_has() -> None:
    for machine, column in (("x86_64", 0), ("aarch64", 1)):
        named = {n for rule in oci_profile(machine)["syscalls"] for n in rule["names"]}
        table = [*DENIED.items(), *UNANSWERED.items(), *CHECKED.items()]
        assert named == {name for name, row in table if row[column] is not None}


def test_profile_under_which_the_launcher_hides_paths_lets_through_what_that_takes_alone() -> None:
    def named(profile: dict[str, Any]) -> set[str]:
        return {n for rule in profile["syscalls"] for n in rule["names"]}

    whole, entering = oci_profile("x86_64"), oci_profile("x86_64", lets_hide=True)
    assert named(whole) - named(entering) == {"unshare", "mount"}


@pytest.mark.rule("RC-31")
def test_what_docker_cannot_mask_is_hidden_by_the_launcher() -> None:
    docker, podman = args_of(DOCKER), args_of(PODMAN)
    hidden = docker[docker.index("/fleet/link", docker.index("/fleet/filter")) + 1 :]
    assert hidden[0] == "must"
    assert hidden[1:] == next(o for o in after(podman, "--security-opt") if o.startswith("mask=")).removeprefix(
        "mask="
    ).split(":")
    assert podman[-1] == "/fleet/link"


def test_profile_of_an_unknown_machine_is_refused() -> None:
    with pytest.raises(SandboxUnavailable, match="machine type"):
        oci_profile("m68k")


# The counters.


def test_counters_of_version_1_are_read_from_the_groups_of_the_container(tmp_path: Path) -> None:
    for pid, group in (("7", "/c"), ("self", "/")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cgroup").write_text(f"4:memory:{group}\n8:pids:{group}\n1:cpu,cpuacct:{group}\n0::/\n")
    files = {
        "memory/c/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        "memory/c/memory.max_usage_in_bytes": "4096\n",
        "memory/c/memory.limit_in_bytes": "8192\n",
        "pids/c/pids.events": "max 3\n",
        "pids/c/pids.max": "max\n",
        "cpu/c/cpu.cfs_quota_us": "-1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    counters = counters_of(7, proc=tmp_path, root=tmp_path)

    assert (counters.oom_kills, counters.refused_forks, counters.peak_memory) == (2, 3, 4096)


def test_counters_of_version_2_are_read_from_the_one_group(tmp_path: Path) -> None:
    for pid, group in (("7", "/c"), ("self", "/s")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cgroup").write_text(f"0::{group}\n")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    counters = counters_of(7, proc=tmp_path, root=tmp_path)

    assert (counters.oom_kills, counters.refused_forks, counters.is_v1) == (1, 0, False)


def test_counters_of_a_process_in_our_own_group_count_nothing(tmp_path: Path) -> None:
    for pid in ("7", "self"):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cgroup").write_text("4:memory:/\n8:pids:/\n")

    assert counters_of(7, proc=tmp_path, root=tmp_path) == ContainerCounters(None, None, is_v1=True)
    assert counters_of(8, proc=tmp_path, root=tmp_path).oom_kills == 0


# The probes.


@pytest.mark.rule("RC-32")
def test_memory_limit_that_only_the_watchdog_held_is_no_cgroup_limit() -> None:
    result = RunResult(
        status="failed", reason="oom_killed", exit_code=137, limits={"cpu": "cgroup"},
        stdout=OutputStream(head='{"wall_ms": 300, "cpu_ms": 90}'),
    )  # fmt: skip
    ended = ContainerEnded("oom_killed", 137, Usage())

    assert "did not apply" in limits_report(PODMAN, ended, result)["31"]
    assert limits_report(ROOTLESS, ended, result)["31"] == ""
    assert (mechanisms_of(ROOTLESS)["memory"], mechanisms_of(PODMAN)["memory"]) == ("watchdog", "cgroup")


def test_probe_whose_container_was_lost_is_down() -> None:
    lost = RunResult(status="error", reason="sandbox_lost", exit_code=None)

    assert health_of(PODMAN, lost, {}, survivors=0).status == "down"


# The engine.


def engine_script(folder: Path, body: str) -> Path:
    path = folder / "engine"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


async def test_missing_engine_is_named(tmp_path: Path) -> None:
    backend = ContainerBackend("podman", tmp_path, MemoryBlobStore(), program=tmp_path / "missing")
    health = await backend.health()

    assert (health.status, health.backend) == ("down", "podman")
    with pytest.raises(SandboxUnavailable, match="No such file"):
        await backend.run(RunSpec(argv=("true",)), run_id="rn-1")


@pytest.mark.parametrize(
    ("name", "info", "expected"),
    [
        ("podman", {"host": {"cgroupVersion": "v1", "security": {"rootless": True}}}, (True, frozenset[str]())),
        ("podman", {"host": {"cgroupVersion": "v2", "security": {"rootless": True}}}, (True, PODMAN.controllers)),
        ("podman", {"host": {"cgroupVersion": "v1"}}, (False, PODMAN.controllers)),
        ("docker", {"CgroupVersion": "2", "SecurityOptions": ["name=rootless"]}, (True, PODMAN.controllers)),
        ("docker", {"CgroupVersion": "1"}, (False, PODMAN.controllers)),
    ],
)
async def test_facts_of_an_engine(
    tmp_path: Path, name: str, info: dict[str, object], expected: tuple[bool, frozenset[str]]
) -> None:
    program = engine_script(tmp_path, f"echo '{json.dumps(info)}'")
    facts = await Engine("docker" if name == "docker" else "podman", program=program).facts()

    assert (facts.name, (facts.is_rootless, facts.controllers)) == (name, expected)


async def test_docker_without_its_daemon_is_unavailable(tmp_path: Path) -> None:
    program = engine_script(tmp_path, """echo '{"ServerErrors": ["Cannot connect to the Docker daemon"]}'""")
    with pytest.raises(SandboxUnavailable, match="start the docker daemon"):
        await Engine("docker", program=program).facts()


async def test_failed_call_shows_what_the_engine_said(tmp_path: Path) -> None:
    engine = Engine("podman", program=engine_script(tmp_path, "echo 'cgroups in hybrid mode' >&2; exit 125"))

    with pytest.raises(SandboxUnavailable, match="install runc"):
        await engine.call(["info"])
    assert not await engine.is_oom_killed("x")
    assert await engine.first_pid("x") == 0
    await engine.remove("x")


@pytest.mark.parametrize(("said", "expected"), [("true", True), ("false", False), ("<no value>", False)])
async def test_engine_says_whether_memory_ended_the_container(tmp_path: Path, said: str, expected: bool) -> None:  # noqa: FBT001
    engine = Engine("podman", program=engine_script(tmp_path, f"echo '{said}'"))

    assert await engine.is_oom_killed("x") is expected


async def test_call_that_does_not_end_is_killed_when_it_is_cancelled(tmp_path: Path) -> None:
    engine = Engine("podman", program=engine_script(tmp_path, f"touch {tmp_path}/on; exec sleep 60"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.call(["info"]), 0.3)


def test_skeleton_is_the_same_every_time_and_holds_no_program() -> None:
    with tarfile.open(fileobj=BytesIO(skeleton())) as archive:
        members = archive.getmembers()

    assert skeleton() == skeleton()
    assert {"workspace", "usr", "fleet/inside"} <= {m.name for m in members}
    assert all(m.size == 0 for m in members)
