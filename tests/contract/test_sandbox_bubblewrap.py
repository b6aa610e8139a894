"""What only the bubblewrap backend does: real trees, mounts, toolchains, crashes of its supervisor."""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import subprocess
import sys
import threading
import venv
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
import pytest_asyncio

from fleet.kernel.errors import FleetError, InvalidInput, SandboxUnavailable
from fleet.policy.runs.log_lines import LogLine
from fleet.policy.runs.spec import RepoMount, RunResult, RunSpec
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.backends.identity import is_root
from fleet.sandbox.folders.beneath import open_beneath, read_beneath
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.tree import FileEntry, Tree, decode_tree, encode_tree
from tests.support.sandbox import SMALL, eventually, put_tree, state_folder, survivors
from tests.support.sandbox_cancels import leftovers

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def state_root() -> Generator[Path]:
    with state_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def blobs() -> MemoryBlobStore:
    return MemoryBlobStore()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(state_root: Path, blobs: MemoryBlobStore) -> AsyncGenerator[BubblewrapBackend]:
    backend = BubblewrapBackend(state_root, blobs)
    health = await backend.health()
    if health.status == "down":
        pytest.skip(f"no sandbox can be built here: {'; '.join((*health.unmet, *health.mend))}")
    yield backend


async def run(backend: BubblewrapBackend, *argv: str, **fields: object) -> RunResult:
    spec = RunSpec.model_validate({"argv": argv, "limits": SMALL, **fields})
    return await backend.run(spec, run_id=f"rn-{secrets.token_hex(4)}")


async def tree_after(blobs: MemoryBlobStore, result: RunResult) -> Tree:
    assert result.tree_out is not None
    return decode_tree(await blobs.get(result.tree_out))


# Trees.


COMPILED = """
import sys
sys.path.insert(0, "/fleet/inside")
import processes, subprocess
argv = [sys.executable, *processes.NO_CACHE, "-v", "-c", "import pytest, decimal, shop"]
said = subprocess.run(argv, capture_output=True, text=True, cwd="/workspace").stderr
print([name for name in ("pytest/__init__", "decimal", "shop") if f"/{name}.cpython" in said and "pycache/" in said])
print("code object from /workspace/shop.py" in said or "code object from '/workspace/shop.py'" in said)
open("/toolchain/pycache/more", "w")
"""


async def test_modules_of_the_toolchain_are_compiled_before_and_those_of_the_workspace_never(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    tree = await put_tree(blobs, {"shop.py": b"", "__pycache__/shop.cpython-311.pyc": b"forged"})
    result = await run(backend, "python", "-c", COMPILED, tree=tree)

    assert result.stdout.text.splitlines() == ["['pytest/__init__', 'decimal']", "True"]
    assert "Read-only file system: '/toolchain/pycache/more'" in result.stderr.text


@pytest.mark.rule("RC-36")
async def test_tree_with_links_programs_and_submodules_comes_back_unchanged(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    tree = await put_tree(
        blobs,
        {
            "run.sh": ("100755", b"#!/bin/sh\necho ran $(readlink link)\n"),
            "link": ("120000", b"/etc/passwd"),
            "pkg/a.py": b"a = 1\n",
            "vendor/lib": ("160000", b"commit"),
            "coverage/kept.txt": b"committed before",
            "src/__pycache__/kept.pyc": b"committed before",
        },
    )
    result = await run(backend, "./run.sh", tree=tree, keep_tree=True)

    assert result.stdout.text == "ran /etc/passwd\n"
    assert result.tree_out == tree


@pytest.mark.rule("RC-36")
@pytest.mark.parametrize(
    ("code", "limits", "reason"),
    [
        ("exit 3", {}, "exit_nonzero"),
        ("kill -9 $$", {}, "signal"),
        ("sleep 60", {"overall_s": 1}, "timeout"),
        ("sleep 60", {"idle_s": 1}, "idle_timeout"),
        ("yes", {"output_bytes": 4096}, "output_limit"),
    ],
)
async def test_command_that_did_not_pass_leaves_the_tree_that_it_made(
    backend: BubblewrapBackend, blobs: MemoryBlobStore, code: str, limits: dict[str, int], reason: str
) -> None:
    tree = await put_tree(blobs, {"old.txt": b"text"})
    command = ("/bin/bash", "-c", f"rm old.txt; echo made > new.txt; {code}")
    result = await run(backend, *command, tree=tree, keep_tree=True, limits=SMALL.model_copy(update=limits))

    assert result.reason == reason
    assert set(await tree_after(blobs, result)) == {"new.txt"}


@pytest.mark.rule("RC-36")
async def test_tree_over_its_disk_limit_stays_as_it_was_and_the_result_says_so(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    tree = await put_tree(blobs, {"old.txt": b"text"})
    limits = SMALL.model_copy(update={"disk_bytes": 1 << 20})
    command = ("/bin/bash", "-c", "head -c 3M /dev/zero > big")
    result = await run(backend, *command, tree=tree, keep_tree=True, limits=limits)

    assert (result.reason, result.tree_out) == ("disk_limit", tree)
    assert result.limits["tree"] == "unchanged: the workspace was over its disk limit"


@pytest.mark.rule("RC-36", "RC-24")
async def test_cancelled_command_leaves_nothing_behind(backend: BubblewrapBackend, blobs: MemoryBlobStore) -> None:
    tree = await put_tree(blobs, {"old.txt": b"text"})
    spec = RunSpec(argv=("/bin/bash", "-c", "rm old.txt; sleep 60"), tree=tree, keep_tree=True)
    task = asyncio.create_task(backend.run(spec, run_id="rn-cancelled-tree"))
    while not await backend.cancel("rn-cancelled-tree"):
        await asyncio.sleep(0.05)

    result = await task
    assert (result.status, result.tree_out) == ("cancelled", tree)


async def test_caches_git_folders_and_discarded_names_are_not_recorded(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    folders = "out a/__pycache__ .pytest_cache sub/.git a"
    code = f"mkdir -p {folders}; for d in {folders}; do echo x > $d/f; done"
    result = await run(backend, "bash", "-c", code, keep_tree=True)

    assert set(await tree_after(blobs, result)) == {"a/f"}


async def test_changes_below_a_submodule_are_not_recorded(backend: BubblewrapBackend, blobs: MemoryBlobStore) -> None:
    tree = await put_tree(blobs, {"sub": ("160000", b"commit"), "f": b"1"})
    result = await run(backend, "bash", "-c", "echo x > sub/new; echo y > g", tree=tree, keep_tree=True)

    assert set(await tree_after(blobs, result)) == {"sub", "f", "g"}


@pytest.mark.check("S5")
@pytest.mark.parametrize(
    "files", [{"a": ("120000", b"/tmp"), "a/b": b"x"}, {"a": b"x", "a/b/c": b"y"}], ids=["link", "file"]
)
async def test_tree_with_a_file_below_a_file_is_refused(
    backend: BubblewrapBackend, blobs: MemoryBlobStore, files: dict[str, bytes]
) -> None:
    tree = await put_tree(blobs, files)

    with pytest.raises(InvalidInput):
        await run(backend, "true", tree=tree)


async def test_large_tree_is_written_and_recorded_in_batches(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    blob = await blobs.put(b"same")
    tree = {f"d{n % 7}/f{n}.txt": FileEntry("100644", blob) for n in range(600)}
    digest = await blobs.put(encode_tree(tree))
    result = await run(backend, "bash", "-c", "find . -type f | wc -l", tree=digest, keep_tree=True)

    assert (result.stdout.text, result.tree_out) == ("600\n", digest)


# Mounts and toolchains.


async def test_staged_repository_is_mounted_read_only(backend: BubblewrapBackend) -> None:
    name = secrets.token_hex(32)
    folder = backend.repos / name
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "HEAD").write_text("ref: refs/heads/main\n")
    result = await run(backend, "bash", "-c", "cat /repo.git/HEAD; touch /repo.git/x", mounts=[RepoMount(repo=name)])

    assert result.stdout.text == "ref: refs/heads/main\n"
    assert "Read-only" in result.stderr.text


READ_AS_ANOTHER = """
import os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    print(os.listdir(sys.argv[1]))
except PermissionError:
    pass
try:
    print(open(sys.argv[1] + '/' + sys.argv[2] + '/HEAD').read())
except PermissionError:
    print('closed')
"""


@pytest.mark.rule("RC-19", "RC-70")
@pytest.mark.skipif(os.geteuid() != 0, reason="runs of an ordinary user have no other user")
async def test_staged_repository_is_open_to_its_run_and_to_no_other_user_of_the_machine(
    backend: BubblewrapBackend, state_root: Path
) -> None:
    name = "ab" * 32
    folder = backend.repos / name
    folder.mkdir(parents=True)
    (folder / "HEAD").write_text("private\n")
    folder.chmod(0o755)
    await backend.health()

    result = await run(backend, "bash", "-c", "cat /repo.git/HEAD; id -u; id -G", mounts=[RepoMount(repo=name)])
    other = subprocess.run(
        [sys.executable, "-I", "-c", READ_AS_ANOTHER, str(backend.repos), name],
        capture_output=True,
        text=True,
        check=True,
    )

    assert result.stdout.text.splitlines()[0] == "private"
    assert "0" not in " ".join(result.stdout.text.splitlines()[1:]).split()
    assert other.stdout == "closed\n"


@pytest.mark.rule("RC-19")
async def test_missing_staged_repository_is_a_refused_mount(backend: BubblewrapBackend) -> None:
    result = await run(backend, "true", mounts=[RepoMount(repo="0" * 64)])

    assert (result.status, result.reason, result.exit_code) == ("error", "mount_refused", None)


TEST = b"def test_one():\n    assert 1 + 1 == 2\n"


@pytest.mark.parametrize("python", ["python", "python3"])
async def test_toolchain_runs_pytest_with_coverage_and_ruff(
    backend: BubblewrapBackend, blobs: MemoryBlobStore, python: str
) -> None:
    tree = await put_tree(blobs, {"test_one.py": TEST})
    tests = await run(
        backend, python, "-m", "coverage", "run", "-m", "pytest", "-q", "--junitxml=test-reports/junit.xml",
        tree=tree, artifacts=("test-reports/junit.xml",),
    )  # fmt: skip
    lint = await run(backend, "ruff", "check", "--no-cache", "--select", "F", ".", tree=tree)
    lint_by_module = await run(backend, python, "-m", "ruff", "--version")

    assert (tests.reason, tests.artifact("test-reports/junit.xml") is not None) == ("ok", True), tests.stderr.text
    assert (lint.reason, lint_by_module.reason) == ("ok", "ok"), lint.stderr.text
    assert (await run(backend, "pytest", "--version")).reason == "ok"


async def test_toolchain_does_not_hold_our_own_code(backend: BubblewrapBackend) -> None:
    assert (await run(backend, "python", "-c", "import fleet")).exit_code == 1


async def test_environment_of_the_user_is_used_at_its_own_path(backend: BubblewrapBackend, state_root: Path) -> None:
    path = state_root.parent / "environment"
    interpreter = Path("/usr/bin") / f"python3.{sys.version_info.minor}"
    if is_root() and not interpreter.exists():
        pytest.skip("the machine has no Python of this version that another user can reach")
    venv.EnvBuilder(symlinks=True).create(path)
    if is_root():
        (path / "bin" / f"python3.{sys.version_info.minor}").unlink(missing_ok=True)
        for name in ("python", "python3"):
            (path / "bin" / name).unlink()
            (path / "bin" / name).symlink_to(interpreter)
        (path / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    site = next(path.glob("lib/python3*/site-packages"))
    (site / "only_here.py").write_text("name = 'theirs'\n")
    result = await run(backend, "python", "-c", "import only_here; print(only_here.name)", toolchain=f"env:{path}")

    assert (result.stdout.text, result.stderr.text) == ("theirs\n", "")
    assert (await run(backend, "ruff", "--version", toolchain=f"env:{path}")).reason == "ok"


@pytest.mark.parametrize("path", ["/nowhere", "relative", "/etc", "/", "/proc/self"])
async def test_environment_that_is_none_is_refused(backend: BubblewrapBackend, path: str) -> None:
    with pytest.raises(InvalidInput, match="no Python environment"):
        await run(backend, "true", toolchain=f"env:{path}")


@pytest.mark.skipif(not is_root(), reason="only a root supervisor drops to a user who may be shut out")
async def test_environment_that_the_user_cannot_reach_names_the_mend(
    backend: BubblewrapBackend, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    venv.EnvBuilder(symlinks=True).create(closed)
    closed.chmod(0o700)

    with pytest.raises(SandboxUnavailable, match="outside folders that only their owner may enter"):
        await run(backend, "true", toolchain=f"env:{closed}")


# File access.


@pytest.mark.check("S3")
async def test_check_s3_reads_beneath_never_follow_a_swapped_folder(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    for folder in (outside, root / "a"):
        folder.mkdir(parents=True)
    (outside / "f").write_text("outside")
    (root / "a" / "f").write_text("inside")
    (root / "link").symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (root / "a").rename(root / "b")
            (root / "link").rename(root / "a")
            (root / "a").rename(root / "link")
            (root / "b").rename(root / "a")

    thread = threading.Thread(target=swap)
    thread.start()
    seen: list[bytes] = []
    descriptor = os.open(root, os.O_RDONLY)
    deadline = asyncio.get_running_loop().time() + 1
    while asyncio.get_running_loop().time() < deadline:
        try:
            seen.append(read_beneath(descriptor, "a/f", max_bytes=100))
        except FleetError:
            seen.append(b"refused")
    stop.set()
    thread.join()
    os.close(descriptor)

    assert b"outside" not in seen
    assert {b"inside", b"refused"} == set(seen)


@pytest.mark.check("S3")
async def test_file_opened_through_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="symbolic links"):
            open_beneath(descriptor, "link", os.O_RDONLY)
    finally:
        os.close(descriptor)


# The supervisor dies.


def start_supervisor(state_root: Path, token: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.support.sandbox_supervisor", str(state_root), token]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def lines_until_start(process: subprocess.Popen[str]) -> dict[str, object]:
    assert process.stdout is not None
    health = json.loads(process.stdout.readline())
    assert process.stdout.readline() == "starting\n"
    return health


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.check("37", "S20")
@pytest.mark.rule("RC-27")
async def test_check_37_sandbox_dies_with_its_supervisor(backend: BubblewrapBackend, state_root: Path) -> None:
    token = secrets.token_hex(8)
    process = await asyncio.to_thread(start_supervisor, state_root, token)
    await asyncio.to_thread(lines_until_start, process)
    try:
        # Before its command runs a dying supervisor may leave a sandbox; that is check S17.
        await eventually(lambda: any(state_root.glob(f"runs/{process.pid}-*/*/task/workspace/started")))
    finally:
        end(process)

    await eventually(lambda: survivors(token) == [], within_s=60)
    assert await backend.sweep() >= 2  # its run folder and its staged files
    assert await backend.sweep() == 0
    assert leftovers(state_root, token) == []


@pytest.mark.check("S17")
@pytest.mark.rule("RC-27")
async def test_check_s17_crash_right_after_the_start_is_swept(backend: BubblewrapBackend, state_root: Path) -> None:
    token = secrets.token_hex(8)
    draw = random.Random(17)
    processes = [await asyncio.to_thread(start_supervisor, state_root, token) for _ in range(3)]
    for process in processes:
        await asyncio.to_thread(lines_until_start, process)
        await asyncio.sleep(draw.uniform(0, 0.02))
        end(process)

    # A sandbox that was not yet called so is found by the next search, as a node makes one every minute.
    async with asyncio.timeout(60):
        while await backend.sweep() or survivors(token):
            await asyncio.sleep(0.05)
    assert leftovers(state_root, token) == []


@pytest.mark.check("S20")
async def test_check_s20_sweep_leaves_live_runs_alone(backend: BubblewrapBackend, state_root: Path) -> None:
    task = asyncio.create_task(run(backend, "bash", "-c", "echo here; sleep 1; echo there"))
    await eventually(lambda: any(state_root.glob("runs/*/*/task/workspace")))
    await backend.sweep()
    (state_root / "runs" / "1-1-00000000" / "000001").mkdir(parents=True)
    removed = await backend.sweep()
    result = await task

    assert removed == 1
    assert result.stdout.text == "here\nthere\n"


@pytest.mark.skipif(not is_root(), reason="only root can start a supervisor as another user")
async def test_supervisor_without_root_holds_everything_too() -> None:
    interpreter = f"/usr/bin/python3.{sys.version_info.minor}"
    packages = next(p for p in sys.path if p.endswith("site-packages"))
    here = str(Path(__file__).resolve().parents[2])
    user = 65534
    probe = [interpreter, "-c", "import fleet, pydantic"]
    env = {"PYTHONPATH": f"{packages}:{here}", "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}

    def call(command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=env,
            cwd="/",
            user=user,
            group=user,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )

    if not Path(interpreter).exists() or (await asyncio.to_thread(call, probe)).returncode != 0:
        pytest.skip("another user can reach no Python of this version with our packages")
    with state_folder() as folder:
        os.chown(folder.parent, user, user)
        command = [interpreter, "-m", "tests.support.sandbox_supervisor", str(folder), "-", "once"]
        done = await asyncio.to_thread(call, command)

    assert done.returncode == 0, done.stderr
    health, result = (json.loads(line) for line in done.stdout.splitlines())
    assert (health["status"], health["unmet"]) == ("ok", [])
    assert (result["reason"], result["stdout"]["head"]) == ("ok", "1000\n")


async def test_runs_beyond_the_parallel_limit_wait_and_can_be_cancelled(
    state_root: Path, blobs: MemoryBlobStore, backend: BubblewrapBackend
) -> None:
    narrow = BubblewrapBackend(state_root, blobs, max_parallel=1)
    await narrow.health()
    spec = RunSpec(argv=("/bin/bash", "-c", "echo up; exec sleep 30"), limits=SMALL)
    lines: list[LogLine] = []
    first = asyncio.create_task(narrow.run(spec, run_id="rn-first", log=lines.append))
    await eventually(lambda: bool(lines), within_s=20)
    second = asyncio.create_task(narrow.run(spec, run_id="rn-second"))
    await asyncio.sleep(0.05)
    assert await narrow.cancel("rn-second")
    assert await narrow.cancel("rn-first")
    results = await asyncio.gather(first, second)

    assert [(r.reason, r.exit_code) for r in results] == [("cancelled", 143), ("cancelled", None)]


# What goes wrong before and beside the command.


def fake_bubblewrap(folder: Path, script: str) -> Path:
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    path = folder / "bwrap"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.rule("RC-25", "RC-32")
@pytest.mark.parametrize(
    ("script", "mend"),
    [
        ("echo 'bwrap: setting up uid map: Permission denied' >&2; exit 1", "AppArmor"),
        ("echo 'bwrap: No permissions to create new namespace' >&2; exit 1", "unprivileged_userns_clone"),
        ("exit 1", "fleet sandbox check"),
    ],
)
async def test_machine_that_cannot_build_a_sandbox_is_down_and_refuses_runs(script: str, mend: str) -> None:
    with state_folder() as root:
        broken = BubblewrapBackend(root, MemoryBlobStore(), bwrap=fake_bubblewrap(root.parent / "bin", script))
        health = await broken.health()
        with pytest.raises(SandboxUnavailable, match=mend):
            await run(broken, "true")

    assert health.status == "down"
    assert mend in health.mend[0]


WEAK = """
import os, sys
options = open(int(sys.argv[1]), "rb").read().decode().split(chr(0))
info, status = (int(options[options.index(name) + 1]) for name in ("--info-fd", "--json-status-fd"))
child = os.fork()
if child == 0:
    os.execv("/bin/sleep", ["sleep", "60"])
os.write(info, b"{ %schild-pid%s: %d }" % (bytes([34]), bytes([34]), child))
os.read(int(options[options.index("--block-fd") + 1]), 1)
os.write(status, b"{ %sexit-code%s: 7 }" % (bytes([34]), bytes([34])))
print(sys.argv[2])
sys.exit(7)
"""


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="the stand-in is a script for the system's Python")
@pytest.mark.rule("RC-32")
async def test_sandbox_that_does_not_hold_a_check_refuses_runs_and_names_it() -> None:
    # It reports like bubblewrap and runs the probe with no isolation at all: its namespaces are still the host's.
    report = '{"00": "", "01": "could write to /usr"}'
    with state_folder() as root:
        path = fake_bubblewrap(root.parent / "bin", f"exec /usr/bin/python3 -c '{WEAK}' \"$2\" '{report}'")
        weak = BubblewrapBackend(root, MemoryBlobStore(), bwrap=path)
        health = await weak.health()
        with pytest.raises(SandboxUnavailable, match="could write to /usr"):
            await run(weak, "true")

    assert health.status == "degraded"
    assert "read_only_system (check 01): could write to /usr" in health.unmet


async def test_missing_bubblewrap_is_unavailable() -> None:
    with state_folder() as root:
        health = await BubblewrapBackend(root, MemoryBlobStore(), bwrap=root / "missing").health()

    assert health.status == "down"
    assert "No such file" in health.unmet[0]


async def test_state_root_that_cannot_be_used_is_named() -> None:
    health = await BubblewrapBackend(Path("/proc/fleet"), MemoryBlobStore()).health()

    assert health.status == "down"
    assert "/proc/fleet" in health.unmet[0]


async def test_disk_that_fails_in_a_run_is_unavailable(state_root: Path, backend: BubblewrapBackend) -> None:
    runs = state_root / "runs"
    runs.rename(state_root / "moved")
    runs.write_text("no folder")
    try:
        with pytest.raises(SandboxUnavailable, match="cannot be used"):
            await run(backend, "true")
    finally:
        runs.unlink()
        (state_root / "moved").rename(runs)


@pytest.mark.check("S19")
@pytest.mark.rule("RC-19")
async def test_run_whose_sandbox_is_killed_from_outside_is_lost(backend: BubblewrapBackend, state_root: Path) -> None:
    token = secrets.token_hex(8)
    task = asyncio.create_task(run(backend, "bash", "-c", f"touch started; sleep 60; true # {token}"))
    await eventually(lambda: any(state_root.glob("runs/*/*/task/workspace/started")))
    outer = min(survivors(token))
    os.kill(outer, 9)
    result = await task

    assert (result.status, result.reason) == ("error", "sandbox_lost")
    assert survivors(token) == []
