"""A fleet deployed on nodes with labels as KubeRay does it: variables, a config folder, and Serve's REST interface."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import yaml

from cluster.local.identity import descendants
from cluster.local.process import free_port
from cluster.local.valkey import StoreKind, Valkey
from fleet.cli.local.local_principals import ensure_principals
from tests.support.processes import processes_below
from tests.support.services import run_apart

ROOT = Path(__file__).resolve().parents[2]
POOLS = {"developer": 1, "qa": 1, "data": 0, "reviewer": 0}
T = TypeVar("T")


def until(what: Callable[[], T], *, within_s: float, why: str) -> T:
    """The first true answer; an AssertionError that says why, when time is up."""
    deadline = time.monotonic() + within_s
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {why}"
        time.sleep(0.2)
    return found


def as_rendered(name: str) -> dict[str, Any]:
    """The golden cluster's `serveConfigV2`; only its port and proxies are those of one machine."""
    documents = yaml.safe_load_all((ROOT / f"tests/golden/kuberay/{name}.yaml").read_text())
    (service,) = [document for document in documents if document["kind"] == "RayService"]
    found = yaml.safe_load(service["spec"]["serveConfigV2"])
    # Two nodes of one machine cannot listen on one port.
    return found | {"proxy_location": "HeadOnly", "http_options": {"host": "127.0.0.1", "port": free_port()}}


@dataclass
class Nodes:
    """Running nodes: how to ask their dashboard, and the home and config folder of the fleet on them."""

    home: Path
    config: Path
    dashboard: str
    token: str
    process: subprocess.Popen[str]
    raylets: list[int]
    redis_url: str
    asked: httpx2.Client = field(init=False)

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Bearer {self.token}"}
        self.asked = httpx2.Client(base_url=self.dashboard, headers=headers, timeout=30, trust_env=False)

    @property
    def environ(self) -> dict[str, str]:
        """For commands that talk to this cluster."""
        plain = {n: v for n, v in os.environ.items() if not n.startswith(("RAY_", "FLEET_"))}
        return {**plain, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "PYTHONPATH": str(ROOT)}

    def settings(self, **changes: Any) -> None:
        """fleet.yaml of the nodes says this; who starts from now on reads it."""
        (self.config / "fleet.yaml").write_text(yaml.safe_dump({"pools": POOLS, "lease": LEASE} | changes))

    def deploy(self, wanted: Mapping[str, Any]) -> None:
        """What the operator does with `serveConfigV2`."""
        answer = self.asked.put("/api/serve/applications/", json=wanted)
        assert answer.status_code == 200, answer.text

    def applications(self) -> dict[str, Any]:
        """Status and message of every application."""
        return self.asked.get("/api/serve/applications/").json()["applications"]

    def actors(self) -> list[dict[str, Any]]:
        """The actors of the fleet that are not dead, as Ray's state interface shows them."""
        answer = self.asked.get("/api/v0/actors", params={"detail": "true", "limit": 1000})
        rows = answer.json()["data"]["result"]["result"]
        return [row for row in rows if row["ray_namespace"] == "fleet" and row["state"] != "DEAD"]

    def labels(self) -> dict[str, dict[str, str]]:
        """Labels of each living node by its id."""
        rows = self.asked.get("/api/v0/nodes", params={"detail": "true"}).json()["data"]["result"]["result"]
        return {row["node_id"]: row["labels"] for row in rows if row["state"] == "ALIVE"}

    def pools(self) -> dict[str, str]:
        """Of every actor that lives, the label `pool` of its node."""
        labels = self.labels()
        return {
            row["name"]: labels.get(row["node_id"], {}).get("pool", "none")
            for row in self.actors()
            if row["state"] == "ALIVE"
        }

    def add(self, labels: Mapping[str, str]) -> int:
        """One more node; the pid of its raylet."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(labels) + "\n")
        self.process.stdin.flush()
        return _answer(self.process, self.home)["raylet"]

    def send(self, pid: int, number: signal.Signals) -> None:
        """The signal is sent to one process of these nodes."""
        (process,) = [p for p in descendants(self.process.pid) if p.pid == pid]
        assert process.send(number), f"process {pid} was gone already"


LEASE = {"ttl_s": 4, "renew_s": 1, "sweep_s": 1}


@contextmanager
def deployed_nodes(home: Path, nodes: Sequence[Mapping[str, str]], **settings: Any) -> Iterator[Nodes]:
    """A head and these nodes below `home` (a short path); nothing is deployed yet. Afterwards nothing of it is left."""
    config = home / "config"
    config.mkdir()
    store = Valkey(StoreKind.LOG, home / "log")
    run_apart(store.start())
    try:
        process = _started(home, config, store.url, nodes)
        try:
            where = _answer(process, home)
            found = Nodes(home, config, where["dashboard"], where["token"], process, where["raylets"], store.url)
            found.settings(**settings)
            ensure_principals(home / "fleet" / "principals.json")
            with found.asked:
                yield found
        finally:
            _end(process)
    finally:
        run_apart(store.stop())
    assert processes_below(home) == []


def _started(home: Path, config: Path, url: str, nodes: Sequence[Mapping[str, str]]) -> subprocess.Popen[str]:
    plain = {n: v for n, v in os.environ.items() if not n.startswith(("RAY_", "COV_", "COVERAGE_", "FLEET_"))}
    fleet = {
        "FLEET_HOME": str(home / "fleet"),
        "FLEET_CONFIG": str(config),
        "FLEET_REDIS_URL": url,
        "FLEET_NEO4J_URI": "bolt://127.0.0.1:1",
        "FLEET_NEO4J_PASSWORD": "none",
    }
    with (home / "host.err").open("w") as errors:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.support.ray_nodes_host",
                json.dumps({"home": str(home), "nodes": list(nodes)}),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env={**plain, **fleet, "PYTHONPATH": str(ROOT)},
        )


def _answer(process: subprocess.Popen[str], home: Path) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the host ended with {process.wait(30)}; {(home / 'host.err').read_text()[-2000:]}"
    return json.loads(line)


def _end(process: subprocess.Popen[str]) -> None:
    started = descendants(process.pid)
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
    assert [p for p in started if p.is_alive and not p.wait_gone(10)] == []
