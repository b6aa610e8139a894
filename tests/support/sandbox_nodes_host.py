"""Supervisors of the sandbox on several nodes of Ray: `python -m tests.support.sandbox_nodes_host PLAN`.

PLAN is JSON: `{home, redis_url, acts}`. A head, two nodes of the pool `sandbox` and the supervisor of the home are
started; then comes what `acts` names, in its order. One line of JSON on standard output says what was seen in each.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from hashlib import sha256
from itertools import count, islice
from pathlib import Path
from typing import Any

from cluster.local.identity import ProcessIdentity, descendants, end_all
from fleet.kernel.errors import FleetError
from fleet.kernel.ids import RunKey, StoryId
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.keys import ledger_run_key
from fleet.policy.runs.spec import Limits, RunSpec
from fleet.sandbox.service.spread import on_node, ranked
from tests.support.ray_fleet import until
from tests.support.ray_host import HostPlan, endpoints
from tests.support.ray_nodes_host import PATIENT, NodesOfOneMachine
from tests.support.tool_calls import call_of, context_of

POOL = {"pool": "sandbox"}
HOME = "sandbox:local"
STORY = StoryId("st-nodes")
LIMITS = Limits(overall_s=300, idle_s=300)
PATIENCE_S = 200.0
# A node that is killed is to be missed soon; a busy machine still answers within these three seconds.
WATCHFUL = {**PATIENT, "RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}


class Scene:
    """A cluster, the home's supervisor on it, and a caller of the sandbox as a council is one."""

    def __init__(self, nodes: NodesOfOneMachine, plan: HostPlan) -> None:
        from fleet.remote.ports import RaySandbox
        from fleet.remote.resolver import ActorResolver
        from fleet.remote.supervisors import Supervisors

        self.nodes, self._plan = nodes, plan
        self.resolver = ActorResolver()
        self.supervisors = Supervisors(self.resolver, HOME)
        self.sandbox = RaySandbox(self.resolver, "local", spread=self.supervisors)
        self._redis = connect_redis(plan.redis_url)
        self._numbers = count()

    async def named(self, number: int) -> tuple[str, ...]:
        """The names of all supervisors, once there are so many."""

        async def found() -> tuple[str, ...] | None:
            names = await self.supervisors.names()
            return names if len(names) == number else None

        return await until(found, within_s=PATIENCE_S, why=f"there are {number} supervisors")

    def node_of_home(self) -> str:
        """The node that has no supervisor of its own, among those that are alive."""
        from fleet.remote.nodes import alive_nodes

        alive = {node.node_id for node in alive_nodes()} & self.nodes.raylets.keys()
        (home,) = {node_id for node_id in alive if on_node(node_id) not in self._last_names}
        return home

    async def keys(self, name: str, number: int) -> list[RunKey]:
        """Keys that belong to this supervisor among those that there are now."""
        self._last_names = await self.supervisors.names()
        drawn = (RunKey(sha256(f"{self._plan.home} {n}".encode()).hexdigest()) for n in self._numbers)
        return list(islice((key for key in drawn if ranked(key, self._last_names)[0] == name), number))

    async def run(self, key: RunKey, *argv: str) -> str:
        """What the command printed."""
        spec = RunSpec(argv=argv, limits=LIMITS)
        result = await self.sandbox.run(spec, story=STORY, key=key, epoch=1)
        assert result.status == "passed", result
        return result.stdout.text

    async def recorded(self, key: RunKey) -> str:
        """The supervisor whose result is on record."""
        found = await self._redis.hget(ledger_run_key(key), "finished_by")
        assert isinstance(found, bytes)
        return found.decode()

    async def busy(self, name: str, number: int) -> int:
        """The pid of this supervisor, once it holds so many runs that are under way in a sandbox."""

        async def found() -> int | None:
            health = await self.resolver.call(name, "health", timeout_s=60)
            inside = [p for p in descendants(health["pid"]) if b"sleep" in command_of(p)]
            return health["pid"] if health["active"] == number and len(inside) >= number else None

        return await until(found, within_s=PATIENCE_S, why=f"{name} holds {number} runs")


def command_of(process: ProcessIdentity) -> bytes:
    """Its command line; empty when it is gone."""
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return b""


LONG = ("sh", "-c", "sleep 6; cat /proc/sys/kernel/random/uuid")
"""Takes so long that it is cut off, and prints something else each time that it is carried out."""


async def spread(scene: Scene) -> dict[str, Any]:
    """Short runs land on the node that their key belongs to; a run is joined wherever it is asked for."""
    names = await scene.named(2)
    keys = {key: name for name in names for key in await scene.keys(name, 3)}
    printed = await asyncio.gather(*(scene.run(key, "echo", key) for key in keys))
    return {
        "names": names,
        "printed": [text.strip() == key for text, key in zip(printed, keys, strict=True)],
        "where": [await scene.recorded(key) == name for key, name in keys.items()],
        "health": (await scene.sandbox.health()).capacity > (await scene.resolver.call(
            HOME, "sandbox_health", timeout_s=60)).capacity,
    }  # fmt: skip


async def node_dies(scene: Scene) -> dict[str, Any]:
    """The raylet of the further node is killed while its supervisor holds runs, one of them detached."""
    home, far = await scene.named(2)
    *keys, detached = await scene.keys(far, 4)
    running = [asyncio.create_task(scene.run(key, *LONG)) for key in keys]
    await scene.sandbox.submit(RunSpec(argv=LONG, limits=LIMITS), story=STORY, key=detached, epoch=1)
    await scene.busy(far, 4)
    (doomed,) = [pid for node_id, pid in scene.nodes.raylets.items() if on_node(node_id) == far]
    inside = descendants(doomed)
    os.kill(doomed, signal.SIGKILL)
    killed = time.monotonic()
    printed = await asyncio.gather(*running)
    took_s = time.monotonic() - killed

    async def lost() -> str | None:
        found = await scene.sandbox.progress(detached)
        return found.result.reason if found.result else None

    return {
        "took_s": took_s,
        "where": [await scene.recorded(key) == home for key in keys],
        "again": [await scene.run(key, *LONG) == text for key, text in zip(keys, printed, strict=True)],
        "detached": await until(lost, within_s=PATIENCE_S, why="the detached run is recorded"),
        "left": [command_of(p).decode() for p in inside if p.is_alive and not p.wait_gone(30)],
        "names": await scene.named(1),
        "in_ray": await until(lambda: not _named_in_ray(far), within_s=PATIENCE_S, why="its name is gone"),
    }


def _named_in_ray(name: str) -> bool:
    from fleet.remote.nodes import supervisors_of_nodes

    return name in supervisors_of_nodes()


async def node_comes(scene: Scene) -> dict[str, Any]:
    """One more node of the pool."""
    await asyncio.to_thread(scene.nodes.add, POOL)
    newest = on_node([*scene.nodes.raylets][-1])
    names = await scene.named(2)
    (key,) = await scene.keys(newest, 1)
    await scene.run(key, "true")
    return {"is_named": newest in names, "where": await scene.recorded(key) == newest}


async def supervisor_dies(scene: Scene) -> dict[str, Any]:
    """The process of a supervisor is killed, on a node that lives on."""
    _, far = await scene.named(2)
    (key,) = await scene.keys(far, 1)
    running = asyncio.create_task(scene.run(key, *LONG))
    os.kill(await scene.busy(far, 1), signal.SIGKILL)
    printed = await running
    return {"where": await scene.recorded(key) == far, "again": await scene.run(key, *LONG) == printed}


async def home_dies(scene: Scene) -> dict[str, Any]:
    """The node of the home's supervisor is killed, which comes back on the one that has a supervisor already."""
    _, far = await scene.named(2)
    (near, away) = [(await scene.keys(name, 1))[0] for name in (HOME, far)]
    running = asyncio.create_task(scene.run(away, *LONG))
    await scene.busy(far, 1)
    os.kill(scene.nodes.raylets[scene.node_of_home()], signal.SIGKILL)

    async def again() -> str | None:
        try:
            return await scene.run(near, "echo", "here")
        except FleetError:
            return None

    return {
        "near": await until(again, within_s=PATIENCE_S, why="the home's supervisor runs again"),
        "where": [await scene.recorded(near) == HOME, await running and await scene.recorded(away) == far],
        "names": await scene.named(1),
        "in_ray": await until(lambda: not _named_in_ray(far), within_s=PATIENCE_S, why="the spare one has ended"),
    }


async def home_restarts(scene: Scene) -> dict[str, Any]:
    """The process of the home's supervisor is killed under a tool call; calls and a session come while it is away."""
    from fleet.remote.ports import RayToolHost
    from fleet.remote.sandbox_sessions import RaySandboxSessions

    tools, sessions = RayToolHost(scene.resolver, "local"), RaySandboxSessions(scene.resolver, "local")
    health = await scene.resolver.call(HOME, "health", timeout_s=60)
    slow = call_of("exec", "run", argv=["sh", "-c", "sleep 2; echo done"])
    contexts = [replace(context_of(timeout_s=120), key=RunKey(f"{n:064x}")) for n in range(4)]
    running = asyncio.create_task(tools.call(slow, contexts[3]))

    async def started() -> bool:
        return any(b"sleep" in command_of(p) for p in descendants(health["pid"]))

    await until(started, within_s=PATIENCE_S, why="the call is under way")
    os.kill(health["pid"], signal.SIGKILL)
    quick = [tools.call(call_of("exec", "run", argv=["echo", str(n)]), contexts[n]) for n in range(3)]
    cat = RunSpec(argv=("cat",), limits=LIMITS, interactive=True)
    outcomes = await asyncio.gather(running, *quick)
    session = await sessions.start(cat, story=STORY, key=RunKey("e" * 64), epoch=1)
    result = await sessions.close(RunKey("e" * 64))
    return {
        "printed": [outcome.text.strip() for outcome in outcomes],
        "session": (session.result, result.status),
        "moved": (await scene.resolver.call(HOME, "health", timeout_s=60))["pid"] != health["pid"],
    }


ACTS: dict[str, Callable[[Scene], Awaitable[dict[str, Any]]]] = {
    act.__name__: act for act in (spread, node_dies, node_comes, home_restarts, supervisor_dies, home_dies)
}


def main() -> None:
    """Start, play the acts, say what was seen, and stop."""
    given = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    plan = HostPlan(home=Path(given["home"]), redis_url=given["redis_url"], cache_url=given["redis_url"])
    nodes = NodesOfOneMachine(plan.home, environ=WATCHFUL, dashboard=False)
    try:
        nodes.start()
        for _ in range(2):
            nodes.add(POOL)
        answers.write(json.dumps(_played(nodes, plan, given["acts"])) + "\n")
        answers.flush()
    finally:
        import ray

        ray.shutdown()
        started = descendants(os.getpid())
        nodes.stop()
        end_all(started, grace_s=5)


def _played(nodes: NodesOfOneMachine, plan: HostPlan, acts: list[str]) -> dict[str, Any]:
    import ray

    from actors.placement import placed
    from fleet.wiring.roster import PlannedActor

    ray.init(address=nodes.address, namespace="fleet", log_to_driver=False, configure_logging=False)
    where = replace(endpoints(plan), placement={"sandbox": POOL})
    placed(PlannedActor(HOME, "sandbox", POOL), where)

    async def play() -> dict[str, Any]:
        scene, seen = Scene(nodes, plan), dict[str, Any]()
        for act in acts:
            since = time.monotonic()
            seen[act] = await ACTS[act](scene)
            print(f"{act}: {time.monotonic() - since:.1f} s {seen[act]}", flush=True)
        return seen

    return asyncio.run(play())


if __name__ == "__main__":
    main()
