"""Work sessions at once, with an engine that answers at once: what the fleet itself costs, and where it bends.

A session makes 30 calls, one in each turn: ten looks, ten edits, ten commands. Four engineers of a council share a
story, its log and its base. Log and blobs are on the disk before anything goes on; the sandbox is bubblewrap. All
owners and the one supervisor are in this process, as on a node with one shard.

| figure | what is counted | yardstick |
|---|---|---|
| processor time of a call | this process, the log's server, sandboxes with their commands | bare bubblewrap |
| calls a second | wall time | one session alone |
| a call, p95 | wall time of its look, edit or command, records included | one session alone |
| share of a session | see below | 1 % |
| bytes of a session | its events and blobs, and its folder on the node | the pages that it wrote |
| six searches of one reply | wall time, records included | one in each of six replies |

The share is that of everything that is neither model nor command, of the wall time of a session whose replies take as
long as replies took that were recorded (`examples/*/replies`, those of 2 to 30 s; drawn with a fixed seed). Time is not
compressed: what the rest costs is measured, and set against the sum of the drawn times. It is told twice: as processor
time, which other programs of the machine do not change much, the commands and their sandboxes counted as ours; and as
wall time without the commands, which a busy machine makes longer. `ENGINEERS_AT_ONCE` sets the numbers of sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from redis.asyncio import Redis

from benchmarks.deliberation import DONE, created
from benchmarks.figures import Figure, percentile
from benchmarks.stores import log_store
from fleet.config.files import ConfigFiles, packaged_directory
from fleet.context.scope import ContextConfig
from fleet.context.service.packs import ContextService
from fleet.council.roster import seats
from fleet.events.council import CouncilBudget, CouncilOpened, RosterMember
from fleet.events.payload import Payload
from fleet.events.plan import Task
from fleet.events.story import StoryTransitioned
from fleet.events.task import TaskAdded, TreeMerged
from fleet.forge.memory import MemoryForge
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ReplyMalformed, SandboxUnavailable
from fleet.kernel.ids import Digest, EntityId, Principal, StoryId
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.log import RedisEventLog
from fleet.models.chat import TokenUsage, ToolUse
from fleet.models.port import AgentAnswer, AgentRequest
from fleet.models.profiles import ModelsConfig, load_models
from fleet.models.replies.session_reply import SessionReply
from fleet.owner.budgets import Budgeting
from fleet.owner.duties.members import Sitting
from fleet.owner.engineering.seats import deliver
from fleet.owner.journal.journal import Journal
from fleet.owner.journal.steps import StepPolicy
from fleet.owner.workbench import Workbench
from fleet.policy.runs.spec import RunResult
from fleet.report.service.reports import ReportService
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.backends.identity import is_root
from fleet.sandbox.folders.stage import build_stage
from fleet.sandbox.redis import RedisRunLedger
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.story.council_facts import council_state
from fleet.trees.files import FileBlobStore
from fleet.trees.tree import FileEntry, encode_tree
from fleet.wiring.endpoints import load_definitions
from fleet.wiring.sandbox.plugins import active_policy

AT_ONCE = tuple(map(int, os.environ.get("ENGINEERS_AT_ONCE", "1,10,30,100").split(",")))
CALLS, COMMANDS, SEATS, FILES = 30, 10, 4, 400
SEARCHES, ROW = 30, 6
COUNCIL, TASK, PLAN = EntityId("co-bench1"), EntityId("tk-bench1"), EntityId("pl-bench1")
NOBODY = 65_534
LATENCIES_S = (2.0, 30.0)
_LINE = "echo {0} >> made.txt; wc -l made.txt"
_EXAMPLES = Path(__file__).parents[1] / "examples"


Calls = list[tuple[str, dict[str, Any]]]


def _call(turn: int, about: str = "Page") -> Calls:
    """The call of a turn, from 1; after the last of them the session is submitted."""
    if turn > CALLS:
        return [("submit", {"summary": "done"})]
    number, path = turn // 3, f"package_{turn % 10}/module_{turn}.py"
    match turn % 3:
        case 0:
            return [("run", {"command": _LINE.format(turn)})]
        case 1:
            return [("read", {"path": path})]
        case _:
            return [("write", {"path": f"docs/page_{number}.md", "content": f"# {about} {number}\n" * 40})]


def _searches(turn: int, at_once: int) -> Calls:
    """So many searches in each turn, until all of them were made."""
    first = (turn - 1) * at_once
    if first >= SEARCHES:
        return [("submit", {"summary": "done"})]
    return [("search", {"pattern": f"VALUE = {number}$"}) for number in range(first, first + at_once)]


class Instant:
    """The port Agents: the next calls of the session, at once."""

    def __init__(self, calls: Callable[[int], Calls]) -> None:
        self._calls = calls

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See the port."""
        turn = 1 + sum(message.role == "assistant" for message in request.turns)
        uses = tuple(
            ToolUse(id=f"u{turn}-{place}", name=name, arguments=json.dumps(args))
            for place, (name, args) in enumerate(self._calls(turn))
        )
        reply = SessionReply(text="", uses=uses)
        return AgentAnswer(
            value=reply.model_dump(mode="json"),
            prompt=DONE,
            reply=DONE,
            usage=TokenUsage(tokens_in=10, tokens_out=5),
            engine="instant",
            model="instant",
            revision="1",
            latency_ms=0,
        )


class TimedSupervisor(ToolSupervisor):
    """Notes how long commands took by themselves."""

    commands_s = 0.0

    async def run(self, *args: Any, **how: Any) -> RunResult:
        """See `Sandbox.run`."""
        result = await super().run(*args, **how)
        self.commands_s += result.usage.wall_ms / 1e3
        return result


@cache
def _models() -> ModelsConfig:
    document = dict(ConfigFiles(packaged_directory()).document("models.yaml"))
    engine = {"engine_id": "instant", "kind": "vllm", "base_url": "u", "model": "m", "unpriced": True}
    document["engines"] = [{**engine, "strategy": "session", "max_context": 128_000, "max_output": 4_096}]
    document["policies"] = {"default": {"chain": [{"engine_id": "instant", "max_tokens": 500, "timeout_s": 60}]}}
    return load_models(document)


class Node:
    """What all sessions of a run share."""

    def __init__(self, place: Path, client: Redis, server: int) -> None:
        files = ConfigFiles(packaged_directory())
        self.blobs, self.clock, self.log, self.server = (
            FileBlobStore(place / "blobs"),
            SystemClock(),
            RedisEventLog(client),
            server,
        )
        self.backend = BubblewrapBackend(place / "sandbox", self.blobs)
        ledger = RedisRunLedger(client)
        self.supervisor = TimedSupervisor(self.backend, ledger, self.blobs, self.clock, "sandbox:bench")
        self.definitions = load_definitions(files)
        self.policy = StepPolicy(active_policy(files), self.definitions.fsm)
        self.context = files.load("context.yaml", ContextConfig)
        self.tree: Digest | None = None

    async def story(self, name: str, calls: Callable[[int], Calls] = _call) -> Workbench:
        """A story whose council of engineers has just been opened."""
        assert self.tree is not None
        config, packs = _models(), ContextService(self.log, self.blobs, self.context, clock=self.clock)
        journal = Journal(
            log=self.log,
            blobs=self.blobs,
            clock=self.clock,
            sandbox=self.supervisor,
            agents=Instant(calls),
            story_id=StoryId(name),
            epoch=0,
            policy=self.policy,
            budgeting=Budgeting(limits=config.budgets, models=config),
            packs=packs,
        )
        await journal.load()
        merged = TreeMerged(base_digest=self.tree, result_digest=self.tree, commit="0a" * 20)
        task = TaskAdded(plan_id=PLAN, task=_task(StoryId(name)))
        building = StoryTransitioned.model_validate({"from": "DRAFT", "event": "approve_scope", "to": "BUILD"})
        opened = self._opened(self.tree)
        await journal.record("create", created(), building, merged, task, opened, actor=Principal("user:bench"))
        return Workbench(
            journal=journal,
            rules=self.definitions,
            packs=packs,
            forge=MemoryForge(self.blobs),
            blobs=self.blobs,
            clock=self.clock,
            reports=ReportService(self.log, self.blobs),
        )

    def _opened(self, tree: Digest) -> Payload:
        members = seats(("developer",) * SEATS, config=self.definitions.council)
        return CouncilOpened(
            council_id=COUNCIL,
            kind="selection",
            output_kind="code_patch",
            task_id=TASK,
            subject_digest=tree,
            roster=tuple(RosterMember.model_validate({**m.model_dump(), "strategy": "session"}) for m in members),
            rubric_digest=DONE,
            rule_version=1,
            quorum=3,
            pass_threshold="majority",
            rounds=1,
            budget=CouncilBudget(tokens=200_000_000, wall_s=9_000),
            seed=7,
            deadline_at=0,
        )


def _task(story: StoryId) -> Task:
    return Task(
        task_id=TASK,
        story_id=story,
        plan_id=PLAN,
        title="Write pages",
        description="Pages on the modules.",
        role="developer",
        kind="code",
        estimated_hours=2,
        priority=1,
        risk="low",
    )


async def measure(folder: Path) -> list[Figure]:
    """One session, then more and more at once, each number on stories of its own."""
    # The folder of the benchmark is closed to the user that a root supervisor drops to.
    place = Path(tempfile.mkdtemp(prefix="fleet-bench-", dir="/tmp"))
    place.chmod(0o711)
    try:
        async with log_store(folder) as url:
            client = connect_redis(url)
            try:
                return await _measured(place, client)
            finally:
                await client.aclose()
    finally:
        shutil.rmtree(place)


class Spent(NamedTuple):
    """Seconds of one number of sessions."""

    at_once: int
    wall: float
    cpu: float
    """Of this process and the log's server."""
    commands_cpu: float
    """Of the sandboxes and the commands in them."""
    commands_wall: float
    calls: list[float]
    """Of each call, its records included."""

    @property
    def count(self) -> int:
        """Calls of all sessions."""
        return self.at_once * CALLS


@dataclass
class _Watch:
    """Times of the calls of a session, told by what its journal has on record."""

    began: float = 0.0
    took: list[float] = field(default_factory=list[float])


async def _measured(place: Path, client: Redis) -> list[Figure]:
    node = Node(place, client, int((await client.info("server"))["process_id"]))  # pyright: ignore
    health = await node.backend.health()
    if health.status == "down":
        raise SandboxUnavailable("; ".join((*health.unmet, *health.mend)), missing="bubblewrap")
    entries = {
        f"package_{n % 10}/module_{n}.py": FileEntry("100644", await node.blobs.put(f"VALUE = {n}\n".encode() * 40))
        for n in range(FILES)
    }
    node.tree = await node.blobs.put(encode_tree(entries))
    await _worked(node, "warm", 1)
    spent: list[Spent] = []
    for count in AT_ONCE:
        spent.append(await _worked(node, f"n{count}", count))
        print(f"  {count} sessions: {spent[-1].count / spent[-1].wall:.1f} calls a second", flush=True)
    bare = await asyncio.to_thread(_bare_cpu, place)
    figures = [*(f for one in spent for f in _figures(one, spent[0], bare)), *_shares(spent[0])]
    return [*figures, await _stored(node, place), await _searched(node)]


async def _stored(node: Node, place: Path) -> Figure:
    """What one session leaves, beside what it changed."""
    # Pages that no other session wrote: equal content is stored once.
    calls = partial(_call, about="Stored page")
    bench = await node.story("st-stored", calls)
    blobs, folders = await asyncio.to_thread(_bytes_below, place / "blobs"), await _folder_bytes(node)
    await _session(bench, 0, _Watch())
    log = sum(len(event.body) for event, _ in await bench.journal.history())
    blobs = await asyncio.to_thread(_bytes_below, place / "blobs") - blobs
    folder = await _folder_bytes(node) - folders
    written = [args["content"] for turn in range(1, CALLS + 1) for _, args in calls(turn) if "content" in args]
    note = f"{log / 1024:.0f} of it events, {blobs / 1024:.0f} blobs, {folder / 1024:.0f} its folder on the node"
    name = f"bytes of a session of {CALLS} calls"
    return Figure(
        name, (log + blobs + folder) / 1024, "KiB", "pages that it wrote", sum(map(len, written)) / 1024, note
    )


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def _folder_bytes(node: Node) -> int:
    return sum(use.used_bytes for use in await node.backend.usage() if use.kind == "folders")


async def _searched(node: Node) -> Figure:
    """Searches that one reply asks for, beside those of as many replies; both ways in turn."""
    took: dict[int, list[float]] = {1: [], ROW: []}
    for number in range(4):
        for at_once, times in took.items():
            bench = await node.story(f"st-searches-{number}-{at_once}", partial(_searches, at_once=at_once))
            begun = time.perf_counter()
            with contextlib.suppress(ReplyMalformed):  # nothing was changed
                await _session(bench, 0, _Watch())
            # The first of each lays the folders.
            times += [time.perf_counter() - begun] if number else []
    row, alone = (median(took[at_once]) * ROW / SEARCHES * 1e3 for at_once in (ROW, 1))
    return Figure(f"{ROW} searches of one reply", row, "ms", f"one in each of {ROW} replies", alone)


async def _worked(node: Node, name: str, count: int) -> Spent:
    benches = [await node.story(f"st-{name}-{number}") for number in range(-(-count // SEATS))]
    watches = [_Watch() for _ in range(count)]
    before, commands = _cpu(node.server), node.supervisor.commands_s
    begun = time.perf_counter()
    await asyncio.gather(
        *(_session(benches[number // SEATS], number % SEATS, watch) for number, watch in enumerate(watches))
    )
    wall, after = time.perf_counter() - begun, _cpu(node.server)
    return Spent(
        count,
        wall,
        after.own - before.own,
        after.children - before.children,
        node.supervisor.commands_s - commands,
        [took for watch in watches for took in watch.took],
    )


async def _session(bench: Workbench, seat: int, watch: _Watch) -> None:
    record = bench.state.councils[COUNCIL]
    sitting = Sitting(bench, record, council_state(record.opened, tuple(record.said.values())))
    member, base = record.opened.roster[seat], record.opened.subject_digest
    assert base is not None
    prefix, seen, last = f"{COUNCIL}/draft/{member.member_id}/", set[str](), [time.perf_counter()]

    def look() -> None:
        ended = {n for n, s in bench.state.steps.items() if n.startswith(prefix) and s.finished is not None} - seen
        now = time.perf_counter()
        watch.took += [now - last[0] for name in ended if "/call/" in name]
        if ended:
            seen.update(ended)
            last[0] = now

    with bench.journal.watched(look):
        await deliver(sitting, member, step=f"draft/{member.member_id}", base=base)


class _Cpu(NamedTuple):
    own: float
    children: float


def _cpu(server: int) -> _Cpu:
    """Seconds of processor time until now: of this process with the log's server, and of the children that ended."""
    fields = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()
    of_server = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return _Cpu(time.process_time() + of_server, children.ru_utime + children.ru_stime)


def _bare_cpu(place: Path) -> float:
    """Seconds of processor time of one command in bare bubblewrap, over a small folder."""
    folder = place / "bare-workspace"
    folder.mkdir()
    folder.chmod(0o777)
    who: Mapping[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if is_root() else {}
    command = (
        *(str(build_stage(place / "bare", is_dropped=is_root()).bwrap), "--unshare-all", "--disable-userns"),
        *("--unshare-user", "--cap-drop", "ALL", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"),
        *("--bind", str(folder), "/mnt", "--chdir", "/mnt", "--", "bash", "-c", _LINE.format(1)),
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(100):
        subprocess.run(command, check=True, env={"PATH": "/usr/bin:/bin"}, cwd="/", stdout=subprocess.DEVNULL, **who)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 100


def _figures(spent: Spent, alone: Spent, bare_s: float) -> list[Figure]:
    name = (
        f"{spent.at_once} sessions of {CALLS} calls at once" if spent.at_once > 1 else f"one session of {CALLS} calls"
    )
    own, theirs = spent.cpu / spent.count * 1e3, spent.commands_cpu / spent.count * 1e3
    note = f"{own:.1f} of it owner, supervisor and log, {theirs:.1f} sandboxes and commands"
    bare_ms = bare_s * 1e3 * COMMANDS / CALLS
    rate, one = spent.count / spent.wall, alone.count / alone.wall
    p95, p95_alone = percentile(spent.calls, 95) * 1e3, percentile(alone.calls, 95) * 1e3
    busy = f"{(spent.cpu + spent.commands_cpu) / spent.wall:.2f} cores busy with it"
    return [
        Figure(f"{name}, processor time of a call", own + theirs, "ms", "bare bubblewrap", bare_ms, note),
        Figure(f"{name}, calls a second", rate, "1/s", "one session alone", one, busy),
        Figure(f"{name}, a call with its records, p95", p95, "ms", "one session alone", p95_alone),
    ]


def _shares(alone: Spent) -> list[Figure]:
    recorded = recorded_latencies()
    draw = random.Random(30)
    totals = [sum(draw.choices(recorded, k=CALLS + 2)) for _ in range(1_000)]
    note = (
        f"{len(recorded)} recorded replies, median {median(recorded):.1f} s; the session's take {median(totals):.0f} s"
    )
    cpu, wall = alone.cpu + alone.commands_cpu, alone.wall - alone.commands_wall
    shortest = (CALLS + 2) * LATENCIES_S[0]

    def share(rest: float, replies: float) -> float:
        return 100 * rest / (rest + replies + alone.commands_wall)

    return [
        Figure("all that is no model, processor time, of a session", share(cpu, median(totals)), "%", "aim", 1, note),
        Figure("all that is neither model nor command, wall time", share(wall, median(totals)), "%", "aim", 1),
        Figure("the same with every reply of 2 s, processor time", share(cpu, shortest), "%", "aim", 1),
        Figure("the same with every reply of 2 s, wall time", share(wall, shortest), "%", "aim", 1),
    ]


def recorded_latencies() -> list[float]:
    """Seconds of the replies that were recorded for the examples, those of 2 to 30 s."""
    found = list[float]()
    for path in sorted(_EXAMPLES.glob("*/replies/*.json")):
        latency_s = json.loads(path.read_text()).get("reply", {}).get("latency_ms", 0) / 1e3
        found += [latency_s] if LATENCIES_S[0] <= latency_s <= LATENCIES_S[1] else []
    return found
