"""What a run of the bubblewrap backend is given and told, how it is cancelled, and what its limits are."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import InvalidInput
from fleet.policy.runs.log_lines import LogLine
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.redaction.known_values import KNOWN_SECRET
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.backends.bubblewrap.cgroups import find_parents
from fleet.sandbox.backends.identity import is_root
from fleet.secrets.port import SecretDelivery, SecretValue
from fleet.trees.memory import MemoryBlobStore
from tests.support.sandbox import SMALL, eventually, put_tree, state_folder
from tests.support.sandbox_cancels import cancel_at_random, leftovers

pytestmark = pytest.mark.asyncio(loop_scope="module")

# A child says "up" once the kernel shows the shell as stopped: one cancelled before that dies of the SIGTERM.
STOPPED = "(until grep -q '^State:.T' /proc/$$/status; do sleep 0.02; done; echo up) & kill -STOP $$"


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


# Cancelled.


@pytest.mark.check("S16")
@pytest.mark.rule("RC-24")
@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.slow)])
async def test_cancels_at_random_moments_leave_nothing(
    backend: BubblewrapBackend, state_root: Path, count: int
) -> None:
    token = await cancel_at_random(backend, count, seed=20)

    assert leftovers(state_root, token) == []


def cancels_of_an_ordinary_user(count: int) -> dict[str, Any]:
    interpreter = f"/usr/bin/python3.{sys.version_info.minor}"
    packages = next(p for p in sys.path if p.endswith("site-packages"))
    here = str(Path(__file__).resolve().parents[2])
    env = {"PYTHONPATH": f"{packages}:{here}", "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    nobody = 65_534

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            (interpreter, *arguments), env=env, cwd="/", user=nobody, group=nobody, extra_groups=[],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    if not Path(interpreter).exists() or call("-c", "import fleet, pydantic").returncode != 0:
        pytest.skip("another user can reach no Python of this version with our packages")
    with state_folder() as folder:
        os.chown(folder.parent, nobody, nobody)
        done = call("-m", "tests.support.sandbox_cancels", str(folder), str(count))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.rule("RC-24")
@pytest.mark.slow
@pytest.mark.skipif(not is_root(), reason="only root can start a supervisor as another user")
async def test_cancels_at_random_moments_leave_nothing_of_an_ordinary_user() -> None:
    assert await asyncio.to_thread(cancels_of_an_ordinary_user, 200) == {"status": "ok", "left": []}


@pytest.mark.rule("RC-24")
async def test_cancelled_command_gets_its_time_to_tidy_up(backend: BubblewrapBackend) -> None:
    lines: list[LogLine] = []
    code = "trap 'echo tidy; exit 3' TERM; echo up; while :; do sleep 0.05; done"
    spec = RunSpec(argv=("/bin/bash", "-c", code), limits=SMALL)
    task = asyncio.create_task(backend.run(spec, run_id="rn-tidy", log=lines.append))
    await eventually(lambda: [line.line for line in lines] == ["up"], within_s=20)
    assert await backend.cancel("rn-tidy")
    result = await task

    assert (result.status, result.reason, result.exit_code) == ("cancelled", "cancelled", 3)
    assert [line.line for line in lines] == ["up", "tidy"]


@pytest.mark.check("36", "38")
@pytest.mark.rule("RC-24")
@pytest.mark.parametrize("code", ["trap '' TERM; echo up; while :; do sleep 0.05; done", STOPPED])
async def test_cancelled_command_that_does_not_end_is_killed_after_its_grace(
    backend: BubblewrapBackend, code: str
) -> None:
    lines: list[LogLine] = []
    spec = RunSpec(argv=("/bin/bash", "-c", code), limits=SMALL.model_copy(update={"grace_s": 1}))
    task = asyncio.create_task(backend.run(spec, run_id="rn-stubborn", log=lines.append))
    await eventually(lambda: bool(lines), within_s=20)
    begun = asyncio.get_running_loop().time()
    await backend.cancel("rn-stubborn")
    result = await task

    assert (result.reason, result.exit_code) == ("cancelled", 137)
    assert asyncio.get_running_loop().time() - begun >= 0.9


@pytest.mark.rule("RC-24", "RC-30")
async def test_cancelled_command_that_prints_too_much_in_its_grace_is_killed_at_once(
    backend: BubblewrapBackend,
) -> None:
    lines: list[LogLine] = []
    limits = SMALL.model_copy(update={"grace_s": 200, "output_bytes": 4096})
    spec = RunSpec(argv=("/bin/bash", "-c", "trap 'yes' TERM; echo up; sleep 20 & wait"), limits=limits)
    task = asyncio.create_task(backend.run(spec, run_id="rn-loud", log=lines.append))
    await eventually(lambda: bool(lines), within_s=20)
    await backend.cancel("rn-loud")
    result = await asyncio.wait_for(task, 15)

    assert (result.reason, result.exit_code) == ("cancelled", 137)


# Signals.

OF_THE_C_LIBRARY = {32, 33}
"""It keeps them for its threads, blocks or ignores them for a child now and then, and lets no program set them."""


def mask_of(hexadecimal: str) -> set[int]:
    """The numbers of the signals in a mask of `/proc/PID/status`."""
    mask = int(hexadecimal, 16)
    return {number + 1 for number in range(64) if mask >> number & 1}


@pytest.mark.rule("RC-24")
async def test_command_finds_no_signal_ignored_or_blocked_that_its_supervisor_ignores_or_blocks(
    backend: BubblewrapBackend,
) -> None:
    names = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {name: signal.signal(name, signal.SIG_IGN) for name in names}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGTERM})
    try:
        result = await run(backend, "/bin/grep", "-E", "^Sig(Ign|Blk):", "/proc/self/status")
        missing = await run(backend, "no-such-program")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, handler in before.items():
            signal.signal(name, handler)

    blocked_name, blocked, ignored_name, ignored = result.stdout.text.split()
    assert (blocked_name, ignored_name) == ("SigBlk:", "SigIgn:")
    assert mask_of(blocked) - OF_THE_C_LIBRARY == set()
    assert mask_of(ignored) - OF_THE_C_LIBRARY == set()
    assert (missing.reason, missing.exit_code) == ("config", 127)


@pytest.mark.rule("RC-24")
async def test_cancelled_command_of_a_supervisor_that_ignores_sigterm_ends_in_its_grace(
    backend: BubblewrapBackend,
) -> None:
    lines: list[LogLine] = []
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        spec = RunSpec(argv=("/bin/bash", "-c", "echo up; exec sleep 600"), limits=SMALL)
        task = asyncio.create_task(backend.run(spec, run_id="rn-ignored", log=lines.append))
        await eventually(lambda: bool(lines), within_s=20)
        await backend.cancel("rn-ignored")
        result = await asyncio.wait_for(task, 8)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert (result.reason, result.exit_code) == ("cancelled", 143)


# Limits by cgroups, and without.


@pytest.mark.check("31")
@pytest.mark.rule("RC-30")
async def test_limits_hold_where_no_cgroup_can_be_made(state_root: Path, blobs: MemoryBlobStore) -> None:
    plain = BubblewrapBackend(state_root, blobs, use_cgroups=False)
    health = await plain.health()
    limits = SMALL.model_copy(update={"memory_bytes": 100 << 20})
    result = await run(plain, "python", "-c", "x = b'x' * (200 << 20)\nimport time; time.sleep(9)", limits=limits)

    assert (health.status, health.enforced["memory"], health.enforced["pids"]) == ("ok", "watchdog", "rlimit")
    assert (result.reason, result.limits["memory"], result.limits["cpu"]) == ("oom_killed", "watchdog", "rlimit+nice")


UNCOUNTED = {
    "memfd": "files = []\nfor _ in range(96): files.append(os.memfd_create('x')); os.write(files[-1], bytes(4 << 20))",
    "shm": "i = libc.shmget(0, 200 << 20, 0o1600)\nif i < 0: raise OSError(ctypes.get_errno())\n"
    "libc.shmat.restype = ctypes.c_void_p; ctypes.memset(libc.shmat(i, None, 0), 1, 200 << 20)",
    "msg": "i = libc.msgget(0, 0o1600)\nif i < 0: raise OSError(ctypes.get_errno())",
}


@pytest.mark.check("31")
@pytest.mark.rule("RC-30")
@pytest.mark.parametrize("kind", UNCOUNTED)
async def test_memory_that_belongs_to_no_process_cannot_be_had_where_no_cgroup_counts_it(
    kind: str, state_root: Path, blobs: MemoryBlobStore
) -> None:
    plain = BubblewrapBackend(state_root, blobs, use_cgroups=False)
    code = f"import ctypes, os, time\nlibc = ctypes.CDLL(None, use_errno=True)\n{UNCOUNTED[kind]}\ntime.sleep(1)"
    result = await run(plain, "python", "-c", code, limits=SMALL.model_copy(update={"memory_bytes": 100 << 20}))

    assert (result.status, result.exit_code) == ("failed", 1)
    assert "OSError" in result.stderr.text


@pytest.mark.check("31")
@pytest.mark.rule("RC-16", "RC-30")
@pytest.mark.skipif("memory" not in find_parents(), reason="no memory cgroup can be made here")
async def test_child_that_the_kernel_killed_for_its_memory_ends_the_run(backend: BubblewrapBackend) -> None:
    code = "python -c \"x = b'x' * (300 << 20)\"; exit 0"
    result = await run(backend, "bash", "-c", code, limits=SMALL.model_copy(update={"memory_bytes": 100 << 20}))

    assert (result.reason, result.limits["memory"]) == ("oom_killed", "cgroup")
    assert result.usage.max_memory_bytes > 90 << 20


@pytest.mark.check("S13")
@pytest.mark.rule("RC-30")
@pytest.mark.skipif("cpu" not in find_parents(), reason="no cpu cgroup can be made here")
async def test_processor_time_is_limited_by_its_cgroup(backend: BubblewrapBackend) -> None:
    code = (
        "import time\nbegun = time.monotonic()\nused = time.process_time()\n"
        "while time.monotonic() < begun + 1: pass\nprint(time.process_time() - used)"
    )
    result = await run(backend, "python", "-c", code, limits=SMALL.model_copy(update={"cpu_millis": 200}))

    assert float(result.stdout.text) < 0.5


# What the command is given, and what is said of it.


@pytest.mark.check("S1")
async def test_command_starts_in_its_folder_and_reads_its_input(
    backend: BubblewrapBackend, blobs: MemoryBlobStore
) -> None:
    tree = await put_tree(blobs, {"src/pkg/a.py": b"a = 1\n"})
    data = bytes(range(256)) * 3_000
    stdin = await blobs.put(data)
    result = await run(backend, "bash", "-c", "ls; pwd; sha256sum", tree=tree, cwd="src/pkg", stdin=stdin)

    assert result.stdout.text == f"a.py\n/workspace/src/pkg\n{digest_of(data).hex}  -\n"


@pytest.mark.check("S1")
@pytest.mark.parametrize("cwd", ["missing", "file", "link"])
async def test_check_s1_missing_folder_is_a_typed_result(
    backend: BubblewrapBackend, blobs: MemoryBlobStore, cwd: str
) -> None:
    tree = await put_tree(blobs, {"file": b"", "link": ("120000", b"/etc")})
    result = await run(backend, "true", tree=tree, cwd=cwd)

    assert (result.status, result.reason, result.exit_code) == ("error", "config", None)
    assert result.limits == {"cwd": "bad_cwd"}
    assert repr(cwd) in result.stderr.text


@pytest.mark.check("S28")
@pytest.mark.parametrize("cwd", ["..", "/etc", "a/../..", ""])
async def test_folder_outside_of_the_workspace_is_refused(backend: BubblewrapBackend, cwd: str) -> None:
    with pytest.raises(InvalidInput):
        await run(backend, "true", cwd=cwd)


@pytest.mark.check("S1")
async def test_check_s1_input_over_ten_megabytes_is_refused(backend: BubblewrapBackend, blobs: MemoryBlobStore) -> None:
    with pytest.raises(InvalidInput, match="stdin"):
        await run(backend, "true", stdin=await blobs.put(b"x" * 10_000_001))


def secret(text: str) -> SecretValue:
    return SecretValue(text, name="deploy-token", provider="test", version=None, ttl_s=60)


LEAK = """
import os, stat, sys, time
path = sys.argv[1]
value = open(path).read()
mode = oct(stat.S_IMODE(os.stat(path).st_mode))
print(mode, os.environ['TOKEN'] == value, open('/proc/1/environ').read() == '', flush=True)
try: open(path + '2', 'w'); print('written')
except OSError: pass
for piece in (value[:7], value[7:] + chr(10)):
    os.write(1, piece.encode()); time.sleep(0.1)
os.write(2, value.encode())
"""


@pytest.mark.check("S10")
@pytest.mark.rule("RC-35", "RT-65")
async def test_secrets_reach_the_command_and_are_taken_out_of_all_that_it_prints(
    backend: BubblewrapBackend, blobs: MemoryBlobStore, state_root: Path
) -> None:
    value, path = f"planted-{secrets.token_hex(8)}", "/run/secrets/deploy-token"
    lines: list[LogLine] = []
    seen_outside: list[Path] = []
    reference = "secret://deploy-token"
    spec = RunSpec(argv=("python", "-c", LEAK, reference), env={"TOKEN": reference}, limits=SMALL)
    delivery = SecretDelivery(("python", "-c", LEAK, path), {}, {"TOKEN": secret(value)}, {path: secret(value)})
    task = asyncio.create_task(backend.run(spec, run_id="rn-secret", log=lines.append, secrets=delivery))
    while not task.done():
        places = [*Path("/proc").glob("[0-9]*/cmdline"), *below(state_root / "runs")]
        seen_outside += [place for place in places if value in text_of(place)]
        await asyncio.sleep(0.02)
    result = await task

    assert result.stdout.text == f"0o400 True True\n{KNOWN_SECRET}\n", result.stderr.text
    assert result.stderr.text == KNOWN_SECRET
    assert seen_outside == []
    kept = [await blobs.get(d) for d in (result.log, result.stdout.blob, result.stderr.blob) if d]
    assert len(kept) == 3
    assert all(value[8:].encode() not in data for data in kept)
    assert sorted(line.line for line in lines) == sorted(["0o400 True True", KNOWN_SECRET, KNOWN_SECRET])
    assert [LogLine.model_validate_json(row) for row in kept[0].splitlines()] == lines


def below(folder: Path) -> list[Path]:
    """The files there now. A search that meets a folder which is just being removed fails; this one leaves it out."""
    return [Path(place, name) for place, _, names in os.walk(folder) for name in names]


def text_of(path: Path) -> str:
    try:
        return path.read_text(errors="replace") if path.is_file() else ""
    except OSError:
        return ""


@pytest.mark.rule("RT-65")
@pytest.mark.parametrize(
    "delivery",
    [
        None,
        SecretDelivery(("true",), {}, {}, {}),
        SecretDelivery(("true",), {}, {"TOKEN": secret("x"), "OTHER": secret("y")}, {}),
        SecretDelivery(("true",), {}, {"TOKEN": secret("x")}, {"/etc/passwd": secret("y")}),
    ],
    ids=["none", "empty", "more", "file"],
)
async def test_run_with_other_secrets_than_it_refers_to_is_refused(
    backend: BubblewrapBackend, delivery: SecretDelivery | None
) -> None:
    spec = RunSpec(argv=("true",), env={"TOKEN": "secret://deploy-token"}, limits=SMALL)
    with pytest.raises(InvalidInput, match="secrets"):
        await backend.run(spec, run_id="rn-none", secrets=delivery)
