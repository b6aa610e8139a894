"""Owners and supervisors of work sessions, each in a process of its own that a test kills.

`python -m tests.support.session_processes`: all imports are made once; then each line of JSON on standard input starts
a process as a fork, or waits for one that was killed:

    {"start": "owner" | "supervisor", "kind": NAME, "url": URL, "folder": PATH, "life": N}
    {"wait": PID}

Each line on standard output is JSON: `{pid, started}`, `{pid, status}`, and what the processes say by themselves. The
owner calls the supervisor over a socket in the folder, as it does through Ray in a fleet.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import pickle
import signal
import sys
from pathlib import Path
from typing import Any, cast

from fleet.context.scope import ContextConfig
from fleet.context.service.packs import ContextService
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import FleetError, SandboxUnavailable
from fleet.kernel.ids import StreamId
from fleet.log.redis.lease import RedisLeaseStore
from fleet.log.redis.log import RedisEventLog
from fleet.models.port import AgentAnswer, AgentRequest
from fleet.owner.duties.gates import take_ownership
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.port import Sandbox
from fleet.sandbox.redis import RedisRunLedger
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.trees.files import FileBlobStore
from tests.support.chaos_servers import connected
from tests.support.rules import files
from tests.support.session_kinds import (
    KINDS,
    PayingAgents,
    Ports,
    SessionKind,
    begin_life,
    for_bash,
    kind_worked,
)
from tests.support.story_events import STORY

_THINKS_S = 0.02
_FOUND_WITHIN_S = 30.0


def say(**what: Any) -> None:
    """One line for the test, in one write: several processes share the pipe."""
    os.write(1, json.dumps({"pid": os.getpid(), **what}).encode() + b"\n")


class PaidAgents(PayingAgents):
    """An engine whose calls are on the disk before they are answered."""

    def __init__(self, kind: SessionKind, log: RedisEventLog, folder: Path) -> None:
        super().__init__(kind, log)
        self._paid = folder / "paid"

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See `Agents.ask`."""
        say(asks=request_id)
        await asyncio.sleep(_THINKS_S)
        answer = await super().ask(request, request_id=request_id, timeout_s=timeout_s)
        with self._paid.open("a") as file:
            file.write("".join(f"again {name}\n" for name in self.paid_again) or f"paid {request_id}\n")
            file.flush()
            os.fsync(file.fileno())
        value = for_bash(answer.value) if request.kind == "engineer" else answer.value
        return AgentAnswer(**{**_fields(answer), "value": value})


def _fields(answer: AgentAnswer) -> dict[str, Any]:
    return {name: getattr(answer, name) for name in answer.__dataclass_fields__}


class SocketSandbox:
    """The port Sandbox over the socket of whichever supervisor lives now."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def __getattr__(self, op: str) -> Any:
        """The method, in the other process."""

        async def call(*args: Any, **kwargs: Any) -> Any:
            reader, writer = await self._connected()
            try:
                writer.write(pickle.dumps((op, args, kwargs)))
                writer.write_eof()
                is_well, outcome = pickle.loads(await reader.read())
            except (OSError, EOFError, pickle.UnpicklingError) as error:
                raise SandboxUnavailable("the supervisor died during the call", actor="sandbox:n1") from error
            finally:
                writer.close()
            if is_well:
                return outcome
            raise outcome

        return call

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        until = asyncio.get_running_loop().time() + _FOUND_WITHIN_S
        while True:
            try:
                return await asyncio.open_unix_connection(str(self._socket))
            except OSError as error:
                if asyncio.get_running_loop().time() > until:
                    raise SandboxUnavailable("no supervisor answers", actor="sandbox:n1") from error
                await asyncio.sleep(0.02)


async def own(kind: SessionKind, url: str, folder: Path, life: int) -> None:
    """One life of the owner, under an epoch of its own."""
    clock, blobs, stream = SystemClock(), FileBlobStore(folder / "blobs"), StreamId.of_story(STORY)
    async with connected(url) as client:
        log, owner = RedisEventLog(client), f"council:0/{life}"
        epoch = (await RedisLeaseStore(client).claim(stream, owner, ttl_s=600)).epoch
        agents = PaidAgents(kind, log, folder)
        packs = ContextService(log, blobs, files().load("context.yaml", ContextConfig), clock=clock)
        sandbox = cast("Sandbox", SocketSandbox(folder / "s"))
        ports = Ports(log=log, blobs=blobs, clock=clock, sandbox=sandbox, agents=agents, packs=packs)
        agents.life = begun = await begin_life(kind, ports, epoch=epoch)
        await take_ownership(begun.bench, epoch=epoch, owner=owner)
        say(up="owner")
        with begun.bench.journal.watched(lambda: say(appended=begun.bench.state.version)):
            candidates = await kind_worked(kind, begun, tries=20)
        say(candidates=candidates)


class ToldBackend(BubblewrapBackend):
    """A sandbox that says when a command begins and ends."""

    async def run(self, spec: RunSpec, **how: Any) -> RunResult:
        """See `SandboxBackend.run`."""
        say(runs=how.get("run_id", "")[:12])
        try:
            return await super().run(spec, **how)
        finally:
            say(ran=how.get("run_id", "")[:12])


async def supervise(url: str, folder: Path) -> None:
    """One life of the supervisor."""
    blobs = FileBlobStore(folder / "blobs")
    async with connected(url) as client:
        backend = ToldBackend(folder / "sandbox", blobs)
        supervisor = ToolSupervisor(backend, RedisRunLedger(client, margin_s=2), blobs, SystemClock(), "sandbox:n1")

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            op, args, kwargs = pickle.loads(await reader.read())
            try:
                outcome: tuple[bool, Any] = (True, await getattr(supervisor, op)(*args, **kwargs))
            except FleetError as error:
                outcome = (False, error)
            with contextlib.suppress(OSError):
                writer.write(pickle.dumps(outcome))
                await writer.drain()
                writer.close()

        # As in a fleet: what an earlier life left is removed, and what the machine enforces is found out, first.
        await supervisor.sweep()
        await supervisor.health()
        (folder / "s").unlink(missing_ok=True)
        async with await asyncio.start_unix_server(serve, str(folder / "s")) as server:
            say(up="supervisor")
            await server.serve_forever()


def _start(order: dict[str, Any]) -> int:
    if pid := os.fork():
        return pid
    status, folder = 1, Path(order["folder"])
    try:
        errors = os.open(folder / "errors", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(errors, 2)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        if order["start"] == "owner":
            asyncio.run(own(KINDS[order["kind"]], order["url"], folder, order["life"]))
        else:
            asyncio.run(supervise(order["url"], folder))
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def main() -> None:
    """Start and wait until nobody asks any more; then end what is left."""
    gc.freeze()
    alive = set[int]()
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            alive.add(pid := _start(order))
            say(child=pid, started=order["start"])
        else:
            _, status = os.waitpid(order["wait"], 0)
            alive.discard(order["wait"])
            say(child=order["wait"], status=status)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
