from __future__ import annotations

from pathlib import Path

from fleet.kernel.digest import digest_of
from fleet.policy.runs.spec import Limits
from fleet.sandbox.backends.bubblewrap.launch import FIXED_ENV, Layout, bubblewrap_args
from fleet.sandbox.backends.bubblewrap.limits import PRLIMIT, rlimit_argv
from fleet.sandbox.backends.toolchain import Toolchain
from fleet.sandbox.folders.stage import Stage

TOOLCHAIN = Toolchain(((Path("/host/chain"), "/toolchain"),), "/toolchain/bin:/usr/bin", (("A", "1"),), digest_of(b""))


def options(**layout: Path) -> list[str]:
    stage = Stage(Path("/host/stage"), Path("/host/bwrap"), Path("/host/bwrap"))
    return bubblewrap_args(stage, TOOLCHAIN, Layout(Path("/host/work"), **layout), {"TASK": "unit"})


def test_options_spell_out_every_namespace_and_drop_everything() -> None:
    found = options()

    for name in ("user", "pid", "ipc", "uts", "cgroup", "net"):
        assert f"--unshare-{name}" in found
    assert {"--disable-userns", "--die-with-parent", "--new-session", "--clearenv"} <= set(found)
    assert found[found.index("--cap-drop") + 1] == "ALL"
    assert "--unshare-all" not in found


def test_options_make_dev_and_root_read_only_after_their_mounts() -> None:
    found = options()
    dev = next(n for n, o in enumerate(found) if o == "--remount-ro" and found[n + 1] == "/dev")
    root = next(n for n, o in enumerate(found) if o == "--remount-ro" and found[n + 1] == "/")

    assert found.index("/dev/shm") < dev < root
    assert max(n for n, o in enumerate(found) if o in ("--bind", "--ro-bind", "--tmpfs")) < root


def test_options_bind_only_the_workspace_writable() -> None:
    found = options(inputs=Path("/host/inputs"), repo=Path("/host/repo"))
    writable = [found[n + 1 : n + 3] for n, o in enumerate(found) if o == "--bind"]
    read_only = [found[n + 1 : n + 3] for n, o in enumerate(found) if o == "--ro-bind"]

    assert writable == [["/host/work", "/workspace"]]
    for pair in (["/host/inputs", "/inputs"], ["/host/repo", "/repo.git"], ["/host/chain", "/toolchain"]):
        assert pair in read_only
    assert ["/", "/"] not in read_only


def test_options_set_the_fixed_variables_the_toolchains_and_the_requests() -> None:
    found = options()
    env = {found[n + 1]: found[n + 2] for n, o in enumerate(found) if o == "--setenv"}

    assert env == {**FIXED_ENV, "PATH": "/toolchain/bin:/usr/bin", "A": "1", "TASK": "unit"}


def test_options_give_every_memory_backed_folder_a_size() -> None:
    found = options()

    for at in (n for n, o in enumerate(found) if o == "--tmpfs"):
        assert found[at - 4] == "--size"


def test_rlimits_are_set_by_the_command_inside() -> None:
    argv = rlimit_argv(Limits(pids=33, file_bytes=1 << 20))

    assert argv[0] == PRLIMIT
    assert {"--nproc=33:33", "--nofile=4096:4096", "--core=0:0", "--fsize=1048576:1048576"} <= set(argv)
    assert argv[-1] == "--"
