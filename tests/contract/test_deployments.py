"""The port Deployments: what runs in an environment, what a rollback goes back to, what is seen of it (LC-49)."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio

from fleet.deploy.local.environments import ProcessDeployments
from fleet.deploy.memory import MemoryDeployments
from fleet.deploy.port import Deployments, EndedRevision, Occupancy, Placed, Standing
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ConfigError, StoreUnavailable
from fleet.kernel.ids import Digest, RunKey, StoryId
from fleet.policy.deploy import DeployTarget, HealthCheckSpec, HealthSample
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.trees.memory import MemoryBlobStore
from tests.support.deployed import app, free_port, target_of
from tests.support.kubernetes_targets import IMAGE, NAMESPACE, TargetCluster, deployments_in, serving_targets
from tests.support.sandbox import eventually, put_tree, state_folder, survivors

pytestmark = pytest.mark.asyncio(loop_scope="module")

STORY = StoryId("st-deployed")


@dataclass
class World:
    """One adapter, and the trees that it runs."""

    now: Deployments
    blobs: MemoryBlobStore
    in_cluster: bool = False
    programs: dict[RunKey, bytes] = field(default_factory=dict)

    async def placed(self, program: bytes, **fields: object) -> Placed:
        if self.in_cluster:
            fields = {"kind": "kubernetes", "kubernetes": {"namespace": NAMESPACE, "image": IMAGE}} | fields
        return await self._of(program, target_of(f"env-{secrets.token_hex(4)}", **fields))

    async def another(self, placed: Placed, program: bytes, **fields: object) -> Placed:
        return await self._of(program, placed.target.model_copy(update=fields))

    async def _of(self, program: bytes, target: DeployTarget) -> Placed:
        tree, key = await put_tree(self.blobs, {"app.py": program}), RunKey(secrets.token_hex(32))
        self.programs[key] = program
        return Placed(key, STORY, tree, "python", target)

    async def reached(self, port: int) -> bytes | None:
        """The program that people reach by this port; None where nobody answers."""
        if isinstance(self.now, MemoryDeployments):
            found = self.now.reached(port)
            return self.programs[found.key] if found else None
        try:
            return app(said=await got(port))
        except httpx2.ConnectError:
            return None


@pytest.fixture(scope="module")
def state_root() -> Generator[Path]:
    with state_folder() as folder:
        yield folder


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["memory", "process", "kubernetes"])
async def world(request: pytest.FixtureRequest, state_root: Path) -> AsyncGenerator[World]:
    blobs = MemoryBlobStore()
    if request.param == "kubernetes":
        async with serving_targets(TargetCluster(root=state_root / "cluster")) as url:
            yield World(deployments_in(url, state_root / "account", blobs), blobs, in_cluster=True)
        return
    if request.param == "memory":
        yield World(MemoryDeployments(starts=await _starts(blobs), looks=await _looks(blobs)), blobs)
        return
    real = ProcessDeployments(await _backend(state_root, blobs), SystemClock(), state_root / "deployments")
    yield World(real, blobs)
    await real.close()


async def _backend(state_root: Path, blobs: MemoryBlobStore) -> BubblewrapBackend:
    backend = BubblewrapBackend(state_root, blobs)
    health = await backend.health()
    if health.status == "down":
        pytest.skip(f"no sandbox can be built here: {'; '.join((*health.unmet, *health.mend))}")
    return backend


async def _starts(blobs: MemoryBlobStore) -> Callable[[Digest], str | None]:
    broken = await put_tree(blobs, {"app.py": app(starts=False)})
    return lambda tree: "the program ended with 3: ERROR no database" if tree == broken else None


async def _looks(blobs: MemoryBlobStore) -> Callable[[Digest, HealthCheckSpec], HealthSample]:
    ill = await put_tree(blobs, {"app.py": app(well=False, errors=3)})

    def look(tree: Digest, check: HealthCheckSpec) -> HealthSample:
        if tree != ill or check.kind == "command":
            return HealthSample(0.0, "well")
        return (
            HealthSample(1.0, "status 503 from /healthz")
            if check.kind == "http"
            else HealthSample(3.0, "ERROR number 0")
        )

    return look


def needs_doors(world: World) -> None:
    """Of ports of the node; tests/contract/test_deployments_kubernetes.py has the same of the Service of a cluster."""
    if world.in_cluster:
        pytest.skip("people reach a program of a cluster by its Service")


def check(kind: str, target: str, threshold: float = 0) -> HealthCheckSpec:
    return HealthCheckSpec.model_validate({"name": "seen", "kind": kind, "target": target, "threshold": threshold})


ALIVE = check("http", "/healthz")


async def test_program_that_becomes_ready_runs_and_is_known_by_its_key(world: World) -> None:
    placed = await world.placed(app())
    name = placed.target.environment
    assert await world.now.standing(name) == Standing("nothing")

    assert await world.now.deploy(placed) == Standing("running", key=placed.key)

    assert await world.now.standing(name) == Standing("running", key=placed.key)
    assert (await world.now.sample(name, ALIVE)).value == 0


async def test_key_that_runs_already_changes_nothing(world: World) -> None:
    placed = await world.placed(app())
    first = await world.another(placed, app(said="first"))
    await world.now.deploy(first)
    await world.now.deploy(placed)
    assert await world.now.deploy(placed) == Standing("running", key=placed.key, previous=first.key)


@pytest.mark.rule("LC-43")
async def test_program_that_does_not_start_fails_with_what_it_said_and_the_one_before_runs_on(world: World) -> None:
    good = await world.placed(app())
    await world.now.deploy(good)
    broken = await world.another(good, app(starts=False))

    failed = await world.now.deploy(broken)

    assert (failed.status, failed.key) == ("failed", good.key)
    assert "ended with 3" in failed.detail
    assert "no database" in failed.detail
    assert (await world.now.sample(good.target.environment, ALIVE)).value == 0


async def test_rollback_goes_back_to_what_ran_before_and_then_to_nothing(world: World) -> None:
    first = await world.placed(app())
    second = await world.another(first, app(well=False, errors=3))
    name = first.target.environment
    await world.now.deploy(first)
    await world.now.deploy(second)
    assert (await world.now.sample(name, ALIVE)).value == 1

    assert await world.now.roll_back(name, failed=second.key) == Standing("running", key=first.key)
    assert (await world.now.sample(name, ALIVE)).value == 0
    assert await world.now.roll_back(name, failed=second.key) == Standing("running", key=first.key)
    assert await world.now.roll_back(name, failed=first.key) == Standing("nothing")
    assert (await world.now.sample(name, ALIVE)).value > 0


@pytest.mark.rule("LC-43")
@pytest.mark.parametrize("expose", ["same", "other", "none"])
async def test_failed_deployment_leaves_people_at_what_still_runs(world: World, expose: str) -> None:
    needs_doors(world)
    first, port, other = app(said="first"), free_port(), free_port()
    good = await world.placed(first, expose=port)
    await world.now.deploy(good)
    broken = await world.another(good, app(starts=False), expose={"same": port, "other": other, "none": None}[expose])

    assert (await world.now.deploy(broken)).status == "failed"

    assert await world.reached(port) == first
    assert await world.reached(other) is None


@pytest.mark.rule("LC-43")
async def test_first_deployment_that_fails_leaves_no_door_open(world: World) -> None:
    needs_doors(world)
    placed = await world.placed(app(starts=False), expose=(port := free_port()))
    assert (await world.now.deploy(placed)).status == "failed"
    assert await world.reached(port) is None


async def test_door_moves_with_what_runs(world: World) -> None:
    needs_doors(world)
    first, second = app(said="first"), app(said="second")
    before = await world.placed(first, expose=(port := free_port()))
    after = await world.another(before, second, expose=(other := free_port()))
    await world.now.deploy(before)

    await world.now.deploy(after)
    assert (await world.reached(port), await world.reached(other)) == (None, second)

    await world.now.roll_back(before.target.environment, failed=after.key)
    assert (await world.reached(port), await world.reached(other)) == (first, None)

    await world.now.stop(before.target.environment)
    assert await world.reached(port) is None


@pytest.mark.rule("LC-49")
@pytest.mark.parametrize(
    ("kind", "target", "value", "detail"),
    [
        ("http", "/healthz", 1, "503"),
        ("metric", "/metrics#errors_total", 3, ""),
        ("log_pattern", "^ERROR number", 3, "ERROR number 0"),
        ("command", "python -c 'import sys; sys.exit(0)'", 0, ""),
    ],
)
async def test_each_kind_of_check_tells_its_number(
    world: World, kind: str, target: str, value: float, detail: str
) -> None:
    placed = await world.placed(app(well=False, errors=3))
    await world.now.deploy(placed)

    seen = await world.now.sample(placed.target.environment, check(kind, target))

    assert seen.value == value, seen
    assert detail in seen.detail


async def test_stopped_environment_is_empty_and_stopping_it_again_changes_nothing(world: World) -> None:
    placed = await world.placed(app())
    await world.now.deploy(placed)
    for _ in range(2):
        await world.now.stop(placed.target.environment)
        assert await world.now.standing(placed.target.environment) == Standing("nothing")


async def test_occupancy_says_what_runs_since_when_and_whether_it_answers(world: World) -> None:
    first = await world.placed(app())
    second = await world.another(first, app(said="second"))
    name = first.target.environment
    assert await world.now.occupancy(name) == Occupancy()
    await world.now.deploy(first)
    began = await world.now.occupancy(name)
    assert (began.running, began.previous, began.ended) == (first, None, None)
    assert began.answers
    await world.now.deploy(second)
    found = await world.now.occupancy(name)
    assert (found.running, found.previous) == (second, first.key)
    assert found.since_ms >= began.since_ms > 0


@pytest.mark.rule("LC-49")
async def test_person_ends_what_is_named_alone_and_who_did_it_is_kept(world: World) -> None:
    first = await world.placed(app())
    second = await world.another(first, app(said="second"))
    name = first.target.environment
    await world.now.deploy(first)
    await world.now.deploy(second)

    assert (await world.now.stop(name, only=first.key, told="user:ana stopped it")).key == second.key
    assert (await world.now.occupancy(name)).ended is None
    await world.now.roll_back(name, failed=second.key, told="user:ana rolled it back")
    await world.now.roll_back(name, failed=second.key, told="user:dev came too late")
    found = await world.now.occupancy(name)
    assert (found.running, found.ended) == (first, EndedRevision(second.key, "user:ana rolled it back"))

    assert await world.now.stop(name, only=first.key, told="user:ana stopped it") == Standing("nothing")
    assert await world.now.occupancy(name) == Occupancy(ended=EndedRevision(first.key, "user:ana stopped it"))
    await world.now.deploy(second)
    assert (await world.now.occupancy(name)).ended == EndedRevision(first.key, "user:ana stopped it")


# What only real programs do.


@dataclass
class Programs:
    """The environments of one test, and those that a process finds which comes after."""

    world: World
    backend: BubblewrapBackend
    root: Path

    def again(self, *declared: str) -> ProcessDeployments:
        return ProcessDeployments(self.backend, SystemClock(), self.root, declared=declared)


@pytest_asyncio.fixture(loop_scope="module")
async def programs(state_root: Path) -> AsyncGenerator[Programs]:
    blobs = MemoryBlobStore()
    backend, root = await _backend(state_root, blobs), state_root / secrets.token_hex(4)
    now = ProcessDeployments(backend, SystemClock(), root)
    yield Programs(World(now, blobs), backend, root)
    await now.close()


async def test_what_was_to_run_runs_again_after_a_restart_with_what_it_goes_back_to(programs: Programs) -> None:
    world = programs.world
    first = await world.placed(app(said="first"), port=(port := free_port()))
    second = await world.another(first, app(said="second"))
    name, running = first.target.environment, f"serve_app.py\0{port}"
    await world.now.deploy(first)
    await world.now.deploy(second)
    assert len(survivors(running)) > 0
    assert isinstance(world.now, ProcessDeployments)
    await world.now.close()

    other = programs.again("another")
    await other.resume()
    assert survivors(running) == [], "what is declared no more does not come back"

    found = programs.again(name)
    try:
        await found.resume()
        await eventually(lambda: survivors(running) != [])
        assert await found.standing(name) == Standing("running", key=second.key, previous=first.key)
        assert (await found.sample(name, ALIVE)).value == 0
        assert (await found.occupancy(name)).since_ms > 0
        assert (await found.roll_back(name, failed=second.key, told="user:ana did")).key == first.key
        assert (await programs.again(name).occupancy(name)).ended == EndedRevision(second.key, "user:ana did")
    finally:
        await found.close()


async def test_file_of_an_environment_that_says_nothing_is_named(programs: Programs) -> None:
    programs.root.mkdir()
    (programs.root / "broken.json").write_text("{")
    with pytest.raises(StoreUnavailable, match=r"broken.json does not say what runs in broken"):
        await programs.world.now.standing("broken")


@pytest.mark.rule("LC-43")
async def test_deployment_that_cannot_be_written_down_leaves_nothing_of_itself(programs: Programs) -> None:
    world, first, port, door = programs.world, app(said="first"), free_port(), free_port()
    good = await world.placed(first, expose=(old := free_port()))
    await world.now.deploy(good)
    (programs.root / f"{good.target.environment}.new").mkdir()
    fresh = await world.another(good, app(said="second"), port=port, expose=door)

    with pytest.raises(StoreUnavailable, match="cannot be written down"):
        await world.now.deploy(fresh)

    await eventually(lambda: survivors(f"serve_app.py\0{port}") == [])
    assert await world.now.standing(good.target.environment) == Standing("running", key=good.key)
    assert (await world.reached(old), await world.reached(door)) == (first, None)


async def test_look_that_cannot_be_taken_fails_and_says_why(programs: Programs) -> None:
    world = programs.world
    placed = await world.placed(app())
    await world.now.deploy(placed)
    name = placed.target.environment
    for kind, target, why in [
        ("metric", "/metrics#no_such", "no metric no_such"),
        ("command", "no-such-program", "No such file"),
        ("command", "python -c 'import sys; sys.exit(9)'", "exit code 9"),
    ]:
        seen = await world.now.sample(name, check(kind, target))
        assert seen.value > 0
        assert why in seen.detail, seen


async def test_program_that_is_never_ready_fails_after_its_time(programs: Programs) -> None:
    waits = b"import time; print('waiting', flush=True); time.sleep(100)"
    placed = await programs.world.placed(waits, ready={"within_s": 1})
    failed = await programs.world.now.deploy(placed)
    assert failed.status == "failed"
    assert failed.detail.startswith("not ready within 1 s: no answer from /")


async def test_program_that_ends_later_is_started_again(programs: Programs) -> None:
    world = programs.world
    placed = await world.placed(app(dies="/die"))
    await world.now.deploy(placed)
    name = placed.target.environment
    await world.now.sample(name, check("http", "/die"))
    # It waits for the program that is just being started again.
    async with asyncio.timeout(60):
        while (await world.now.sample(name, ALIVE)).value != 0:
            await asyncio.sleep(0.1)
    assert (await world.now.sample(name, check("log_pattern", "^starting$", 5))).value == 1


async def test_people_reach_what_runs_now_by_one_port(programs: Programs) -> None:
    world, port = programs.world, free_port()
    first = await world.placed(app(said="first"), expose=port)
    second = await world.another(first, app(said="second"))
    await world.now.deploy(first)
    assert await got(port) == "first"
    await world.now.deploy(second)
    assert await got(port) == "second"
    await world.now.roll_back(first.target.environment, failed=second.key)
    assert await got(port) == "first"
    await world.now.stop(first.target.environment)
    with pytest.raises(httpx2.ConnectError):
        await got(port)


async def test_port_that_somebody_has_refuses_the_deployment_and_changes_nothing(programs: Programs) -> None:
    world = programs.world
    with socket.create_server(("127.0.0.1", 0)) as taken:
        placed = await world.placed(app(), expose=taken.getsockname()[1])
        with pytest.raises(ConfigError, match="cannot be used: "):
            await world.now.deploy(placed)
    assert await world.now.standing(placed.target.environment) == Standing("nothing")


@pytest.mark.check("28")
async def test_door_is_no_way_to_a_socket_of_the_node(programs: Programs, tmp_path: Path) -> None:
    world, port = programs.world, free_port()
    secret = tmp_path / "secret.sock"
    came: list[int] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(1)
        writer.close()

    async with await asyncio.start_unix_server(serve, secret):
        # The program puts a link to a socket of the node where its own is looked for.
        placed = await world.placed(app(links=str(secret)), expose=port)
        await world.now.deploy(placed)
        with pytest.raises(httpx2.HTTPError):
            await got(port)
    assert came == []


async def got(port: int) -> str:
    async with httpx2.AsyncClient(timeout=10, trust_env=False) as client:
        return (await client.get(f"http://127.0.0.1:{port}/")).text
