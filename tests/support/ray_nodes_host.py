"""Nodes of Ray with labels on one machine, in a process of their own: `python -m tests.support.ray_nodes_host PLAN`.

PLAN is JSON: `{home, nodes: [labels, ...]}`. One line on standard output says where the dashboard is and the pid of the
raylet of each node; each line of labels on standard input adds a node and gets its pid. The end of standard input
stops everything. The variables of this process are those of all nodes, as in the pods of one cluster.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cluster.local.identity import descendants, end_all
from cluster.local.process import free_port
from cluster.local.ray_head import ray_environment

# A busy machine starts slowly and answers late; what is tested here is not how quickly Ray takes notice.
PATIENT = {
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_health_check_failure_threshold": "20",
}

_START_S = 300.0
_AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")


def main() -> None:
    """Start, add what is asked for, and stop when nobody asks any more."""
    plan = json.loads(sys.argv[1])
    home = Path(plan["home"])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    nodes = NodesOfOneMachine(home)
    try:
        where = nodes.start()
        _say(answers, where | {"raylets": [nodes.add(labels) for labels in plan["nodes"]]})
        for line in sys.stdin:
            _say(answers, {"raylet": nodes.add(json.loads(line))})
    finally:
        started = descendants(os.getpid())
        nodes.stop()
        end_all(started, grace_s=5)


def _say(answers: Any, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


class NodesOfOneMachine:
    """A head that carries nothing, and nodes beside it.

    Args:
        environ: variables of Ray, for all nodes.
        dashboard: whether the head has one.
    """

    def __init__(self, home: Path, *, environ: Mapping[str, str] = PATIENT, dashboard: bool = True) -> None:
        self._home, self._environ, self._dashboard = home, environ, dashboard
        self._cluster: Any = None
        self.raylets: dict[str, int] = {}
        """The pid of the raylet of each node that was added, by the id of the node."""

    @property
    def address(self) -> str:
        """For `ray.init`."""
        return self._cluster.address

    def start(self) -> dict[str, Any]:
        token = self._home / "ray-token"
        token.write_text(os.urandom(32).hex())
        token.chmod(0o600)
        os.environ.update(ray_environment(token), **self._environ)
        # `Cluster` notes its address in Ray's default folder, where `address="auto"` of anybody would find it.
        (self._home / "ray").mkdir()
        os.environ["RAY_TMPDIR"] = str(self._home)
        from ray._private import services
        from ray.cluster_utils import Cluster

        services.get_node = patient(services.get_node)
        head = {"num_cpus": 0, "include_dashboard": self._dashboard, "dashboard_port": free_port()}
        self._cluster = Cluster(initialize_head=True, shutdown_at_exit=False, head_node_args={**self._node(), **head})
        threading.Thread(target=self._reap, name="reaper", daemon=True).start()
        return {"dashboard": f"http://127.0.0.1:{head['dashboard_port']}", "token": token.read_text()}

    def add(self, labels: dict[str, str]) -> int:
        node = self._cluster.add_node(**self._node(), num_cpus=4, labels=labels)
        self.raylets[node.node_id] = node.all_processes["raylet"][0].process.pid
        return self.raylets[node.node_id]

    def stop(self) -> None:
        if self._cluster is not None:
            self._cluster.shutdown()

    def _node(self) -> dict[str, Any]:
        return {
            "object_store_memory": 80_000_000,
            "node_ip_address": "127.0.0.1",
            "temp_dir": str(self._home / "ray"),
            # Where it has to find out the ports of its agents, a node gives them 15 s.
            **{name: free_port() for name in _AGENT_PORTS},
        }

    def _reap(self) -> None:
        # Workers end when their raylet is gone; to the kernel it is there until its parent has asked for its status.
        while True:
            for node in self._cluster.list_all_nodes():
                for started in list(node.all_processes.values()):
                    for one in started:
                        one.process.poll()
            time.sleep(0.1)


def patient(ask: Callable[..., Any]) -> Callable[..., Any]:
    """As `ask`, but what Ray does not know of a node yet is waited for: it gives a node 30 s, too little here."""

    def asked(*args: Any) -> Any:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                return ask(*args)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    return asked


if __name__ == "__main__":
    main()
