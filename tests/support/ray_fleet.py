"""A small fleet on a Ray of its own, for faults: real actors, real log store, recorded replies, short leases.

The fleet lives in a process of its own (`tests.support.ray_host`), so the tests import no Ray and kill what they like.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.local.identity import ProcessIdentity, descendants
from cluster.local.valkey import StoreKind, Valkey
from fleet.cli.local.local_principals import local_principal
from fleet.config.files import ConfigFiles, packaged_directory
from fleet.desk.planning import PlanningDesk
from fleet.events.codec import decode
from fleet.events.envelope import StoredEvent
from fleet.events.report import OwnershipTaken
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import StoryId, StreamId
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.feed import RedisFeed
from fleet.log.redis.inbox import RedisInbox
from fleet.log.redis.log import RedisEventLog
from fleet.models.profiles import load_models
from fleet.models.prompts.pack_readers import PackReaders, pack_readers
from fleet.policy.roles import load_roles
from fleet.story.commands.catalogue import parse_command
from fleet.story.state import StoryState
from tests.support.processes import processes_below
from tests.support.ray_host import HostPlan
from tests.support.ray_log_proxy import Append, LogProxy, proxied_log
from tests.support.rules import fsm
from tests.support.services import run_apart
from tests.support.team import team
from tests.support.team_models import RECORDED, demo_repository, demo_story

ROOT = Path(__file__).resolve().parents[2]

OWN_TO_A_RUN = frozenset({"url", "commit", "image_digest", "key", "request_digest", "policy", "artifacts", "excerpt"})
"""Names of fields that hold where and when a run was made: folders, the times in commits, the settings of the fleet."""


async def until(what: Callable[[], Any], *, within_s: float, why: str) -> Any:
    """The first true answer of `what` (awaited where it must be); an AssertionError that says why, when time is up."""
    deadline = time.monotonic() + within_s
    while True:
        found = what()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {why}"
        await asyncio.sleep(0.05)


def owners_of(events: list[StoredEvent]) -> list[tuple[int, str]]:
    """Epoch and owner of each OwnershipTaken, in order."""
    taken = [(e.epoch, decode(e)) for e in events if e.type == "OwnershipTaken"]
    return [(epoch, payload.owner) for epoch, payload in taken if isinstance(payload, OwnershipTaken)]


async def end_without_faults(folder: Path, story_id: StoryId) -> StoryState:
    """What the example story of this id comes to when nothing fails: in one process, without Ray."""
    repo = demo_repository(folder / "stage")
    async with team(folder, readers=_readers()) as plain:
        who = local_principal()
        await plain.desk.require(
            story_id, parse_command("create_story", {"story": demo_story()}), principal=who, key="c"
        )
        body = {"repo": str(repo), "model": RECORDED, "delegate": ["po", "qa"]}
        await plain.desk.require(story_id, parse_command("start_story", body), principal=who, key="s")
        state = await plain.settled(story_id)
    assert state.closed, state.park
    return state


def _readers() -> PackReaders:
    """What a fleet with the shipped files writes down for a story."""
    files = ConfigFiles(packaged_directory())
    roles = load_roles(files.document("roles.yaml")).roles.values()
    policies = {role.name: (role.model_policy, role.name, *role.lineage) for role in roles}
    return pack_readers(load_models(files.document("models.yaml")), policies, environ={})


def acknowledged_is_kept(appends: Iterable[Append], events: Sequence[StoredEvent]) -> int:
    """O1: what an owner was told is stored lies in the log under the same hash; the number of such appends."""
    found = {event.hash for event in events}
    told = [a for a in appends if a.outcome == "OK" and a.is_delivered]
    assert [a for a in told if a.last_hash not in found] == []
    return len(told)


@dataclass
class Client:
    """What a person and an observer see of the fleet; connected past the proxy."""

    desk: PlanningDesk
    log: RedisEventLog

    async def create(self, text: dict[str, Any]) -> StoryId:
        """A new story of this text."""
        story_id = await self.desk.story_id_for(text)
        await self._ask(story_id, "create_story", {"story": text})
        return story_id

    async def start(
        self, story_id: StoryId, repo: Path, *, delegate: tuple[str, ...] = ("po", "qa"), model: str = RECORDED
    ) -> None:
        """The story is started on this repository, with the recorded replies of the demo or another model."""
        await self._ask(story_id, "start_story", {"repo": str(repo), "model": model, "delegate": list(delegate)})

    async def _ask(self, story_id: StoryId, name: str, body: dict[str, Any]) -> None:
        who = local_principal()
        await self.desk.require(story_id, parse_command(name, body), principal=who, key=f"{story_id}/{name}")

    async def events(self, story_id: StoryId) -> list[StoredEvent]:
        """Every event of the story; none before it exists."""
        return await self.log.read(StreamId.of_story(story_id))

    async def settled(self, story_id: StoryId, *, within_s: float) -> StoryState:
        """The story once it is closed, parked or waits for a person."""

        async def rests() -> StoryState | None:
            state = await self.desk.state(story_id)
            over = state.closed or state.disposition != "active" or self.desk.waiting_for(state) is not None
            return state if over else None

        return await until(rests, within_s=within_s, why=f"story {story_id} ended or waits for a person")


@dataclass
class RayFleet:
    """A running fleet: its processes, its proxy in front of the log, and how to reach both."""

    home: Path
    redis_url: str
    proxy: LogProxy
    process: subprocess.Popen[str]
    raylets: list[int] = field(default_factory=list[int])
    may_park: set[StoryId] = field(default_factory=set[StoryId])
    """Stories that tests of this fleet have brought to be parked."""

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[Client]:
        """A client for the running event loop."""
        redis = connect_redis(self.redis_url)
        log = RedisEventLog(redis)
        desk = PlanningDesk(
            log=log, inbox=RedisInbox(redis, redis), feed=RedisFeed(redis), clock=SystemClock(), fsm=fsm()
        )
        try:
            yield Client(desk, log)
        finally:
            await redis.aclose()

    def councils(self) -> list[Mapping[str, Any] | None]:
        """What each council shard says of itself; None for one that does not answer now."""
        return self._asked("councils")["councils"]

    def pids(self) -> dict[str, int]:
        """The process of each actor that answers now, by the actor's name."""
        return self._asked("pids")["pids"]

    def metrics(self) -> list[str]:
        """Where the nodes serve their metrics."""
        return self._asked("metrics")["metrics"]

    def logs(self) -> Path:
        """Where the processes of the head node write what they print."""
        return Path(self._asked("logs")["logs"])

    def add_node(self) -> int:
        """One more node for actors; the pid of its raylet."""
        self.raylets = self._asked("add")["raylets"]
        return self.raylets[-1]

    def drain(self) -> dict[str, Any]:
        """The first node is drained and gone: when it was told and when its processes were ended, and what Ray says."""
        return self._asked("drain")

    def head_dies(self) -> dict[str, Any]:
        """Every process of Ray's head is dead: when, and which they were."""
        return self._asked("head dies")

    def head_is_back(self) -> dict[str, Any]:
        """A new head answers in the place of the dead one: when, and the actors that it knows."""
        return self._asked("head is back")

    def _asked(self, what: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the host ended with {self.process.wait(30)}; see {self.home / 'host.err'}"
        return json.loads(line)

    def send(self, pid: int, number: signal.Signals) -> None:
        """The signal is sent to one process of this fleet; an AssertionError when it is none of its own."""
        (process,) = [p for p in descendants(self.process.pid) if p.pid == pid]
        assert process.send(number), f"process {pid} was gone already"


@contextmanager
def ray_fleet(
    home: Path,
    *,
    shards: int = 1,
    ttl_s: int = 4,
    workers: int = 0,
    council_env: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    keeps_head: bool = False,
) -> Iterator[RayFleet]:
    """A fleet below `home` (a short path: sockets lie there); afterwards no process of it is left.

    Args:
        keeps_head: the state of Ray's head lies in a Redis of its own, so that a new head goes on with it.
    """
    store, of_head = Valkey(StoreKind.LOG, home / "log"), Valkey(StoreKind.LOG, home / "gcs")
    run_apart(store.start())
    try:
        if keeps_head:
            run_apart(of_head.start())
        with proxied_log(store.url) as (proxy, through):
            plan = HostPlan(
                home=home,
                redis_url=through,
                cache_url=store.url,
                shards=shards,
                ttl_s=ttl_s,
                workers=workers,
                council_env=dict(council_env or {}),
                settings=dict(settings or {}),
                head_store=of_head.url if keeps_head else "",
            )
            yield from _hosted(plan, store.url, proxy)
    finally:
        run_apart(store.stop())
        run_apart(of_head.stop())
    left = processes_below(home)
    assert left == [], f"processes of the fleet are left: {left}"


def _hosted(plan: HostPlan, url: str, proxy: LogProxy) -> Iterator[RayFleet]:
    plain = {n: v for n, v in os.environ.items() if not n.startswith(("RAY_", "COV_", "COVERAGE_"))}
    with (plan.home / "host.err").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.ray_host", plan.model_dump_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env={**plain, "PYTHONPATH": str(ROOT)},
        )
    fleet = RayFleet(plan.home, url, proxy, process)
    started: list[ProcessIdentity] = []
    try:
        fleet.raylets = fleet._answer()["raylets"]
        yield fleet
    finally:
        started = descendants(process.pid)
        proxy.before = proxy.after = None
        for one in started:
            one.send(signal.SIGCONT)
        _end(process)
    assert [p for p in started if p.is_alive and not p.wait_gone(10)] == []


def _end(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()
