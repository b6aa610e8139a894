"""One supervisor on every further node: started where a node came, ended where none belongs.

Source: docs/design/design.md, section 3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.options import COMMON
from actors.sandbox_runs import RunsShell
from fleet.remote.nodes import alive_nodes, own_node_id, supervisors_of_nodes
from fleet.remote.resolver import NAMESPACE
from fleet.sandbox.service.spread import node_of, on_node
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.roster import node_supervisors

_ANSWER_S = 5.0
_END_S = 10.0
_IDLE_LOOKS = 5
"""A supervisor that belongs nowhere is ended after so many looks without a run: callers may know it for a while."""


class NodeKeeper:
    """Keeps the supervisors of further nodes, for the home's, which knows where it is itself.

    A dead node takes its supervisor with it, because that is pinned to it. One of a node where the home's came to be
    gets no new runs, and ends when it has no more.
    """

    def __init__(self, endpoints: Endpoints, home: str) -> None:
        self._endpoints, self._home = endpoints, home
        self.alive = frozenset[str]()
        """How the ids of the living nodes begin, as in the names of supervisors; empty before the first look."""
        self._ready = frozenset[str]()
        self._idle = Counter[str]()

    @property
    def names(self) -> list[str]:
        """The supervisors that take runs, the home's first; those are among them that are just starting again."""
        return [self._home, *sorted(self._ready)]

    def keep(self) -> None:
        """Look around once, and do what is to be done. Blocks up to some seconds. Raises what Ray does."""
        nodes = alive_nodes()
        self.alive = frozenset(part for node in nodes if (part := node_of(on_node(node.node_id))))
        planned = node_supervisors(self._endpoints, nodes, home=own_node_id())
        spare = supervisors_of_nodes() - planned.keys()
        handles = {name: self._placed(name, node_id) for name, node_id in planned.items()}
        handles |= {name: handle for name in spare if (handle := _handle(name)) is not None}
        answers = _answers(handles)
        old = {name for name, health in answers.items() if health["code"] != self._endpoints.code_digest}
        idle = {name for name in spare if name in answers and answers[name]["active"] == 0}
        self._idle = Counter({name: self._idle[name] + 1 for name in idle})
        self._ready = frozenset((self._ready | answers.keys()) & planned.keys()) - old
        # One with other settings is ended at once, as all actors are; what it ran is taken over under its key.
        for name in old | {name for name, looks in self._idle.items() if looks >= _IDLE_LOOKS}:
            _end(handles[name])

    def _placed(self, name: str, node_id: str) -> Any:
        pinned = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
        shell: Any = ray.remote(RunsShell)
        return shell.options(**COMMON, name=name, scheduling_strategy=pinned).remote(name, self._endpoints)


def _answers(handles: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What those say of themselves that answer in time."""
    asked = {handle.health.remote(): name for name, handle in handles.items()}
    if not asked:
        return {}
    done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
    found: dict[str, dict[str, Any]] = {}
    for answer in done:
        try:
            found[asked[answer]] = ray.get(answer)
        except RayError:
            continue  # it dies or starts just now; the next look will tell
    return found


def _handle(name: str) -> Any:
    try:
        return ray.get_actor(name, NAMESPACE)
    except ValueError:
        return None


def _end(handle: Any) -> None:
    ray.wait([handle.drain.remote()], timeout=_END_S)
    ray.kill(handle, no_restart=True)
