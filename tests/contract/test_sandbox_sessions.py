"""The suite of the port SandboxSessions, over the scripted twin and over bubblewrap."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from fleet.kernel.clock import SystemClock
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import (
    IdempotencyMismatch,
    InvalidInput,
    InvalidTransition,
    NotFound,
    OwnershipLost,
    SandboxUnavailable,
)
from fleet.kernel.ids import RunKey, StoryId
from fleet.policy.runs.spec import RunSpec
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.memory import MemoryInteractiveBackend, MemoryRunLedger, MemoryRunLogs, MemoryTerminal, ProgramStart
from fleet.sandbox.port import MAX_WRITE_BYTES, InteractiveBackend, SessionView
from fleet.sandbox.service.sandbox_sessions import SessionDesk, SessionLimits
from fleet.sandbox.service.tool_supervisor import SupervisorLimits, ToolSupervisor
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.tree import decode_tree
from tests.support.sandbox import SMALL, eventually, put_tree, state_folder, survivors

pytestmark = pytest.mark.asyncio(loop_scope="module")

STORY = StoryId("st-auth-7")
LIMITS = SMALL.model_copy(update={"grace_s": 0})
_SCRIPT = """
echo ready
while IFS= read -r line; do
  case "$line" in
    'exit '*) exit "${line#exit }" ;;
    'put '*) printf %s "${line#put }" > made.txt; echo put ;;
    hang) echo hanging; while :; do sleep 1; done ;;
    *) echo "got $line" ;;
  esac
done
echo bye
"""


async def converse(start: ProgramStart, terminal: MemoryTerminal) -> int:
    """The twin of the script."""
    assert start.argv[0] == "/bin/bash"
    terminal.print("ready")
    while line := (await terminal.read_line()).decode().removesuffix("\n"):
        word, _, rest = line.partition(" ")
        if word == "exit":
            return int(rest)
        if word == "hang":
            terminal.print("hanging")
            await asyncio.sleep(600)
        if word == "put":
            terminal.files["made.txt"] = rest.encode()
        terminal.print("put" if word == "put" else f"got {line}")
    terminal.print("bye")
    return 0


@pytest.fixture(scope="module")
def state_root() -> Generator[Path]:
    with state_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def blobs() -> MemoryBlobStore:
    return MemoryBlobStore()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["memory", "bubblewrap"])
async def backend(
    request: pytest.FixtureRequest, state_root: Path, blobs: MemoryBlobStore
) -> AsyncGenerator[InteractiveBackend]:
    if request.param == "memory":
        yield MemoryInteractiveBackend(converse, blobs)
        return
    real = BubblewrapBackend(state_root, blobs)
    health = await real.health()
    if health.status == "down":
        pytest.skip(f"no sandbox can be built here: {'; '.join((*health.unmet, *health.mend))}")
    yield real


@dataclass
class Node:
    """One node with its sessions, and what outlives it."""

    backend: InteractiveBackend
    blobs: MemoryBlobStore
    ledger: MemoryRunLedger
    supervisor: ToolSupervisor
    desk: SessionDesk

    async def start(self, *, key: RunKey | None = None, **fields: object) -> RunKey:
        token = secrets.token_hex(32)
        spec = RunSpec.model_validate({"argv": ("/bin/bash", "-c", _SCRIPT), "limits": LIMITS, **fields})
        view = await self.desk.start(spec, story=STORY, key=key or RunKey(token), epoch=1)
        return view.session

    async def until(self, session: RunKey, line: str) -> SessionView:
        """What is known of the session once it printed this line."""
        async with asyncio.timeout(20):
            while True:
                view = await self.desk.poll(session, wait_s=1)
                if line in [one.line for one in view.lines]:
                    return view


def node_on(
    backend: InteractiveBackend,
    blobs: MemoryBlobStore,
    *,
    ledger: MemoryRunLedger | None = None,
    limits: SessionLimits | None = None,
) -> Node:
    ledger = ledger or MemoryRunLedger(SystemClock())
    supervisor = ToolSupervisor(
        backend,
        ledger,
        blobs,
        SystemClock(),
        "sandbox:one",
        logs=MemoryRunLogs(),
        limits=SupervisorLimits(watch_s=0.02),
    )
    return Node(backend, blobs, ledger, supervisor, SessionDesk(supervisor, backend, SystemClock(), limits=limits))


@pytest_asyncio.fixture(loop_scope="module")
async def node(backend: InteractiveBackend, blobs: MemoryBlobStore) -> Node:
    return node_on(backend, blobs)


def printed(view: SessionView) -> list[str]:
    return [line.line for line in view.lines]


@pytest.mark.rule("RC-22")
async def test_session_answers_what_is_written_and_ends_with_its_input(node: Node) -> None:
    session = await node.start()
    await node.until(session, "ready")
    await node.desk.write_stdin(session, b"one\n", seq=1)
    view = await node.until(session, "got one")
    assert (view.status, view.next_seq, view.result) == ("running", 2, None)
    await node.desk.write_stdin(session, b"two\nthr", seq=2)
    await node.desk.write_stdin(session, b"ee\n", seq=3, is_last=True)
    result = await node.desk.close(session)

    assert (result.status, result.reason, result.exit_code) == ("passed", "ok", 0)
    assert result.stdout.text.splitlines() == ["ready", "got one", "got two", "got three", "bye"]
    last = await node.desk.poll(session, after_line=4)
    assert (printed(last), last.status, last.result) == (["bye"], "passed", result)


async def test_session_of_a_program_that_ends_by_itself_keeps_its_exit_code(node: Node) -> None:
    session = await node.start()
    await node.desk.write_stdin(session, b"exit 3\n", seq=1)
    result = await node.desk.close(session)

    assert (result.status, result.exit_code) == ("failed", 3)


async def test_write_that_comes_twice_is_read_once(node: Node) -> None:
    session = await node.start()
    await node.desk.write_stdin(session, b"one\n", seq=1)
    view = await node.desk.write_stdin(session, b"one\n", seq=1)
    await node.desk.write_stdin(session, b"two\n", seq=2)
    await node.desk.write_stdin(session, b"whatever\n", seq=1)
    result = await node.desk.close(session)

    assert view.next_seq == 2
    assert result.stdout.text.splitlines() == ["ready", "got one", "got two", "bye"]


async def test_write_with_a_used_number_and_other_data_is_refused(node: Node) -> None:
    session = await node.start()
    await node.desk.write_stdin(session, b"one\n", seq=1)

    with pytest.raises(IdempotencyMismatch, match="write 1"):
        await node.desk.write_stdin(session, b"two\n", seq=1)
    with pytest.raises(IdempotencyMismatch, match="write 1"):
        await node.desk.write_stdin(session, b"one\n", seq=1, is_last=True)
    assert (await node.desk.close(session)).stdout.text.splitlines() == ["ready", "got one", "bye"]


@pytest.mark.parametrize("seq", [0, -1, 2])
async def test_write_with_a_number_that_is_not_the_next_is_refused(node: Node, seq: int) -> None:
    session = await node.start()

    with pytest.raises(InvalidInput) as refused:
        await node.desk.write_stdin(session, b"one\n", seq=seq)
    assert refused.value.details["expected"] == 1
    await node.desk.close(session)


async def test_write_of_too_much_is_refused_and_one_that_is_not_read_waits(node: Node) -> None:
    session = await node.start()
    with pytest.raises(InvalidInput, match="cut them"):
        await node.desk.write_stdin(session, b"x" * (MAX_WRITE_BYTES + 1), seq=1)
    await node.desk.write_stdin(session, b"hang\n", seq=1)
    await node.until(session, "hanging")

    async def flood() -> None:
        for seq in range(2, 40):
            await node.desk.write_stdin(session, b"x" * MAX_WRITE_BYTES, seq=seq)

    with pytest.raises(SandboxUnavailable, match="unread"):
        await flood()
    assert await node.desk.kill(session)
    assert (await node.desk.close(session)).reason == "cancelled"


async def test_large_input_arrives_whole(node: Node) -> None:
    session = await node.start()
    line = b"y" * 60_000 + b"\n"
    for seq in range(1, 9):
        await node.desk.write_stdin(session, line, seq=seq)
    result = await node.desk.close(session, wait_s=15)

    assert result.reason == "ok"
    assert result.stdout.total_bytes == len("ready\nbye\n") + 8 * (len(line) + len("got "))


@pytest.mark.rule("RC-20", "RC-51")
async def test_session_is_started_once_per_key(node: Node) -> None:
    session = await node.start()
    assert await node.start(key=session) == session
    assert node.supervisor.active == 1
    result = await node.desk.close(session)
    again = await node.desk.start(
        RunSpec(argv=("/bin/bash", "-c", _SCRIPT), limits=LIMITS), story=STORY, key=session, epoch=1
    )

    assert (again.status, again.result, again.next_seq) == ("passed", result, 0)
    assert await node.desk.close(session) == result


async def test_session_of_a_key_with_another_command_is_refused(node: Node) -> None:
    session = await node.start()
    with pytest.raises(IdempotencyMismatch):
        await node.start(key=session, argv=("/bin/bash",))
    await node.desk.close(session)


@pytest.mark.rule("RC-54")
async def test_session_of_an_old_epoch_is_refused(node: Node) -> None:
    await node.ledger.claim(
        RunKey("f" * 64), story=STORY, epoch=2, spec=digest_of(b""), supervisor="sandbox:two", ttl_s=60
    )
    with pytest.raises(OwnershipLost):
        await node.start()
    assert node.supervisor.active == 0


@pytest.mark.rule("RC-24")
async def test_killed_session_is_over_and_takes_no_more(node: Node) -> None:
    session = await node.start()
    await node.until(session, "ready")
    assert await node.desk.kill(session)
    result = await node.desk.close(session)

    assert (result.status, result.reason) == ("cancelled", "cancelled")
    assert not await node.desk.kill(session)
    with pytest.raises(InvalidTransition, match="over"):
        await node.desk.write_stdin(session, b"one\n", seq=1)
    with pytest.raises(InvalidTransition, match="over"):
        await node.desk.snapshot(session)


async def test_session_that_ended_by_itself_takes_no_more(node: Node) -> None:
    session = await node.start()
    await node.desk.write_stdin(session, b"exit 0\n", seq=1)
    await node.supervisor.progress(session, wait_s=10)

    with pytest.raises(InvalidTransition, match="over"):
        await node.desk.write_stdin(session, b"one\n", seq=2)


async def test_session_that_does_not_end_with_its_input_is_ended(node: Node) -> None:
    session = await node.start()
    await node.desk.write_stdin(session, b"hang\n", seq=1)
    await node.until(session, "hanging")

    assert (await node.desk.close(session, wait_s=0.05)).reason == "cancelled"


@pytest.mark.rule("RC-36")
async def test_snapshot_of_a_session_starts_another_one_where_it_was(node: Node) -> None:
    session = await node.start(tree=await put_tree(node.blobs, {"kept.txt": b"old"}))
    await node.desk.write_stdin(session, b"put new\n", seq=1)
    await node.until(session, "put")
    first = await node.desk.snapshot(session)
    await node.desk.write_stdin(session, b"put newer\nagain\n", seq=2)
    await node.until(session, "got again")
    await node.desk.close(session)
    restored = await node.start(tree=first)
    same = await node.desk.snapshot(restored)
    await node.desk.close(restored)

    tree = decode_tree(await node.blobs.get(first))
    assert {path: await node.blobs.get(entry.blob) for path, entry in tree.items()} == {
        "kept.txt": b"old",
        "made.txt": b"new",
    }
    assert same == first


async def test_session_keeps_its_files_when_it_ends_well_and_was_asked_to(node: Node) -> None:
    session = await node.start(keep_tree=True)
    await node.desk.write_stdin(session, b"put x\n", seq=1)
    result = await node.desk.close(session)

    assert result.tree_out is not None
    assert set(decode_tree(await node.blobs.get(result.tree_out))) == {"made.txt"}


@pytest.mark.rule("RC-17")
async def test_session_past_its_wall_time_is_a_timeout(node: Node) -> None:
    session = await node.start(limits=LIMITS.model_copy(update={"overall_s": 1}))

    assert (await node.supervisor.progress(session, wait_s=10)).status == "timeout"


async def test_sessions_are_bounded_in_number(backend: InteractiveBackend, blobs: MemoryBlobStore) -> None:
    node = node_on(backend, blobs, limits=SessionLimits(max_open=1))
    first = await node.start()
    with pytest.raises(SandboxUnavailable, match="close one"):
        await node.start()
    assert await node.start(key=first) == first
    await node.desk.kill(first)
    await node.supervisor.progress(first, wait_s=10)
    second = await node.start()

    assert (await node.desk.close(second)).reason == "ok"


async def test_session_that_nobody_uses_is_swept(backend: InteractiveBackend, blobs: MemoryBlobStore) -> None:
    node = node_on(backend, blobs, limits=SessionLimits(idle_s=0.0))
    session = await node.start()
    await node.until(session, "ready")
    await eventually_swept(node)

    assert (await node.desk.close(session)).reason == "cancelled"
    assert await node.desk.sweep() == 0


async def eventually_swept(node: Node) -> None:
    async with asyncio.timeout(60):
        while not await node.desk.sweep():
            await asyncio.sleep(0.01)


async def test_sweep_leaves_a_session_in_use_alone(node: Node) -> None:
    session = await node.start()
    await node.until(session, "ready")
    assert await node.desk.sweep() == 0
    assert (await node.desk.close(session)).reason == "ok"


async def test_session_that_nobody_started_is_not_found(node: Node) -> None:
    unknown = RunKey("e" * 64)
    for asked in (
        node.desk.poll(unknown),
        node.desk.write_stdin(unknown, b"", seq=1),
        node.desk.snapshot(unknown),
        node.desk.kill(unknown),
        node.desk.close(unknown),
    ):
        with pytest.raises(NotFound):
            await asked


@pytest.mark.rule("RC-26")
async def test_session_of_another_node_is_read_and_not_written(node: Node) -> None:
    session = await node.start()
    await node.until(session, "ready")
    other = SessionDesk(node.supervisor, node.backend, SystemClock())
    view = await other.poll(session)

    assert (view.status, view.next_seq) == ("running", 0)
    with pytest.raises(NotFound, match="node that started it"):
        await other.write_stdin(session, b"one\n", seq=1)
    await node.desk.close(session)


@pytest.mark.rule("RC-27")
async def test_session_of_a_supervisor_that_died_is_lost(node: Node) -> None:
    key = RunKey("d" * 64)
    spec = RunSpec(argv=("/bin/bash", "-c", _SCRIPT), limits=LIMITS, interactive=True)
    await node.ledger.claim(
        key, story=STORY, epoch=1, spec=spec.digest, supervisor="sandbox:one", ttl_s=60, is_detached=True
    )

    view = await node.desk.poll(key)
    assert view.result is not None
    assert view.result.reason == "sandbox_lost"


async def test_session_with_an_input_of_its_specification_is_refused(node: Node) -> None:
    with pytest.raises(InvalidInput, match="leave stdin out"):
        await node.start(stdin=await node.blobs.put(b"x"))
    assert node.supervisor.active == 0


async def test_session_leaves_nothing(backend: InteractiveBackend, node: Node, state_root: Path) -> None:
    token = secrets.token_hex(8)
    session = await node.start(argv=("/bin/bash", "-c", f"{_SCRIPT} # {token}"))
    await node.until(session, "ready")
    await node.desk.kill(session)
    await node.desk.close(session)

    await eventually(lambda: survivors(token) == [] and not list(state_root.glob("runs/*/*")))
