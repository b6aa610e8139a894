"""One real fleet for the tests of all doors: packaged configuration, embedded stores, a team behind a model server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner
from websockets.sync.client import ClientConnection, connect

from cluster.local.record import find_running
from fleet.cli.app import app
from fleet.cli.local.local_principals import ensure_principals
from fleet.desk.principals import hash_token
from fleet.events.codec import encode
from fleet.events.step import PolicyRef, Reserve, StepOutcomeUnknown, StepStarted
from fleet.kernel.ids import SYSTEM, CommandId, Digest, RunKey, StepId, StoryId, StreamId
from fleet.log.port import MAX_ATTEMPTS, Appended, AppendRequest, DeadLetter, Failure
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.dead_letters import RedisDeadLetters
from fleet.log.redis.log import RedisEventLog
from fleet.models.probed import ExerciseScore, ProbedEngine
from fleet.wiring.models.probes import keep_probe
from tests.doors.table import SOCKET, command_of, operation_of
from tests.support.openai_server import FakeOpenAIServer
from tests.support.processes import processes_below
from tests.support.team_models import DEMO, demo_repository, demo_story
from tests.support.team_server import engineers_at_work, served_team

ROOT = Path(__file__).resolve().parents[2]
STORIES = "/api/planner/stories"
WELL = (0, 3)
"""Exit codes of a command that did what it was asked for: done, or waiting for a person."""
COLLEAGUE = "token-of-a-colleague"
ABLE = "vllm"
"""Model profile of stories whose developers work in sessions: the probe that is kept of it chose that."""
_keys = itertools.count(1)


@dataclass(frozen=True)
class Done:
    """How one command ended."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """The JSON object on the last line of standard output."""
        assert self.out.strip(), self.err[-4000:]
        return json.loads(self.out.strip().splitlines()[-1])

    def ok(self) -> dict[str, Any]:
        """The result of a command that ended with 0."""
        assert self.code == 0, self.out[-2000:] + self.err[-4000:]
        return self.result


@dataclass
class World:
    """A running fleet with its folders, a client with the token of the local user, and stories made on first use."""

    home: Path
    folder: Path
    client: httpx2.Client
    engine: FakeOpenAIServer
    model: str = "openai"
    """Model profile of the stories."""
    passed: set[str] = field(default_factory=set)
    """The doors that answered well so far."""
    _runner: CliRunner = field(default_factory=CliRunner)

    @property
    def model_url(self) -> str:
        """Address of the model server."""
        return os.environ["FLEET_OPENAI_BASE_URL"]

    def fleet(self, *arguments: str) -> Done:
        """One command of the command line, inside this process; with `--json`."""
        # A command runs a loop of its own, which a test that has one must not be in.
        with ThreadPoolExecutor(1) as thread:
            ended = thread.submit(self._runner.invoke, app, with_json(arguments)).result()
        failed = ended.exception
        assert failed is None or isinstance(failed, SystemExit), repr(failed)
        return self._ended(Done(ended.exit_code, ended.stdout, ended.stderr), arguments)

    def _ended(self, done: Done, arguments: Sequence[str]) -> Done:
        if done.code in WELL:
            self.passed.add(command_of(arguments))
        return done

    def process(self, *arguments: str) -> Done:
        """One command as a process of its own, as a user starts it; with `--json`."""
        argv = [sys.executable, "-m", "fleet.cli", *with_json(arguments)]
        ended = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
        return self._ended(Done(ended.returncode, ended.stdout, ended.stderr), arguments)

    def send(self, method: str, path: str, body: Any = None, *, status: int = 200, **more: Any) -> Any:
        """The JSON answer of one request, which has this status; a body goes with a key of its own."""
        headers = {"Idempotency-Key": f"key-of-a-door-{secrets.token_hex(8)}"} | more.pop("headers", {})
        response = self.client.request(method, path, json=body, headers=headers, **more)
        assert response.status_code == status, f"{method} {path}: {response.status_code} {response.text[:2000]}"
        if response.is_success:
            self.heard(response)
        is_json = "json" in response.headers.get("content-type", "")
        return response.json() if is_json and response.content else response

    def heard(self, response: httpx2.Response) -> None:
        """Notes the door of an answer that is good, also of one that came another way than by `send`."""
        assert response.is_success, f"{response.status_code} {response.url}"
        if door := operation_of(response.request.method, response.url.path):
            self.passed.add(door)

    def get(self, path: str, **more: Any) -> Any:
        """The JSON answer to a GET."""
        return self.send("GET", path, **more)

    def post(self, path: str, body: Any = None, *, status: int = 200, **more: Any) -> Any:
        """The JSON answer to a POST with a key of its own."""
        return self.send("POST", path, body, status=status, **more)

    def repository(self) -> Path:
        """A fresh copy of the example repository."""
        return demo_repository(self.folder / f"r{next(_keys)}")

    def story_file(self, **changes: Any) -> Path:
        """The example story as a file, with these fields instead."""
        path = self.folder / f"story-{next(_keys)}.yaml"
        path.write_text(json.dumps(demo_story() | changes))
        return path

    def create(self, **changes: Any) -> str:
        """Id of a new story, which nobody started."""
        return self.post(STORIES, demo_story() | changes, status=201)["story_id"]

    def show(self, story_id: str) -> dict[str, Any]:
        """What the front says of a story."""
        return self.get(f"{STORIES}/{story_id}")

    def start(self, story_id: str, *delegates: str, model: str = "") -> None:
        """Starts a story on a repository of its own; the gates of these roles are delegated."""
        body = {"repo": str(self.repository()), "model": model or self.model, "delegate": list(delegates)}
        self.send("POST", f"{STORIES}/{story_id}/start", body, status=200)

    def wait(self, holds: Callable[[], Any], *, within_s: float = 120) -> Any:
        """The first true value; what it waits for is looked at ten times a second."""
        deadline = time.monotonic() + within_s
        while not (found := holds()):
            assert time.monotonic() < deadline, "it did not come to hold"
            time.sleep(0.1)
        return found

    def waiting(self, story_id: str, gate: str) -> str:
        """The id of the request once the story waits for a person at this gate."""

        def request() -> str | None:
            return next((i["approval_id"] for i in self.asked(story_id) if i["gate"] == gate), None)

        return self.wait(request)

    def asked(self, story_id: str) -> list[dict[str, Any]]:
        """What waits for a person in this story."""
        found = self.get("/api/approvals", params={"storyId": story_id})["items"]
        return [i for i in found if i["status"] == "requested"]

    def granted(self, story_id: str, gate: str) -> str:
        """The id of the request once the story waits at this gate; those before it get a yes."""

        def request() -> str | None:
            for asked in self.asked(story_id):
                if asked["gate"] == gate:
                    return asked["approval_id"]
                self.post(f"/api/approvals/{asked['approval_id']}/grant", {"notes": ""})
            return None

        return self.wait(request)

    def set_aside(self, failure: Failure) -> str:
        """Id of the dead letter of work that failed as often as it may."""

        async def fail() -> DeadLetter | None:
            running = find_running(self.home)
            assert running is not None
            client = connect_redis(running.addresses.redis_url)
            try:
                return [await RedisDeadLetters(client, client).failed(failure) for _ in range(MAX_ATTEMPTS)][-1]
            finally:
                await client.aclose()

        letter = asyncio.run(fail())
        assert letter is not None
        return letter.letter_id

    def left_unknown(self, story_id: str) -> str:
        """Id of a step that was sent, that may not be repeated, and whose end nobody knows.

        As shipped no call of a story is of that kind, so its two records are written as the owner writes them.
        """
        step_id = StepId("deployments/9")
        sent = Digest(f"sha256:{'5' * 64}")
        started = StepStarted(
            step_id=step_id,
            kind="tool",
            tool="environment",
            op="start",
            effect="UNSAFE",
            as_role="deployer",
            principal=SYSTEM,
            request_digest=sent,
            key=RunKey("6" * 64),
            deadline_ms=int(time.time() * 1000),
            policy=PolicyRef(rule_id="shipped", digest=sent),
            reserve=Reserve(wall_ms=1000),
        )
        unknown = StepOutcomeUnknown(step_id=step_id, sent_digest=sent, sent_at=started.deadline_ms)

        async def write() -> object:
            running = find_running(self.home)
            assert running is not None
            client = connect_redis(running.addresses.redis_url)
            try:
                log, stream = RedisEventLog(client), StreamId.of_story(StoryId(story_id))
                command = CommandId(f"{story_id}/{step_id}/start")
                events = [encode(started), encode(unknown)]
                now_ms = int(time.time() * 1000)
                return await log.append(AppendRequest(stream, events, await log.head(stream), command, SYSTEM, now_ms))
            finally:
                await client.aclose()

        assert isinstance(asyncio.run(write()), Appended)
        # The owner reads what another has written as soon as it writes itself.
        self.send("PUT", f"/api/budgets/story/{story_id}", {"limits": {"tokens": 5000}, "note": "a small one"})
        return step_id

    def started(self, **changes: Any) -> str:
        """Id of a new story of its own that waits for the po at its first gate."""
        story_id = self.create(**changes)
        self.start(story_id)
        self.waiting(story_id, "approve_scope")
        return story_id

    def frames(self, story_id: str, *, last: str | None = None) -> Generator[dict[str, Any]]:
        """The events that the stream sends of a story, behind the one with the id `last`."""
        headers = {} if last is None else {"Last-Event-ID": last}
        params = {"storyId": story_id}
        with self.client.stream("GET", "/api/events/stream", params=params, headers=headers) as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"].startswith("text/event-stream")
            self.passed.add("GET /api/events/stream")
            data = (line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: "))
            yield from map(json.loads, data)

    @contextmanager
    def socket(self) -> Iterator[ClientConnection]:
        """An open line to the front, which knows who speaks."""
        url = self.client.base_url.copy_with(scheme="ws", path="/api/ws")
        with connect(str(url)) as line:
            line.send(json.dumps({"op": "auth", "token": (self.home / "token").read_text().strip()}))
            line.send(json.dumps({"op": "ping"}))
            assert json.loads(line.recv(timeout=60)) == {"op": "pong"}
            self.passed.add(SOCKET)
            yield line

    @cached_property
    def waits(self) -> str:
        """Id of a story that waits at its first gate, to be asked and added to, not to be moved."""
        return self.started()

    @cached_property
    def done(self) -> str:
        """Id of a story that ended; `done_repo` has its branch."""
        arguments = ["--repo", str(self.done_repo), "--model", self.model, "--yes", "po,qa"]
        result = self.fleet("run", str(DEMO / "story.yaml"), *arguments).ok()
        assert (result["outcome"], result["verdict"]) == ("done", "pass"), result
        return result["story_id"]

    @cached_property
    def done_repo(self) -> Path:
        """The repository of `done`."""
        return self.repository()


def with_json(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--json` before those of another program."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [*arguments[:end], "--json", *arguments[end:]]


def joined_world(folder: Path, home: Path) -> World:
    """The fleet that `python -m tests.support.world HOME` keeps up while its tests are written."""
    patch = json.loads((home / "world.json").read_text())
    os.environ.update(patch["variables"])
    headers = {"Authorization": f"Bearer {(home / 'token').read_text().strip()}"}
    client = httpx2.Client(base_url=patch["api"], headers=headers, timeout=200)
    return World(home, folder, client, FakeOpenAIServer())


def add_colleague(home: Path) -> None:
    """A second person with every role: nobody grants what they asked for themselves."""
    ensure_principals(home / "principals.json")
    (local,) = json.loads((home / "principals.json").read_text())
    other = {**local, "principal": "user:colleague", "token_sha256": hash_token(COLLEAGUE)}
    (home / "principals.json").write_text(json.dumps([local, other]))


def _keep_probe_of_the_able(home: Path) -> None:
    """What `fleet models probe` keeps of an engine that calls tools well."""
    right, fix = ExerciseScore(right=6, of=6), ExerciseScore(right=1, of=1)
    probed = ProbedEngine(
        engine_id=ABLE,
        model="tiny-1b",
        probed_at="2026-01-01T00:00:00Z",
        window=32_000,
        text_calls=right,
        edits=right,
        facts=right,
        fixes=fix,
        tokens=40_000,
    )
    keep_probe(home, probed)


@contextmanager
def running_world(
    folder: Path, home: Path, *, model: str = "openai", variables: Callable[[str], Mapping[str, str]] | None = None
) -> Iterator[World]:
    """One fleet, started and stopped by real commands; afterwards nothing of it is left.

    Args:
        model: profile of its stories.
        variables: of the environment, beside those that every fleet of tests has; given the address of the model.
    """
    folder.mkdir(exist_ok=True)
    with served_team() as engine, pytest.MonkeyPatch.context() as patch:
        engine.answer = engineers_at_work
        given = {
            "FLEET_HOME": str(home),
            "FLEET_MEMORY_FLOOR_MB": "500",
            "FLEET_OPENAI_BASE_URL": engine.base_url,
            "FLEET_VLLM_BASE_URL": engine.base_url,
            "FLEET_AUDIT_INTERVAL_S": "5",
            **(variables(engine.base_url) if variables else {}),
        }
        for name, value in given.items():
            patch.setenv(name, value)
        add_colleague(home)
        _keep_probe_of_the_able(home)
        try:
            with httpx2.Client(timeout=200) as client:
                world = World(home, folder, client, engine, model)
                client.base_url = world.process("up", "--detach").ok()["api"]
                client.headers["Authorization"] = f"Bearer {(home / 'token').read_text().strip()}"
                yield world
        finally:
            stopped = World(home, folder, httpx2.Client(), engine).process("down")
        assert stopped.ok() == {"stopped": True}
        assert processes_below(home) == []


def main(home: Path) -> None:
    """Keeps one fleet up until Ctrl-C or SIGTERM, for tests that are run with `DOORS_HOME` set to its home."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder, running_world(Path(folder), home) as world:
        given = {name: value for name, value in os.environ.items() if name.startswith("FLEET_")}
        (home / "world.json").write_text(json.dumps({"api": str(world.client.base_url), "variables": given}))
        sys.stderr.write(f"ready: DOORS_HOME={home} pytest tests/doors\n")
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
