"""Work sessions on a Ray of two nodes whose owner, sandbox, role agent or whole node dies, again and again.

One story is worked undisturbed. Then others with the same work, until there were 20 kills: in the middle of their
sessions the actor that owns the story, the supervisor with a command under way, the role agent that asks the engine,
and the node on which the owner lives are killed in turn. Ray starts what was killed again, on the other node where a
node died.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import yaml

from cluster.local.identity import descendants
from fleet.config.files import ConfigFiles, packaged_directory
from fleet.events.envelope import StoredEvent
from fleet.kernel.ids import StoryId, StreamId
from fleet.story.state import StoryState
from tests.support.openai_server import FakeOpenAIServer, Scripted, served_in_thread
from tests.support.oracle import steps_count_once, stream_verifies
from tests.support.ray_fleet import Client, RayFleet, owners_of, ray_fleet, until
from tests.support.team_models import demo_repository, demo_story
from tests.support.team_server import ENGINEER, call_of_engineer, team_answer, working_engine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "build/reports/ray-session-kills.jsonl"
RESUMED_S = 60
PATIENCE_S = 300
"""How long a test waits to be able to tell how long it took; `RESUMED_S` is what must hold."""
KILLS = 20
THINKS_S = 0.2
_SLOW = "sleep 1; echo {0} >> notes.txt; exit {1}"
SCRIPT = (
    *ENGINEER[:3],
    *(call_of_engineer("run", command=_SLOW.format(n, n % 4 if n < 8 else 0)) for n in range(12)),
    call_of_engineer("run", command="sleep 1; rm notes.txt"),
    *ENGINEER[3:],
)
VICTIMS = ("sandbox", "owner", "engine", "node")


@dataclass
class Engine:
    """Answers as a team whose engineers work by the script, and notes what it was asked, and when."""

    asked: list[tuple[float, Any, int]] = field(default_factory=list[tuple[float, Any, int]])

    def answer(self, request: dict[str, Any]) -> Scripted:
        """The reply to one request."""
        messages = request["messages"]
        if not str(messages[0]["content"]).startswith("Work: engineer"):
            return team_answer(request)
        turn = sum(message["role"] == "assistant" for message in messages)
        self.asked.append((time.time() * 1000, request.get("seed"), turn))
        time.sleep(THINKS_S)
        return Scripted(SCRIPT[min(turn, len(SCRIPT) - 1)])


@pytest.fixture
def engine() -> Iterator[tuple[Engine, FakeOpenAIServer]]:
    """A model server that outlives the fleet."""
    playing = Engine()
    with served_in_thread() as server:
        server.answer = playing.answer
        yield playing, server


@pytest.fixture
def fleet(
    tmp_path_factory: pytest.TempPathFactory, engine: tuple[Engine, FakeOpenAIServer], tmp_path: Path
) -> Iterator[RayFleet]:
    """A head without actors, and two nodes for them."""
    own = tmp_path / "config"
    own.mkdir()
    document = dict(ConfigFiles(packaged_directory()).document("models.yaml"))
    document["engines"] = [*document["engines"], working_engine(engine[1].base_url)]
    (own / "models.yaml").write_text(yaml.safe_dump(document))
    with ray_fleet(tmp_path_factory.mktemp("n"), workers=2, settings={"FLEET_CONFIG": str(own)}) as found:
        yield found


def steps_of_sessions(events: list[StoredEvent], kind: str = "StepFinished") -> list[tuple[str, dict[str, Any], int]]:
    """Name, body and time of what was recorded of the sessions."""
    bodies = [(json.loads(e.body), e.ts_ms) for e in events if e.type == kind]
    return [(b["step_id"], b, ts) for b, ts in bodies if "/draft/developer" in b["step_id"]]


def under_way(events: list[StoredEvent]) -> set[str]:
    """Steps of the sessions that were started and have no result."""
    return {name for name, _, _ in steps_of_sessions(events, "StepStarted")} - {
        name for name, _, _ in steps_of_sessions(events)
    }


def heads_of(events: list[StoredEvent]) -> Counter[tuple[str, str]]:
    """How each session ended, and with which files."""
    bodies = [json.loads(event.body) for event in events if event.type == "SessionEnded"]
    return Counter((body["reason"], body["head_digest"]) for body in bodies)


@dataclass
class Struck:
    """Seconds until all that a kill interrupted had its result, by victim, and until there was a new owner."""

    resumed_s: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    owned_s: list[float] = field(default_factory=list[float])

    @property
    def count(self) -> int:
        """Of all kills."""
        return sum(map(len, self.resumed_s.values()))


class Striker:
    """Kills processes of one story's fleet."""

    def __init__(self, fleet: RayFleet, client: Client, story: StoryId, struck: Struck) -> None:
        self._fleet, self._client, self._story, self._struck = fleet, client, story, struck

    async def _events(self) -> list[StoredEvent]:
        return await self._client.events(self._story)

    def _owner(self) -> int | None:
        owners = self._fleet.proxy.owners(f"story:{self._story}")
        return owners[max(owners)][1] if owners else None

    def _at_a_command(self) -> int | None:
        """A supervisor with a command under way."""
        for name, pid in self._fleet.pids().items():
            if name.startswith("sandbox:") and any(p.pid != pid for p in descendants(pid)):
                return pid
        return None

    def _node(self) -> int | None:
        """The raylet of the node on which the owner lives."""
        owner = self._owner()
        living = self._fleet.raylets[1:]
        return next((r for r in living if any(p.pid == owner for p in descendants(r))), None)

    def _victim(self, who: str) -> int | None:
        match who:
            case "owner":
                return self._owner()
            case "sandbox":
                return self._at_a_command()
            case "engine":
                return self._fleet.pids().get("role:developer:0")
            case _:
                return self._node()

    async def strike(self, who: str) -> bool:
        """One kill, in the middle of sessions, and the wait until they go on; False when they are over."""
        pid = 0
        while not pid:
            events = await self._events()
            if any(e.type == "SessionEnded" for e in events):
                return False
            if len(steps_of_sessions(events)) > 3:
                pid = await asyncio.to_thread(self._victim, who) or 0
            await asyncio.sleep(0.05)
        before, epochs = len(steps_of_sessions(events)), len(owners_of(events))
        lost = under_way(await self._events())
        self._fleet.send(pid, signal.SIGKILL)
        killed = time.monotonic()
        if who == "node":
            self._fleet.raylets.remove(pid)

        async def goes_on() -> bool:
            events = await self._events()
            return not lost & under_way(events) and len(steps_of_sessions(events)) > before

        async def is_owned() -> bool:
            return len(owners_of(await self._events())) > epochs

        is_taken = who in ("owner", "node")
        if is_taken:
            await until(is_owned, within_s=PATIENCE_S, why=f"a new owner after the death of the {who}")
            self._struck.owned_s.append(time.monotonic() - killed)
            before = len(steps_of_sessions(await self._events()))
        # Of several sessions only some are hit: all that was under way has its result, and one thing more is recorded.
        await until(goes_on, within_s=PATIENCE_S, why=f"sessions go on after the death of the {who}")
        resumed_s = time.monotonic() - killed
        self._struck.resumed_s.setdefault(who, []).append(resumed_s)
        with REPORT.open("a") as file:
            row = {"who": who, "resumed_s": round(resumed_s, 1), "load": os.getloadavg()[0]}
            file.write(json.dumps(row | ({"owned_s": round(self._struck.owned_s[-1], 1)} if is_taken else {})) + "\n")
        if who == "node":
            await asyncio.to_thread(self._fleet.add_node)
            self._fleet.raylets = [r for r in self._fleet.raylets if r != pid]
        return True


async def worked(client: Client, root: Path, number: int) -> StoryId:
    """A story that was just started."""
    text = {**demo_story(), "title": f"As a reader, I want slugs of titles, number {number}"}
    text["constraints"] = {name: value for name, value in text["constraints"].items() if name != "paths"}
    story_id = await client.create(text)
    repo = await asyncio.to_thread(demo_repository, root / str(number))
    await client.start(story_id, repo, model="able")
    return story_id


async def ended(client: Client, story_id: StoryId) -> tuple[StoryState, list[StoredEvent]]:
    """The story at its end."""
    state = await client.settled(story_id, within_s=400)
    events = await client.events(story_id)
    assert state.closed, state.park
    return state, events


@pytest.mark.rule("GL-19", "RC-50", "RC-51", "RC-54", "RC-36", "CN-22")
async def test_sessions_of_killed_actors_and_nodes_go_on_within_a_minute_to_the_same_files(
    fleet: RayFleet, engine: tuple[Engine, FakeOpenAIServer], tmp_path: Path
) -> None:
    struck = Struck()
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    async with fleet.client() as client:
        _, plain = await ended(client, await worked(client, tmp_path, 0))
        expected = heads_of(plain)
        number, turn = 0, 0
        while struck.count < KILLS:
            number += 1
            story_id = await worked(client, tmp_path, number)
            striker = Striker(fleet, client, story_id, struck)
            while struck.count < KILLS and await striker.strike(VICTIMS[turn % len(VICTIMS)]):
                turn += 1
            assert turn >= 2 * number, "stories end before they are struck"
            state, events = await ended(client, story_id)
            stream = StreamId.of_story(story_id)
            assert heads_of(events) == expected
            stream_verifies(stream, events, await client.log.head(stream))
            steps_count_once(stream, events)
            exits = sorted(str(b.get("exit_code")) for _, b, _ in steps_of_sessions(events))
            assert exits == sorted(str(b.get("exit_code")) for _, b, _ in steps_of_sessions(plain))
            steps = [(n.rpartition("/")[2], b["provenance"].get("seed"), ts) for n, b, ts in steps_of_sessions(events)]
            # A developer who drafts in one reply, as of a design, has a step without a turn.
            replies = [(int(turn), seed, ts) for turn, seed, ts in steps if seed is not None and turn.isdecimal()]
            recorded = {(seed, turn): ts for turn, seed, ts in replies}
            asked = [(at, (seed, turn + 1)) for at, seed, turn in engine[0].asked]
            late = [key for at, key in asked if key in recorded and at > recorded[key]]
            assert len([key for _, key in asked if key in recorded]) >= len(recorded) > 10
            assert late == [], "a recorded reply was asked for again"
    kills = {who: len(times) for who, times in struck.resumed_s.items()}
    assert set(kills) == set(VICTIMS)
    told = {who: (round(median(times), 1), round(max(times), 1)) for who, times in struck.resumed_s.items()}
    assert max(latest for _, latest in told.values()) < RESUMED_S, told
