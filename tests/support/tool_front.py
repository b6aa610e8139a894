"""The front with tools in one process: a story in BUILD, its owner, a sandbox, and people with tokens."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from fastapi import FastAPI

from fleet.config.settings import ServeSettings
from fleet.desk.budgets import BudgetDesk
from fleet.desk.principals import PrincipalEntry, PrincipalRegistry, hash_token
from fleet.desk.tools.desk import ToolDesk
from fleet.events.codec import encode
from fleet.events.payload import Payload
from fleet.events.story import StoryTransitioned
from fleet.graph.memory.graph import MemoryGraph
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import CommandId, Principal, StreamId
from fleet.log.port import AppendRequest
from fleet.models.profiles import Budgets
from fleet.owner.shard import CouncilShard
from fleet.owner.spending.memory import MemoryDaySpending
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.memory import MemoryRunLedger, MemoryRunLogs, Program, ProgramEnd
from fleet.sandbox.port import SandboxBackend
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.story.commands.catalogue import parse_command
from fleet.tools.kit.parts import ToolParts
from fleet.tools.memory import MemoryToolSessions
from fleet.wiring.sandbox.tools import make_toolbox
from serve_apps.routes.gateway import build_gateway
from tests.support.bench import PEOPLE, World
from tests.support.front import front_parts
from tests.support.graphs import project
from tests.support.rules import files, step_policy
from tests.support.story_events import STAGES, STORY, TASK, story

REGISTRY = PrincipalRegistry(
    tuple(
        PrincipalEntry(
            principal=Principal(name), roles=roles, token_sha256=hash_token(f"{name.removeprefix('user:')}-token")
        )
        for name, roles in PEOPLE.items()
    )
)
DEV, ROOT, QUINN, ARCHIE, RITA = (
    {"Authorization": f"Bearer {name}-token"} for name in ("dev", "root", "quinn", "archie", "rita")
)


def keyed(number: int, who: dict[str, str] = DEV) -> dict[str, str]:
    """Headers of a request that changes something."""
    return who | {"Idempotency-Key": f"key-number-{number}"}


@dataclass
class ToolFront:
    """A client of the front, over the world's stores."""

    world: World
    app: FastAPI
    client: httpx2.AsyncClient
    shard: CouncilShard
    running: asyncio.Task[None]
    sessions: MemoryToolSessions

    async def lose_owner(self) -> None:
        """Nobody answers commands any more."""
        await self.shard.drain()
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)

    @asynccontextmanager
    async def owner(self) -> AsyncGenerator[None]:
        """Another shard answers commands until the block ends."""
        shard = _shard(self.world, "a2")
        task = asyncio.create_task(shard.run())
        try:
            yield
        finally:
            await shard.drain()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def record(self, *payloads: Payload) -> None:
        """Somebody recorded these in the story; its owner learns of it when it writes next."""
        stream = StreamId.of_story(STORY)
        head = await self.world.log.head(stream)
        request = AppendRequest(
            stream=stream,
            events=[encode(payload) for payload in payloads],
            expected=head,
            command_id=CommandId(f"{STORY}/recorded-{head.version}"),
            actor=Principal("system:council"),
            ts_ms=self.world.clock.now_ms(),
        )
        await self.world.log.append(request)

    async def session(self, *, number: int = 1, **changes: Any) -> dict[str, Any]:
        """A session of the developer in the task that is theirs."""
        body = {"story_id": STORY, "role": "developer", "task_id": TASK} | changes
        response = await self.client.post("/api/tools/sessions", json=body, headers=keyed(number))
        assert response.status_code == 201, response.text
        return response.json()

    async def invoke(self, session: str, tool: str, op: str, *, number: int = 1, **args: Any) -> httpx2.Response:
        """A call of the developer."""
        body = {"tool": tool, "op": op, "args": args}
        return await self.client.post(f"/api/tools/sessions/{session}/invoke", json=body, headers=keyed(number))

    async def run(self, *cmd: str, number: int = 1, **changes: Any) -> httpx2.Response:
        """A run that the developer asks for."""
        return await self.client.post("/api/runs", json=task_spec(*cmd, **changes), headers=keyed(number))

    async def result(self, run_id: str, *, timeout_s: int = 20) -> dict[str, Any]:
        """How the developer's run ended."""
        found = await self.client.get(f"/api/runs/{run_id}/result?timeoutSec={timeout_s}", headers=DEV)
        assert found.status_code == 200, found.text
        return found.json()


def task_spec(*cmd: str, **changes: Any) -> dict[str, Any]:
    """A TaskSpec in the story of the front."""
    context = {"case_id": STORY, "task_id": TASK, "role": "developer"}
    return {"image": "python", "cmd": list(cmd), "context": context, **changes}


async def _claimed(world: World) -> None:
    log = story(only=[s for s in STAGES[: STAGES.index("planned") + 1] if s not in ("started", "base")])
    log.add(StoryTransitioned(from_="DESIGN", event="approve_design", to="BUILD"))
    log.task(TASK, "todo", "ASSIGN_TO_DEVELOPER", "implementing")
    await log.write_to(world.log)


def _shard(world: World, incarnation: str) -> CouncilShard:
    return CouncilShard(
        name="council:0",
        incarnation=incarnation,
        log=world.log,
        leases=world.leases,
        inbox=world.inbox,
        clock=world.clock,
        make_bench=world.bench,
        commands=world.commands,
        sweep_s=0.2,
        projects=world.brief_owners(f"council:0/{incarnation}"),
    )


@asynccontextmanager
async def tool_front(
    *,
    program: Program = lambda _: ProgramEnd(stdout=b"one\ntwo\n"),
    state: Path | None = None,
    supervisor: type[ToolSupervisor] = ToolSupervisor,
    with_tools: bool = True,
) -> AsyncGenerator[ToolFront]:
    """The front of a story in BUILD that nobody works on but the developer `user:dev`, whose task it is.

    Args:
        program: what every run does in the scripted sandbox.
        state: a folder for the real sandbox, which is used instead.
        supervisor: of the sandbox.
        with_tools: whether tools are wired.
    """
    world = World(clock=SystemClock(), program=program, policy=step_policy())
    backend: SandboxBackend = BubblewrapBackend(state, world.blobs) if state else world.backend
    ledger = MemoryRunLedger()
    world.sandbox = supervisor(backend, ledger, world.blobs, world.clock, "sandbox:front", logs=MemoryRunLogs())
    policy = world.policy.policy
    held = ToolParts(sandbox=world.sandbox, blobs=world.blobs, clock=world.clock, targets=policy.targets)
    world.tools = make_toolbox(held, policy, ledger=ledger, name="sandbox:front/tools")
    await _claimed(world)
    sessions = MemoryToolSessions()
    desk = ToolDesk(
        planning=world.desk,
        sessions=sessions,
        blobs=world.blobs,
        sandbox=world.sandbox,
        clock=world.clock,
        policy=policy,
        roles_of=REGISTRY.roles_of,
    )
    budgets = BudgetDesk(log=world.log, spending=MemoryDaySpending(), limits=Budgets(), clock=world.clock)
    settings = files().load("serve.yaml", ServeSettings)
    tools = desk if with_tools else None
    graph = MemoryGraph()
    await project(graph, await world.events())
    parts = front_parts(world, graph=graph)
    app = build_gateway(world.desk, REGISTRY, settings, tools=tools, budgets=budgets, parts=parts)
    shard = _shard(world, "a1")
    task = asyncio.create_task(shard.run())
    try:
        body = {"task_id": TASK, "as_role": "developer"}
        await world.desk.require(
            STORY, parse_command("claim_task", body), principal=Principal("user:dev"), key="claim-it"
        )
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://fleet", timeout=30) as client:
            yield ToolFront(world, app, client, shard, task, sessions)
    finally:
        await shard.drain()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncGenerator[str]:
    """The URL of the application on a loopback port, over real HTTP, until the block ends."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            async with asyncio.timeout(10):
                while not server.started:
                    await asyncio.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task
