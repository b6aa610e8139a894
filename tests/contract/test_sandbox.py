"""The suite of the port SandboxBackend, on the scripted twin, bubblewrap, containers and Jobs.

The twin runs no program, so what needs an operating system (limits, isolation, links, modes) is in the suites
`test_sandbox_bubblewrap.py` and `test_sandbox_containment.py`, on the real backend alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
import pytest_asyncio

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import ArtifactNotFound, InvalidInput
from fleet.policy.runs.log_lines import LogLine
from fleet.policy.runs.spec import BlobMount, Limits, RunResult, RunSpec
from fleet.redaction.known_values import KNOWN_SECRET
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.backends.containers.backend import ContainerBackend
from fleet.sandbox.memory import MemorySandboxBackend
from fleet.sandbox.port import SandboxBackend
from fleet.secrets.port import SecretDelivery, SecretValue
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.tree import decode_tree
from tests.support.kubernetes_jobs import FakeCluster, FakeNode, kubernetes_on, serving_cluster
from tests.support.sandbox import SMALL, argv_of, put_tree, scripted, state_folder

WIDE = [pytest.param(name, marks=pytest.mark.wide) for name in ("podman", "docker", "kubernetes")]
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def state_root() -> Generator[Path]:
    with state_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def blobs() -> MemoryBlobStore:
    return MemoryBlobStore()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["memory", "bubblewrap", *WIDE])
async def backend(
    request: pytest.FixtureRequest, state_root: Path, blobs: MemoryBlobStore
) -> AsyncGenerator[SandboxBackend]:
    if request.param == "memory":
        yield MemorySandboxBackend(scripted, blobs)
        return
    if request.param == "kubernetes":
        async with serving_cluster(FakeCluster(FakeNode(state_root / "node"))) as url:
            yield kubernetes_on(url, state_root / "kubernetes", blobs)
        return
    if request.param == "bubblewrap":
        real: SandboxBackend = BubblewrapBackend(state_root, blobs)
    else:
        if request.param == "docker":
            request.getfixturevalue("docker")
        real = ContainerBackend(request.param, state_root, blobs)
    health = await real.health()
    if health.status == "down":
        pytest.skip(f"no sandbox can be built here: {'; '.join((*health.unmet, *health.mend))}")
    yield real


async def run(backend: SandboxBackend, name: str, **fields: object) -> RunResult:
    spec = RunSpec.model_validate({"argv": argv_of(name), "limits": SMALL, **fields})
    return await backend.run(spec, run_id=f"rn-{name}")


@pytest.mark.rule("RC-13")
async def test_run_of_a_program_that_ends_well_passes(backend: SandboxBackend) -> None:
    result = await run(backend, "hello")

    assert (result.status, result.reason, result.exit_code) == ("passed", "ok", 0)
    assert (result.stdout.text, result.stderr.text) == ("hello\n", "")
    assert result.tree_out is None


@pytest.mark.check("S19", "41")
@pytest.mark.rule("RC-14")
@pytest.mark.parametrize(("name", "reason", "code"), [("fail", "exit_nonzero", 3), ("killed", "signal", 137)])
async def test_run_of_a_program_that_fails_is_a_result(
    backend: SandboxBackend, name: str, reason: str, code: int
) -> None:
    result = await run(backend, name)

    assert (result.status, result.reason, result.exit_code) == ("failed", reason, code)


@pytest.mark.check("S1")
async def test_run_of_a_missing_program_is_a_typed_result_with_127(backend: SandboxBackend) -> None:
    result = await backend.run(RunSpec(argv=("no-such-program",), limits=SMALL), run_id="rn-missing")

    assert (result.status, result.reason, result.exit_code) == ("error", "config", 127)
    assert result.limits["program"] == "not_found"


@pytest.mark.rule("RC-15")
async def test_run_that_refused_its_configuration_is_an_error(backend: SandboxBackend) -> None:
    result = await run(backend, "config")

    assert (result.status, result.reason, result.exit_code) == ("error", "config", 2)


@pytest.mark.rule("RC-17")
async def test_run_past_its_time_ends_as_timeout(backend: SandboxBackend) -> None:
    result = await run(backend, "forever", limits=Limits(overall_s=1))

    assert (result.status, result.reason, result.exit_code) == ("timeout", "timeout", 137)


@pytest.mark.rule("RC-16")
async def test_run_that_prints_too_much_ends_as_output_limit(backend: SandboxBackend) -> None:
    result = await run(backend, "flood", limits=Limits(output_bytes=100_000))

    assert (result.status, result.reason) == ("failed", "output_limit")
    assert result.stdout.head.startswith("xxx")


async def test_output_between_the_caps_is_cut_in_the_middle_and_whole_in_the_blob(
    backend: SandboxBackend, blobs: MemoryBlobStore
) -> None:
    result = await run(backend, "flood")

    assert result.stdout.truncated
    assert (result.stdout.total_bytes, len(result.stdout.head), len(result.stdout.tail)) == (200_001, 32768, 32768)
    assert result.stdout.blob is not None
    assert len(await blobs.get(result.stdout.blob)) == 200_001


@pytest.mark.check("S19")
@pytest.mark.rule("RC-18")
async def test_cancelled_run_ends_as_cancelled(backend: SandboxBackend) -> None:
    task = asyncio.create_task(run(backend, "forever"))
    cancelled: list[bool] = []

    async def cancel() -> None:
        while not (cancelled and cancelled[-1]):
            cancelled.append(await backend.cancel("rn-forever"))
            await asyncio.sleep(0.01)

    await asyncio.wait_for(cancel(), 10)
    result = await task

    assert (result.status, result.reason) == ("cancelled", "cancelled")


async def test_cancel_of_an_unknown_run_is_false(backend: SandboxBackend) -> None:
    assert await backend.cancel("rn-unknown") is False


async def test_run_whose_task_is_cancelled_is_gone_afterwards(backend: SandboxBackend) -> None:
    task = asyncio.create_task(run(backend, "forever"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await backend.cancel("rn-forever") is False


async def test_second_run_of_one_id_is_refused(backend: SandboxBackend) -> None:
    task = asyncio.create_task(run(backend, "forever"))
    seen: list[BaseException] = []

    async def second() -> None:
        while not seen:
            try:
                await asyncio.wait_for(run(backend, "forever"), 0.2)
            except (InvalidInput, TimeoutError) as error:
                seen.extend([error] if isinstance(error, InvalidInput) else [])

    await asyncio.sleep(0)
    await second()
    await backend.cancel("rn-forever")
    await task

    assert isinstance(seen[0], InvalidInput)


@pytest.mark.rule("RC-36")
async def test_run_starts_from_its_tree_and_leaves_another(backend: SandboxBackend, blobs: MemoryBlobStore) -> None:
    tree = await put_tree(blobs, {"old.txt": b"text", "src/keep.py": b"x = 1\n"})
    read = await run(backend, "read", tree=tree)
    wrote = await run(backend, "write", tree=tree, keep_tree=True)

    assert read.stdout.text == "text"
    assert (wrote.tree_in, wrote.reason) == (tree, "ok")
    assert wrote.tree_out is not None
    after = decode_tree(await blobs.get(wrote.tree_out))
    assert set(after) == {"made.txt", "src/keep.py"}
    assert await blobs.get(after["made.txt"].blob) == b"new"


@pytest.mark.rule("RC-36")
async def test_failed_run_leaves_the_tree_that_it_made(backend: SandboxBackend, blobs: MemoryBlobStore) -> None:
    tree = await put_tree(blobs, {"old.txt": b"text"})
    result = await run(backend, "fail and write", tree=tree, keep_tree=True)

    assert (result.status, result.tree_in) == ("failed", tree)
    assert result.tree_out not in (None, tree)
    after = decode_tree(await blobs.get(result.tree_out))  # type: ignore[arg-type]
    assert set(after) == {"old.txt", "made.txt"}


@pytest.mark.rule("RC-36", "RC-24")
async def test_cancelled_run_returns_to_its_tree(backend: SandboxBackend, blobs: MemoryBlobStore) -> None:
    tree = await put_tree(blobs, {"old.txt": b"text"})
    task = asyncio.create_task(run(backend, "forever", tree=tree, keep_tree=True))
    while not await backend.cancel("rn-forever"):
        await asyncio.sleep(0.05)
    result = await task

    assert (result.status, result.tree_out) == ("cancelled", tree)


@pytest.mark.rule("RC-23")
async def test_artifacts_are_stored_and_missing_ones_listed(backend: SandboxBackend, blobs: MemoryBlobStore) -> None:
    tree = await put_tree(blobs, {"old.txt": b""})
    result = await run(backend, "write", tree=tree, artifacts=("out/summary.json", "out", "made.txt", "gone.xml"))

    found = {a.path: a.blob for a in result.artifacts}
    assert found == {"out/summary.json": digest_of(b"{}"), "made.txt": digest_of(b"new"), "gone.xml": None}
    assert result.artifact("gone.xml") is None


async def test_mounted_blob_is_a_file_below_inputs(backend: SandboxBackend, blobs: MemoryBlobStore) -> None:
    blob = await blobs.put(b"given")
    result = await run(backend, "input", mounts=[BlobMount(blob=blob, target="/inputs/data")])

    assert result.stdout.text == "given"


async def test_variable_of_the_request_arrives(backend: SandboxBackend) -> None:
    assert (await run(backend, "variable", env={"TASK": "unit"})).stdout.text == "unit"


@pytest.mark.check("44")
@pytest.mark.rule("RC-3")
@pytest.mark.parametrize(
    "env",
    [
        {"LD_PRELOAD": "x"},
        {"HTTP_PROXY": "x"},
        {"PATH": "/workspace"},
        {"BASH_ENV": "x"},
        {"A": "x" * 9000},
        {"A": "nul\0"},
        {f"V{n}": "" for n in range(65)},
    ],
    ids=["loader", "proxy", "fixed", "shell", "long", "nul", "many"],
)
async def test_forbidden_variables_are_refused(backend: SandboxBackend, env: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        await run(backend, "hello", env=env)


@pytest.mark.check("S28")
@pytest.mark.parametrize(
    "fields",
    [
        {"argv": ("x\0y",)},
        {"argv": ("",)},
        {"argv": ("x", "y" * (200 << 10))},
        {"artifacts": ("../etc/passwd",)},
        {"artifacts": ("/etc/passwd",)},
        {"toolchain": "cobol"},
        {"mounts": [BlobMount(blob=digest_of(b""), target="/inputs/..")]},
        {"mounts": [BlobMount(blob=digest_of(b""), target="/inputs/a")] * 2},
    ],
    ids=["nul", "empty", "long", "up", "absolute", "toolchain", "dots", "twice"],
)
async def test_impossible_requests_are_refused(backend: SandboxBackend, fields: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        await run(backend, "hello", **fields)


@pytest.mark.rule("RC-22", "RC-35")
async def test_lines_are_told_and_kept_as_ndjson(backend: SandboxBackend, blobs: MemoryBlobStore) -> None:
    lines: list[LogLine] = []
    spec = RunSpec(argv=argv_of("hello"), limits=SMALL)
    result = await backend.run(spec, run_id="rn-lines", log=lines.append)

    assert [(line.n, line.stream, line.line) for line in lines] == [(1, "stdout", "hello")]
    assert result.log is not None
    assert [LogLine.model_validate_json(row) for row in (await blobs.get(result.log)).splitlines()] == lines


@pytest.mark.rule("RC-35", "RT-65")
async def test_secret_reaches_the_command_and_is_taken_out_of_its_output(backend: SandboxBackend) -> None:
    value = SecretValue("planted-value", name="token", provider="test", version=None, ttl_s=60)
    lines: list[LogLine] = []
    spec = RunSpec(argv=argv_of("variable"), env={"TASK": "secret://token"}, limits=SMALL)
    delivery = SecretDelivery(spec.argv, {}, {"TASK": value}, {})
    result = await backend.run(spec, run_id="rn-secret", log=lines.append, secrets=delivery)

    assert (result.reason, result.stdout.text) == ("ok", KNOWN_SECRET)
    assert [line.line for line in lines] == [KNOWN_SECRET]


@pytest.mark.check("S1")
async def test_check_s1_missing_folder_is_a_typed_result(backend: SandboxBackend) -> None:
    result = await run(backend, "hello", cwd="missing")

    assert (result.status, result.reason, result.exit_code) == ("error", "config", None)
    assert result.limits["cwd"] == "bad_cwd"


@pytest.mark.rule("RC-9")
async def test_run_of_an_unknown_tree_is_not_found(backend: SandboxBackend) -> None:
    with pytest.raises(ArtifactNotFound):
        await run(backend, "hello", tree=digest_of(b"never stored"))


async def test_health_names_what_is_not_held(backend: SandboxBackend) -> None:
    health = await backend.health()

    assert health.status in ("ok", "degraded")
    assert len(health.unmet) == 0 or len(health.mend) > 0


async def test_sweep_of_a_clean_node_removes_nothing(backend: SandboxBackend) -> None:
    assert await backend.sweep() == 0


async def test_runs_go_side_by_side(backend: SandboxBackend) -> None:
    spec = RunSpec(argv=argv_of("hello"), limits=SMALL)
    results = await asyncio.gather(*(backend.run(spec, run_id=f"rn-{n}") for n in range(6)))

    assert [r.stdout.text for r in results] == ["hello\n"] * 6
