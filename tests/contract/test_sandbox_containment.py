"""Containment of the bubblewrap backend: the checks of docs/design/containment_checks.md, each by its id."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
import tempfile
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from fleet.policy.runs.spec import Limits, RunResult, RunSpec
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.backends.identity import is_root
from fleet.trees.memory import MemoryBlobStore
from tests.support.containment import probe_params
from tests.support.sandbox import SMALL, eventually, state_folder, survivors
from tests.support.sandbox_probes import PROBES, PROLOGUE
from tests.support.sandbox_ways import WAYS, Way, limited_by_cgroup

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Decoys:
    """What stands on the host and must not be seen: as the names that the probes use."""

    names: dict[str, object]
    listeners: tuple[socket.socket, ...]
    canary: Path

    def connections(self) -> int:
        count = 0
        for listener in self.listeners:
            try:
                listener.accept()[0].close()
                count += 1
            except BlockingIOError:
                continue
        return count


@pytest.fixture(scope="module")
def state_root() -> Generator[Path]:
    with state_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def decoys(state_root: Path) -> Generator[Decoys]:
    token = secrets.token_hex(8)
    secret = "FLEET_PLANTED=" + token
    with (
        tempfile.NamedTemporaryFile(prefix="fleet-canary-") as canary,
        tempfile.TemporaryDirectory(prefix="fleet-") as folder,
        socket.create_server(("", 0)) as internet,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_UNIX) as by_path,
    ):
        canary.write(b"canary")
        canary.flush()
        abstract.bind(f"\0fleet-{token}")
        by_path.bind(f"{folder}/socket")
        for listener in (internet, abstract, by_path):
            listener.listen()
            listener.setblocking(False)
        names: dict[str, object] = {
            "CANARY": canary.name,
            "STATE": str(state_root),
            "SECRET": secret,
            "HOST_PID": os.getppid(),
            "PORT": internet.getsockname()[1],
            "ABSTRACT": f"fleet-{token}",
            "PATH_SOCKET": f"{folder}/socket",
        }
        os.environ["FLEET_PLANTED"] = token
        try:
            yield Decoys(names, (internet, abstract, by_path), Path(canary.name))
        finally:
            del os.environ["FLEET_PLANTED"]


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return request.param


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(state_root: Path, blobs: MemoryBlobStore, way: Way) -> AsyncGenerator[BubblewrapBackend]:
    backend = BubblewrapBackend(state_root, blobs, use_cgroups=way == "cgroups")
    health = await backend.health()
    if health.status == "down":
        pytest.skip(f"no sandbox can be built here: {'; '.join((*health.unmet, *health.mend))}")
    yield backend


@pytest.fixture(scope="module")
def blobs() -> MemoryBlobStore:
    return MemoryBlobStore()


async def python(backend: BubblewrapBackend, code: str, **fields: object) -> RunResult:
    argv = ("python", "-c", code)
    spec = RunSpec.model_validate({"argv": argv, "limits": SMALL, **fields})
    return await backend.run(spec, run_id=f"rn-{secrets.token_hex(4)}")


async def shell(backend: BubblewrapBackend, code: str, **fields: object) -> RunResult:
    spec = RunSpec.model_validate({"argv": ("/bin/bash", "-c", code), "limits": SMALL, **fields})
    return await backend.run(spec, run_id=f"rn-{secrets.token_hex(4)}")


@pytest.mark.rule("RC-31")
async def test_preflight_finds_everything_in_order(backend: BubblewrapBackend, way: Way) -> None:
    health = await backend.health()

    assert (health.status, health.unmet) == ("ok", ())
    assert health.enforced["memory"] == ("cgroup" if "memory" in limited_by_cgroup(way) else "watchdog")


@pytest.mark.rule("RC-31")
@pytest.mark.parametrize("check", probe_params())
async def test_containment_check_holds(
    backend: BubblewrapBackend, blobs: MemoryBlobStore, decoys: Decoys, check: str
) -> None:
    names = "".join(f"{name} = {value!r}\n" for name, value in decoys.names.items())
    # The code comes as a file: a command line would show the names that probe 14 looks for.
    blob = await blobs.put((PROLOGUE + names + PROBES[check] + "print(*bad, sep='; ')").encode())
    spec = RunSpec.model_validate(
        {
            "argv": ("python", "/inputs/probe.py"),
            "mounts": [{"kind": "blob", "blob": blob, "target": "/inputs/probe.py"}],
            "limits": SMALL.model_copy(update={"file_bytes": 256 << 20, "disk_bytes": 512 << 20}),
        }
    )
    result = await backend.run(spec, run_id=f"rn-{secrets.token_hex(4)}")

    assert (result.stdout.text.strip(), result.stderr.text, result.exit_code) == ("", "", 0)
    assert decoys.connections() == 0
    assert decoys.canary.read_bytes() == b"canary"


@pytest.mark.check("04")
async def test_check_04_files_belong_to_an_unprivileged_user(backend: BubblewrapBackend, state_root: Path) -> None:
    task = asyncio.create_task(shell(backend, "touch made; sleep 20"))
    made: list[Path] = []
    await eventually(lambda: bool(made.extend(state_root.glob("runs/*/*/task/workspace/made")) or made))
    owner = made[0].stat().st_uid
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert owner != 0
    assert owner == os.getuid() or is_root()
    assert not made[0].exists()


def held(check: str, code: str, limits: dict[str, int], reason: str) -> object:
    return pytest.param(check, code, limits, reason, id=f"{check} {code[:12]}")


FILL = "for i in $(seq 60); do head -c 10M /dev/zero > f$i; sleep 0.02; done; sleep 20"


@pytest.mark.check("11", "30", "31", "32", "34", "41", "S19")
@pytest.mark.rule("RC-16", "RC-30")
@pytest.mark.parametrize(
    ("check", "code", "limits", "reason"),
    [
        held("11", FILL, {"disk_bytes": 60 << 20}, "disk_limit"),
        held("11", "for i in $(seq 5000); do echo x > $i; done; sleep 9", {"disk_bytes": 1 << 20}, "disk_limit"),
        held("31", "python -c 'x = bytearray(1 << 30); input()'; sleep 20", {"memory_bytes": 200 << 20}, "oom_killed"),
        held("32", "head -c 100M /dev/zero > /tmp/f; sleep 20", {"memory_bytes": 64 << 20}, "oom_killed"),
        held("34", "yes $(seq 20)", {"output_bytes": 1 << 20}, "output_limit"),
        held("30", "f() { f | f & }; while :; do f; done", {"pids": 48}, "pids_limit"),
        held("S19", "echo before; sleep 60", {"idle_s": 1}, "idle_timeout"),
        held("S19", "echo before; while :; do echo -n .; sleep 0.1; done", {"overall_s": 1}, "timeout"),
    ],
)
async def test_limit_ends_the_run_with_its_own_reason(
    backend: BubblewrapBackend, check: str, code: str, limits: dict[str, int], reason: str
) -> None:
    result = await shell(backend, code, limits=SMALL.model_copy(update=limits))

    assert (result.reason, result.exit_code) == (reason, 137)
    assert result.usage.wall_ms < 20_000
    if check.startswith("S19"):
        assert result.stdout.text.startswith("before")
    assert (await shell(backend, "echo usable")).stdout.text == "usable\n"


@pytest.mark.check("11")
async def test_check_11_full_disk_at_the_end_is_reported(backend: BubblewrapBackend) -> None:
    limits = SMALL.model_copy(update={"disk_bytes": 1 << 20})
    result = await shell(backend, "head -c 3M /dev/zero > f", limits=limits, keep_tree=True)

    assert (result.status, result.reason, result.tree_out) == ("failed", "disk_limit", None)


@pytest.mark.check("30")
async def test_check_30_full_sandbox_does_not_starve_another(backend: BubblewrapBackend) -> None:
    task = asyncio.create_task(shell(backend, "for i in $(seq 60); do sleep 5 & done 2>/dev/null; wait"))
    await asyncio.sleep(0.2)
    result = await shell(backend, "for i in 1 2 3 4 5 6 7 8; do /bin/true & done; wait; echo fine")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert result.stdout.text == "fine\n"


@pytest.mark.check("35")
async def test_check_35_child_that_holds_the_output_does_not_hold_the_run(backend: BubblewrapBackend) -> None:
    token = secrets.token_hex(8)
    result = await shell(backend, f"bash -c 'sleep 71 # {token}' & echo hi")

    assert (result.stdout.text, result.reason) == ("hi\n", "ok")
    assert result.usage.wall_ms < 5_000
    assert survivors(token) == []


DAEMON = """
import os, signal, sys, time
for stopped in (False, True):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if stopped: os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(600)
        os._exit(0)
    os.wait()
print('ready', flush=True)
time.sleep(600)
"""


@pytest.mark.check("36")
@pytest.mark.rule("RC-17")
async def test_check_36_nothing_outlives_a_timeout(backend: BubblewrapBackend) -> None:
    token = secrets.token_hex(8)
    result = await python(backend, f"{DAEMON}# {token}", limits=SMALL.model_copy(update={"overall_s": 1}))

    assert (result.reason, result.stdout.text) == ("timeout", "ready\n")
    assert survivors(token) == []


@pytest.mark.check("38")
async def test_check_38_stopped_programs_are_still_timed_out(backend: BubblewrapBackend) -> None:
    limits = SMALL.model_copy(update={"overall_s": 1})
    result = await shell(backend, "kill -STOP 1; kill -STOP $$; echo woke", limits=limits)

    assert (result.reason, result.stdout.text) == ("timeout", "")


@pytest.mark.check("40")
async def test_check_40_no_zombies_are_left(backend: BubblewrapBackend) -> None:
    await asyncio.gather(*(shell(backend, "true") for _ in range(4)))
    own = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    states = [Path(f"/proc/{c}/stat").read_text() for p in own for c in p.read_text().split()]

    assert [s for s in states if s.rpartition(")")[2].split()[0] == "Z" and "bwrap" in s] == []


@pytest.mark.check("42", "S26")
async def test_check_42_hostile_output_arrives_whole(backend: BubblewrapBackend, blobs: MemoryBlobStore) -> None:
    hostile = b"\0\xff\xfe\x1b]52;c;eA==\x07\x1b[2J\r" + b"x" * 1_000_000
    code = "import sys; sys.stdout.buffer.write(b'\\0\\xff\\xfe\\x1b]52;c;eA==\\x07\\x1b[2J\\r' + b'x' * 1_000_000)"
    result = await python(backend, code)

    assert result.stdout.blob is not None
    assert await blobs.get(result.stdout.blob) == hostile
    assert result.stdout.head.startswith("\0\ufffd\ufffd")


HOSTILE_NAMES = r"""
import os, socket
os.mkfifo('fifo')
s = socket.socket(socket.AF_UNIX); s.bind('socket')
for name in (b'n' * 255, b'new\nline', b'esc\x1b[31m', b'bad\xff', b'-rf', b'a b', b'\xc3\xbc'): open(name, 'w').close()
os.symlink('loop', 'loop'); os.symlink('/etc/shadow', 'shadow'); os.symlink('../../..', 'up')
os.mkdir('closed'); open('closed/f', 'w').close(); os.chmod('closed/f', 0); os.chmod('closed', 0)
os.mkdir('.git'); open('.git/config', 'w').close(); os.mkdir('__pycache__'); open('__pycache__/x.pyc', 'w').close()
open('run.sh', 'w').close(); os.chmod('run.sh', 0o777)
for _ in range(300): os.mkdir('d'); os.chdir('d')
open('deep', 'w').close()
"""


@pytest.mark.check("43", "S6")
@pytest.mark.rule("RC-36")
async def test_check_43_hostile_names_are_walked_recorded_and_deleted(
    backend: BubblewrapBackend, blobs: MemoryBlobStore, state_root: Path
) -> None:
    from fleet.trees.tree import decode_tree

    result = await python(backend, HOSTILE_NAMES, keep_tree=True, artifacts=("fifo", "shadow", "closed", "up"))

    assert (result.reason, result.stderr.text) == ("ok", "")
    assert result.tree_out is not None
    tree = decode_tree(await blobs.get(result.tree_out))
    deep = "d/" * 300 + "deep"
    names = {"n" * 255, "new\nline", "esc\x1b[31m", "-rf", "a b", "ü", "closed/f", "run.sh", deep}
    assert set(tree) == names | {"loop", "shadow", "up"}
    assert {tree[link].mode for link in ("loop", "shadow", "up")} == {"120000"}
    assert tree["run.sh"].mode == "100755"
    assert await blobs.get(tree["shadow"].blob) == b"/etc/shadow"
    assert result.limits["tree"].startswith("3 entries")
    assert {a.path: a.blob is not None for a in result.artifacts} == {
        "fifo": False, "shadow": False, "closed/f": True, "up": False,
    }  # fmt: skip
    assert list(state_root.glob("runs/*/*")) == []


@pytest.mark.check("43")
async def test_check_43_two_thousand_levels_are_deleted(backend: BubblewrapBackend, state_root: Path) -> None:
    code = "import os\nfor _ in range(2500): os.mkdir('d'); os.chdir('d')\nopen('f', 'w').close()"
    result = await python(backend, code, keep_tree=True)

    # No tree can hold such a path, and what no walk can reach cannot be counted.
    assert (result.status, result.reason) == ("failed", "disk_limit")
    assert list(state_root.glob("runs/*/*")) == []


@pytest.mark.check("S1")
async def test_check_s1_program_that_cannot_be_executed_is_a_typed_result(backend: BubblewrapBackend) -> None:
    result = await backend.run(RunSpec(argv=("/workspace",), limits=SMALL), run_id="rn-folder")

    assert (result.status, result.reason, result.exit_code) == ("error", "config", 126)
    assert result.limits["program"] == "not_found"


@pytest.mark.check("S9")
async def test_check_s9_tasks_do_not_see_each_other(backend: BubblewrapBackend, state_root: Path) -> None:
    other = asyncio.create_task(shell(backend, "echo secret > /tmp/f; echo secret > f; sleep 20"))
    await eventually(lambda: any(p.read_text() for p in state_root.glob("runs/*/*/task/workspace/f")))
    result = await shell(backend, "ls -A /tmp /workspace; cat /tmp/f f")
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)

    assert "secret" not in result.stdout.text
    assert list(state_root.glob("runs/*/*")) == []


@pytest.mark.check("S16")
@pytest.mark.rule("RC-18")
async def test_check_s16_cancel_right_after_the_start_leaves_nothing(backend: BubblewrapBackend) -> None:
    token = secrets.token_hex(8)
    draw = random.Random(16)
    for number in range(30):
        task = asyncio.create_task(shell(backend, f"setsid sleep 300 & sleep 300 # {token}{number}"))
        await asyncio.sleep(draw.uniform(0, 0.02))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert survivors(token) == []


async def test_limits_of_a_result_say_which_mechanism_enforced_them(backend: BubblewrapBackend, way: Way) -> None:
    result = await shell(backend, "true")

    expected = {
        "memory": "watchdog", "pids": "rlimit", "cpu": "rlimit+nice", "disk": "watchdog", "network": "namespace",
        "syscalls": "seccomp", **dict.fromkeys(limited_by_cgroup(way), "cgroup"),
    }  # fmt: skip
    assert {k: result.limits[k] for k in expected} == expected
    assert result.image is not None


async def test_usage_of_a_busy_run_is_measured(backend: BubblewrapBackend) -> None:
    code = "x = bytearray(50 << 20)\nimport time\nwhile time.process_time() < 0.4: pass"
    usage = (await python(backend, code, limits=Limits(overall_s=20))).usage

    assert usage.max_memory_bytes > 50 << 20
    assert usage.cpu_ms > 100
    assert usage.max_pids >= 2
