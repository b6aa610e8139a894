"""Start the long-lived actors of a fleet, see that they are well, and stop them (DESIGN.md 3)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.exceptions import RayError

from actors.context import ContextShell
from actors.council import CouncilShell
from actors.notary import NotaryShell
from actors.projector import ProjectorShell
from actors.role import RoleShell
from actors.sandbox import SandboxShell
from fleet.adapters.ray import NAMESPACE
from fleet.errors import StoreUnavailable
from fleet.wiring import Endpoints

__all__ = ["actor_names", "boot", "health", "stop"]

Progress = Callable[[str, str], None]

_COMMON: Mapping[str, Any] = {
    "num_cpus": 0,
    "max_restarts": -1,
    # An unknown outcome is never repeated by Ray: repeats carry a command id or a run key and come from us.
    "max_task_retries": 0,
    "lifetime": "detached",
    "namespace": NAMESPACE,
    "get_if_exists": True,
}
_SHELLS: Mapping[str, Any] = {
    "council": CouncilShell,
    "role": RoleShell,
    "context": ContextShell,
    "sandbox": SandboxShell,
    "projector": ProjectorShell,
    "notary": NotaryShell,
}


def actor_names(endpoints: Endpoints) -> list[str]:
    """The names of all actors of this fleet, in the order in which they start."""
    names = [f"sandbox:{endpoints.node}", "context", "projector", "notary"]
    for role, size in endpoints.pools.items():
        names += [f"role:{role}:{n}" for n in range(size)]
    return [*names, *(f"council:{n}" for n in range(endpoints.council_shards))]


def boot(endpoints: Endpoints, *, progress: Progress, timeout_s: float = 90.0) -> list[str]:
    """Every actor is alive and answers; those that run already are kept, unless their code or settings differ.

    Raises StoreUnavailable naming the actor that did not come up in time, and why.
    """
    names = actor_names(endpoints)
    for name in names:
        _retire_stale(name, endpoints.code_digest)
    handles = {name: _start(name, endpoints) for name in names}
    waiting = {handle.health.remote(): name for name, handle in handles.items()}
    deadline = time.monotonic() + timeout_s
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=max(0.1, deadline - time.monotonic()))
        if not ready:
            raise StoreUnavailable(
                f"actors {', '.join(sorted(waiting.values()))} did not start in {timeout_s:g} s; see the actor logs",
                actors=sorted(waiting.values()),
            )
        name = waiting.pop(ready[0])
        state = ray.get(ready[0])["state"]
        progress(name, state)
    return names


def _start(name: str, endpoints: Endpoints) -> Any:
    shell = _SHELLS[name.split(":")[0]]
    return ray.remote(shell).options(name=name, **_COMMON).remote(name, endpoints)


def _retire_stale(name: str, code_digest: str) -> None:
    # A detached actor keeps the code and the settings it was born with; get_if_exists would hand it out unchanged.
    try:
        handle = ray.get_actor(name, NAMESPACE)
    except ValueError:
        return
    if ray.get(handle.health.remote(), timeout=15)["code"] != code_digest:
        _end(handle)


def _end(handle: Any) -> None:
    with contextlib.suppress(RayError):
        ray.get(handle.drain.remote(), timeout=10)
    ray.kill(handle, no_restart=True)


async def health(names: list[str]) -> list[dict[str, Any]]:
    """What every actor says of itself; one that does not answer within 5 s is `down`."""

    async def one(name: str) -> dict[str, Any]:
        try:
            handle = await asyncio.to_thread(ray.get_actor, name, NAMESPACE)
            return await asyncio.wait_for(_await(handle.health.remote()), 5)
        except (ValueError, TimeoutError, RayError) as error:
            return {"name": name, "pid": None, "state": f"down: {error or type(error).__name__}"}

    return list(await asyncio.gather(*(one(n) for n in names)))


async def _await(ref: Any) -> Any:
    return await ref


def stop(names: list[str]) -> None:
    """Every actor has drained and is gone; councils first, so that nothing new is started."""
    for name in sorted(names, key=lambda n: not n.startswith("council")):
        try:
            _end(ray.get_actor(name, NAMESPACE))
        except ValueError:
            continue
