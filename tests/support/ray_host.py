"""A Ray of its own with the actors of a fleet on it, in a process of its own: `python -m tests.support.ray_host PLAN`.

PLAN is the JSON of `HostPlan`. One line of JSON on standard output says that the actors answer; then each line of
standard input asks something and gets one line back. When standard input ends, everything is stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from cluster.local.identity import descendants, end_all
from cluster.local.process import free_port
from cluster.local.ray_head import RayHead, ray_environment
from cluster.local.record import Addresses
from fleet.cli.endpoints import endpoints_of
from fleet.cli.local.local_principals import ensure_principals
from fleet.config.environment import load_settings
from fleet.config.settings import ActorKind
from fleet.wiring.endpoints import Endpoints
from tests.support.ray_nodes_host import patient

ROLES = ("planner", "developer", "qa", "architect", "devops", "designer")
"""Roles that the example story asks."""

DRAIN_S = 12
"""What a node that is drained has before its processes are ended; in a pod it is less than what Kubernetes gives it."""

_LEFT_OUT = ("projector", "notary")
_DRIVER: dict[str, Any] = {"namespace": "fleet", "log_to_driver": False, "configure_logging": False}
_KINDS = get_args(ActorKind)


class HostPlan(BaseModel):
    """What the host starts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    redis_url: str
    """Log store of the actors, perhaps through a proxy."""
    cache_url: str
    shards: int = 1
    ttl_s: int = 4
    sweep_s: int = 1
    council_env: dict[str, str] = {}
    """Variables of the council processes alone."""
    settings: dict[str, str] = {}
    """Further FLEET_* variables, for all of them."""
    workers: int = 0
    """Nodes beside the head; the actors live on the first of them, the others come later. 0: all on one node."""
    head_store: str = ""
    """URL of the Redis that keeps the state of Ray's head; empty keeps it in the head."""


def main() -> None:
    """Start, answer, and stop when nobody asks any more."""
    plan = HostPlan.model_validate_json(sys.argv[1])
    # Ray prints into standard output what it has to say of its actors; the answers get a way of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    head = _ManyNodes(plan) if plan.workers else _OneNode(plan)
    try:
        head.start()
        _boot(plan, pinned=bool(plan.workers))
        head.complete()
        _say(answers, {"ready": True, "raylets": head.raylets()})
        for line in sys.stdin:
            asked = line.strip()
            acts = {
                "add": head.add,
                "drain": head.drain,
                "head dies": head.head_dies,
                "head is back": head.head_is_back,
            }
            _say(answers, acts[asked]() if asked in acts else _answer(asked, plan))
    finally:
        # A cluster that came up by half stops nothing of itself.
        started = descendants(os.getpid())
        head.stop()
        end_all(started, grace_s=5)


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def endpoints(plan: HostPlan) -> Endpoints:
    """What the actors are told: one of each role, short leases, no graph."""
    settings = load_settings({"FLEET_HOME": str(plan.home), "PATH": os.environ["PATH"], **plan.settings})
    addresses = Addresses(
        redis_url=plan.redis_url,
        cache_url=plan.cache_url,
        neo4j_uri="bolt://127.0.0.1:1",
        neo4j_user="none",
        neo4j_password="none",
        neo4j_database="neo4j",
    )
    return replace(
        endpoints_of(settings, addresses),
        pools=dict.fromkeys(ROLES, 1),
        council_shards=plan.shards,
        lease_ttl_s=plan.ttl_s,
        sweep_s=plan.sweep_s,
    )


def _boot(plan: HostPlan, *, pinned: bool) -> None:
    import ray

    from actors.bootstrap import actor_names, boot
    from actors.council import CouncilShell
    from actors.options import COMMON
    from actors.shell import Shell

    labels = {"pool": "agents"}
    where = replace(endpoints(plan), placement=dict.fromkeys(_KINDS, labels) if pinned else {})
    ensure_principals(where.principals_file)
    known = {**COMMON, **({"label_selector": labels} if pinned else {})}
    # Started before `boot`, which keeps what it finds: stand-ins without work for actors that need a graph or a key,
    # and councils with variables of their own.
    for name in actor_names(where):
        kind = name.split(":")[0]
        own_env = plan.council_env if kind == "council" else {}
        if own_env or kind in _LEFT_OUT:
            shell = Shell if kind in _LEFT_OUT else CouncilShell
            options = {**known, "runtime_env": {"env_vars": own_env}} if own_env else known
            ray.remote(shell).options(name=name, **options).remote(name, where)
    boot(where, progress=lambda name, state: None, timeout_s=120)


def _answer(asked: str, plan: HostPlan) -> dict[str, Any]:
    import ray

    match asked:
        case "councils":
            return {"councils": _councils(plan.shards)}
        case "pids":
            return {"pids": _pids()}
        case "metrics":
            return {"metrics": [f"http://127.0.0.1:{node['MetricsExportPort']}/metrics" for node in ray.nodes()]}
        case "logs":
            return {"logs": ray._private.worker._global_node.get_logs_dir_path()}
        case _:
            return {"error": asked}


def _named() -> list[dict[str, Any]]:
    import ray

    return ray.util.list_named_actors(all_namespaces=True)  # pyright: ignore[reportReturnType]


def _pids() -> dict[str, int]:
    import ray
    from ray.exceptions import RayError

    found: dict[str, int] = {}
    names = [actor["name"] for actor in _named() if actor["namespace"] == "fleet"]
    asked: dict[Any, str] = {}
    for name in names:
        with contextlib.suppress(ValueError, RayError):
            asked[ray.get_actor(name, "fleet").health.remote()] = name
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=3) if asked else ([], [])
    for answer in ready:
        with contextlib.suppress(RayError):
            told: Any = ray.get(answer)
            found[asked[answer]] = int(told["pid"])
    return found


def _councils(shards: int) -> list[dict[str, Any] | None]:
    import ray
    from ray.exceptions import RayError

    found: list[dict[str, Any] | None] = []
    for number in range(shards):
        try:
            handle = ray.get_actor(f"council:{number}", "fleet")
            told: Any = ray.get(handle.status.remote(), timeout=3)
            found.append(told)
        except (RayError, ValueError):
            found.append(None)
    return found


class _OneNode:
    """The local Ray of the product."""

    def __init__(self, plan: HostPlan) -> None:
        self._head = RayHead(plan.home, dashboard=False, cpus=4, store_mb=80)

    def start(self) -> None:
        self._head.start()

    def complete(self) -> None:
        """Nothing is to come."""

    def raylets(self) -> list[int]:
        return []

    def drain(self) -> dict[str, Any]:
        return {"error": "one node stays as it is"}

    add = head_dies = head_is_back = drain

    def stop(self) -> None:
        self._head.stop()


class _ManyNodes:
    """A head that carries no actor, one node with all of them, and nodes to flee to."""

    def __init__(self, plan: HostPlan) -> None:
        self._plan = plan
        self._cluster: Any = None
        self._workers: list[Any] = []
        """In the order of their start; the cluster itself keeps a set."""
        self._head: dict[str, Any] = {}

    def start(self) -> None:
        token = self._plan.home / "ray-token"
        token.write_text(os.urandom(32).hex())
        token.chmod(0o600)
        os.environ.update(ray_environment(token))
        os.environ.update(RAY_health_check_period_ms="1000", RAY_health_check_failure_threshold="3")
        os.environ.update(RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=str(DRAIN_S))
        # `Cluster` notes its address in Ray's default folder, where `address="auto"` of anybody would find it.
        (self._plan.home / "ray").mkdir()
        os.environ["RAY_TMPDIR"] = str(self._plan.home)
        import ray
        from ray._private import services
        from ray.cluster_utils import Cluster

        services.get_node = patient(services.get_node)
        self._head = {**self._node(), "num_cpus": 0, "include_dashboard": False, **self._kept()}
        self._cluster = Cluster(initialize_head=True, shutdown_at_exit=False, head_node_args=self._head)
        ray.init(address=self._cluster.address, **_DRIVER)
        self._add()
        threading.Thread(target=self._reap, name="reaper", daemon=True).start()

    def _reap(self) -> None:
        # Workers end when their raylet is gone; to the kernel it is there until its parent has asked for its status.
        while True:
            for node in self._cluster.list_all_nodes():
                for started in list(node.all_processes.values()):
                    for one in started:
                        one.process.poll()
            time.sleep(0.1)

    def _kept(self) -> dict[str, Any]:
        """What a head needs that is to come back: its state elsewhere, and the same port."""
        if not self._plan.head_store:
            return {}
        store = urlsplit(self._plan.head_store)
        # As on a cluster: who waits for the head gives up later than a new one needs.
        os.environ.update(RAY_REDIS_ADDRESS=f"127.0.0.1:{store.port}", RAY_gcs_rpc_server_reconnect_timeout_s="600")
        return {"redis_password": store.password, "gcs_server_port": free_port()}

    def _node(self) -> dict[str, Any]:
        return {
            "object_store_memory": 80_000_000,
            "node_ip_address": "127.0.0.1",
            "temp_dir": str(self._plan.home / "ray"),
        }

    def _add(self) -> None:
        self._workers.append(self._cluster.add_node(**self._node(), num_cpus=4, labels={"pool": "agents"}))

    def complete(self) -> None:
        for _ in range(self._plan.workers - 1):
            self._add()

    def add(self) -> dict[str, Any]:
        """One more node for actors, beside whatever is under way."""
        self._add()
        return {"raylets": self.raylets()}

    def raylets(self) -> list[int]:
        nodes = (self._cluster.head_node, *self._workers)
        return [node.all_processes["raylet"][0].process.pid for node in nodes]

    def drain(self) -> dict[str, Any]:
        """The first node goes as it does when its pod is deleted: `ray start --block` does this at a SIGTERM."""
        import ray
        from ray._private.state import state

        node = self._workers.pop(0)
        told_ms, seen = time.time_ns() // 10**6, False
        telling = threading.Thread(target=node._drain_node_before_shutdown, name="drain")
        telling.start()
        while telling.is_alive():
            seen = seen or node.node_id in state.get_draining_nodes()
            time.sleep(0.05)
        ended_ms = time.time_ns() // 10**6
        self._cluster.remove_node(node, allow_graceful=True)
        while (row := next(r for r in ray.nodes() if r["NodeID"] == node.node_id))["Alive"]:
            time.sleep(0.1)
        why = f"{row.get('DeathReason')}: {row.get('DeathReasonMessage')}"
        return {"told_ms": told_ms, "ended_ms": ended_ms, "was_draining": seen, "why": why}

    def head_dies(self) -> dict[str, Any]:
        """Every process of the head is killed."""
        import ray

        # A driver beside a dead raylet ends itself, and this is the process that all of them belong to.
        ray.shutdown()
        head = self._cluster.head_node
        pids = [one.process.pid for started in head.all_processes.values() for one in started]
        self._cluster.remove_node(head, allow_graceful=False)
        return {"died_ms": time.time_ns() // 10**6, "pids": pids}

    def head_is_back(self) -> dict[str, Any]:
        """A head with the same port and store; which actors it knows, that it never started."""
        import ray

        self._cluster.add_node(**self._head)
        ray.init(address=self._cluster.address, **_DRIVER)
        return {"back_ms": time.time_ns() // 10**6, "actors": [a["name"] for a in _named()]}

    def stop(self) -> None:
        import ray

        ray.shutdown()
        if self._cluster is not None:
            self._cluster.shutdown()


if __name__ == "__main__":
    main()
