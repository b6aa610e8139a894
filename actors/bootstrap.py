"""Start the long-lived actors of a fleet, see that they are well, and stop them (docs/design/design.md, section 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import ray
from ray.exceptions import RayError

from actors.arrivals import Arrivals, Progress
from actors.placement import release
from fleet.remote.nodes import supervisors_of_nodes
from fleet.remote.resolver import NAMESPACE
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.roster import roster, spreads_runs
from fleet.wiring.stores.blobs import check_blobs_answer, check_blobs_reach

_ENGINE = "engine:"
_END_S = 10.0
_ENGINE_END_S = 25.0
"""Calls under way may finish, and the library takes some seconds to shut down."""


def actor_names(endpoints: Endpoints) -> list[str]:
    """The names of all actors of this fleet, in the order in which they start."""
    return [actor.name for actor in roster(endpoints)]


def boot(endpoints: Endpoints, *, progress: Progress, timeout_s: float = 90.0) -> list[str]:
    """Every actor is alive and answers, or waits for a node that is not there; `progress` is told which.

    Several processes may do this at the same time. Actors that run already are kept, unless they were told other
    settings at their birth; those that the settings name no more are gone.

    Raises:
        ConfigError: `models.serve` names an engine that this fleet cannot run, or there are several machines and blobs
            are files of each alone.
        StoreUnavailable: an actor that has a node did not come up in time, or died again and again; names it, and why.
            Or the bucket of blobs cannot be written and read: then no actor was started.
        NotFound, PolicyDenied: the keys of that bucket cannot be had; no actor was started.
    """
    # Before Ray is asked for anything: an actor that cannot keep what it makes parks every story that it takes.
    asyncio.run(check_blobs_answer(endpoints))
    check_blobs_reach(endpoints, {str(node["NodeManagerAddress"]) for node in ray.nodes() if node["Alive"]})
    planned = roster(endpoints)
    names = [actor.name for actor in planned]
    found = _named()
    # The home's supervisor keeps those of further nodes, where each node has one.
    kept = supervisors_of_nodes() if spreads_runs(endpoints) else set[str]()
    _end_all(found - set(names) - kept)
    arrivals = Arrivals(endpoints, progress, end=_end_all, found=found & set(names))
    arrivals.await_all(planned, timeout_s=timeout_s)
    return names


def _named() -> set[str]:
    everywhere: list[Any] = ray.util.list_named_actors(all_namespaces=True)
    return {str(actor["name"]) for actor in everywhere if actor["namespace"] == NAMESPACE}


def _end_all(names: Iterable[str], *, drain: bool = True) -> None:
    """They are gone; with `drain` they could finish what they had begun."""
    handles = {name: handle for name in names if (handle := _handle(name)) is not None}
    if drain and handles:
        within_s = _ENGINE_END_S if any(name.startswith(_ENGINE) for name in handles) else _END_S
        ray.wait([handle.drain.remote() for handle in handles.values()], num_returns=len(handles), timeout=within_s)
    for name, handle in handles.items():
        ray.kill(handle, no_restart=True)
        if name.startswith(_ENGINE):
            release(name)


def _handle(name: str) -> Any:
    try:
        return ray.get_actor(name, NAMESPACE)
    except ValueError:
        return None


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
    councils = [name for name in names if name.startswith("council:")]
    _end_all(councils)
    _end_all(set(names) - set(councils))
    # After the home's supervisor, which would start them again.
    _end_all(supervisors_of_nodes())
