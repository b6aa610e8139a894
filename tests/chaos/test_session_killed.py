"""Owners and supervisors of work sessions killed with SIGKILL, over a real log server and the real sandbox.

A session is worked once undisturbed. Then it is worked again, and ten times its owner or its supervisor is killed:
while it starts, at an append, while the engine thinks, before, inside and after a command. Each time a new one starts.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fleet.kernel.ids import StreamId
from fleet.log.redis.log import RedisEventLog
from fleet.sandbox.backends.identity import reachable_state_root
from fleet.story.evolve.story import fold
from fleet.trees.files import FileBlobStore
from tests.support.acting import written
from tests.support.oracle import steps_count_once, stream_verifies
from tests.support.processes import processes_below
from tests.support.session_kinds import KINDS, finished_in, tokens_of
from tests.support.sessions import FILES, convened_in_sessions
from tests.support.stores import empty_database, own_database
from tests.support.story_events import STORY

pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).resolve().parents[2]
STREAM = StreamId.of_story(STORY)
KILLS = 10
"""Of the sessions of one kind; all kinds together have more than 200."""
KILLED = tuple(name for name in KINDS if name != "budget-used")
"""Where tokens are short, a reply that died with its owner may have used its share: then a session ends earlier."""
IN_EVERY_RUN = ("cascade", "mended")
REPORT = ROOT / "build/reports/session-kills.jsonl"


class Nursery:
    """The process from which owners and supervisors are forked, and what these say."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            await (self._answers if "child" in told else self.said).put(told)

    async def ask(self, **order: Any) -> dict[str, Any]:
        """The answer to an order."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return await asyncio.wait_for(self._answers.get(), 60)

    async def kill(self, pid: int) -> None:
        """The process has died of SIGKILL, and of nothing else."""
        os.kill(pid, signal.SIGKILL)
        status = (await self.ask(wait=pid))["status"]
        assert os.WIFSIGNALED(status), f"process {pid} ended by itself before it was killed: {status}"
        assert os.WTERMSIG(status) == signal.SIGKILL

    async def close(self) -> None:
        """No process of it is left."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._reading


@asynccontextmanager
async def nursery() -> AsyncGenerator[Nursery]:
    command = (sys.executable, "-m", "tests.support.session_processes")
    pipe = asyncio.subprocess.PIPE
    begun = Nursery(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, cwd=ROOT))
    try:
        yield begun
    finally:
        await begun.close()


@dataclass
class Ended:
    """How the sessions of one kind ended, and what it took."""

    candidates: list[str]
    ends: Mapping[str, tuple[str, int | None]]
    tokens: Mapping[str, int]
    said: Counter[str]
    """What owner and supervisor said, by kind of message."""
    kills: Counter[str] = field(default_factory=Counter[str])
    """By what was under way."""
    resumed_s: list[float] = field(default_factory=list[float])
    """From a kill until the next process goes on."""


class Town:
    """The sessions of one kind with their stores, and the processes that work on them."""

    def __init__(self, born: Nursery, name: str, url: str, folder: Path) -> None:
        self._born, self._order = born, {"kind": name, "url": url, "folder": str(folder)}
        self._folder, self._life = folder, 0
        self.pids: dict[str, int] = {}
        self.said: Counter[str] = Counter()
        self.doing = {"owner": "starting", "supervisor": "starting"}

    async def start(self, who: str) -> None:
        """A new process in the place of the last one."""
        self._life += 1
        self.pids[who] = (await self._born.ask(start=who, life=self._life, **self._order))["child"]
        self.doing[who] = "starting"

    async def hear(self, *, within_s: float = 120) -> tuple[str, dict[str, Any]]:
        """The next thing that a living process says, and who it is."""
        while True:
            told = await asyncio.wait_for(self._born.said.get(), within_s)
            who = next((name for name, pid in self.pids.items() if pid == told["pid"]), None)
            if who is None:
                continue  # a process that is dead by now said it
            what = next(key for key in told if key != "pid")
            self.said[what] += 1
            self.doing[who] = {"asks": "a reply", "runs": "a command"}.get(what, "between steps")
            return who, told

    @property
    def has_spoken(self) -> bool:
        """Whether something was said that nobody has heard yet."""
        return not self._born.said.empty()

    async def kill(self, who: str) -> str:
        """It is dead; what it was doing."""
        await self._born.kill(self.pids.pop(who))
        return f"{who}: {self.doing[who]}"

    async def candidates_when(self, told: dict[str, Any], who: str) -> list[str] | None:
        """What the sessions left, if this says so; the owner that said it is over."""
        if "candidates" not in told:
            return None
        assert (await self._born.ask(wait=self.pids.pop(who)))["status"] == 0
        return told["candidates"]

    def errors(self) -> str:
        """What the processes printed of errors."""
        path = self._folder / "errors"
        return path.read_text()[-3000:] if path.exists() else ""


async def undisturbed(town: Town) -> list[str]:
    """What the sessions leave when nothing is killed."""
    await town.start("supervisor")
    await town.start("owner")
    while True:
        try:
            who, told = await town.hear()
        except TimeoutError:
            raise AssertionError(town.errors()) from None
        if (left := await town.candidates_when(told, who)) is not None:
            await town.kill("supervisor")
            return left


@dataclass
class Strike:
    """Whom the next kill is meant for, after how many things that it said, and how long after the last of them."""

    who: str
    after: int
    delay_s: float


def strikes(chance: random.Random, plain: Counter[str]) -> list[Strike]:
    """Ten kills, spread over all that the owner will say; up to half of them of the supervisor, around its commands."""
    spoken, of_supervisor = sum(plain.values()), min(KILLS // 2, max(0, plain["runs"] - 1))
    found: list[Strike] = []
    for number in range(KILLS):
        if number % 2 and number // 2 < of_supervisor:
            found.append(Strike("supervisor", chance.randrange(2), chance.choice((0.0, 0.05, 0.15, 0.25))))
        else:
            found.append(Strike("owner", chance.randrange(max(1, spoken // (4 * KILLS))), chance.uniform(0, 0.02)))
    return found


async def disturbed(town: Town, plan: list[Strike], patience: int, ended: Ended) -> list[str]:
    """What the sessions leave although their processes are killed."""
    await town.start("supervisor")
    await town.start("owner")
    heard, passed, killed_at = 0, 0, dict[str, float]()
    while True:
        try:
            who, told = await town.hear()
        except TimeoutError:
            raise AssertionError(f"{town.doing}: {town.errors()}") from None
        if (left := await town.candidates_when(told, who)) is not None:
            await town.kill("supervisor")
            return left
        if "up" in told and who in killed_at:
            ended.resumed_s.append(time.monotonic() - killed_at.pop(who))
        if not plan:
            continue
        heard, passed = heard + (plan[0].who == who), passed + 1
        # A supervisor that is asked for nothing for long is killed as it idles.
        if heard <= plan[0].after and passed <= patience:
            continue
        strike, heard, passed = plan.pop(0), 0, 0
        await asyncio.sleep(strike.delay_s)
        # What was said meanwhile is heard first, or nobody knows what it was doing.
        while town.has_spoken:
            other, told = await town.hear()
            if (left := await town.candidates_when(told, other)) is not None:
                await town.kill("supervisor")
                return left
        ended.kills[await town.kill(strike.who)] += 1
        killed_at[strike.who] = time.monotonic()
        await town.start(strike.who)


async def ended(
    url: str, folder: Path, born: Nursery, name: str, *, seed: str = "", plain: Ended | None = None
) -> Ended:
    """The sessions of this kind on stores of their own; killed by a plan of this seed where there is a plain end."""
    blobs = FileBlobStore(folder / "blobs")
    async with empty_database(url) as client:
        log = RedisEventLog(client)
        await convened_in_sessions(await written(blobs, FILES)).write_to(log)
        town, found = Town(born, name, url, folder), Ended([], {}, {}, Counter())
        if plain is None:
            found.candidates = await undisturbed(town)
        else:
            plan, patience = strikes(random.Random(seed), plain.said), max(2, plain.said.total() // (2 * KILLS))
            found.candidates = await disturbed(town, plan, patience, found)
        events = await log.read(STREAM)
        stream_verifies(STREAM, events, await log.head(STREAM))
        steps_count_once(STREAM, events, may_ask_anew=name in ("told", "stopped"))
        state = fold(events)
    assert state is not None
    steps = {step: end for step, end in finished_in(events).items() if not step.endswith("/told")}
    found.ends = {step: (end["outcome"], end.get("exit_code")) for step, end in steps.items()}
    found.tokens, found.said = tokens_of(state), town.said
    paid = (folder / "paid").read_text().split("\n")
    assert not [line for line in paid if line.startswith("again")], "a recorded reply was paid for again"
    return found


def test_kinds_of_sessions_are_killed_two_hundred_times():
    assert len(KILLED) >= 20
    assert len(KILLED) * (KILLS - 1) >= 200


@pytest.mark.rule("RC-50", "RC-51", "RC-56", "RC-36", "GL-19")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in IN_EVERY_RUN else [pytest.mark.slow]) for name in KILLED]
)
async def test_owner_and_supervisor_killed_ten_times_come_to_the_same_files(
    name: str, redis_url: str, tmp_path: Path
) -> None:
    url, root = own_database(redis_url), reachable_state_root(tmp_path / "h")
    begun = time.monotonic()
    async with nursery() as born:
        (root / "a").mkdir(parents=True, exist_ok=True)
        (root / "b").mkdir(parents=True, exist_ok=True)
        plain = await ended(url, root / "a", born, name)
        killed = await ended(url, root / "b", born, name, seed=name, plain=plain)
    assert killed.candidates == plain.candidates
    assert killed.ends == plain.ends
    assert killed.tokens == plain.tokens
    assert killed.kills.total() >= KILLS - 1, "the sessions were over before they were killed often enough"
    assert processes_below(root) == []
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    figures = {"kind": name, "s": round(time.monotonic() - begun, 1), "kills": killed.kills, "up_s": killed.resumed_s}
    with REPORT.open("a") as file:
        file.write(json.dumps(figures) + "\n")
