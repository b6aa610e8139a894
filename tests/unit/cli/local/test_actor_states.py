"""What `fleet status` says of actors, from rows as Ray's state interface gives them."""

from __future__ import annotations

import asyncio
from typing import Any

from fleet.cli.local.actor_states import ActorLine, actor_lines, read_actor_lines
from tests.support.http_stand_in import Reply, Request, serving_http

NODES = [
    {"node_id": "a", "state": "ALIVE", "labels": {"pool": "agents"}},
    {"node_id": "b", "state": "DEAD", "labels": {"pool": "gpu"}},
]


def row(name: str, state: str, **changes: Any) -> dict[str, Any]:
    known = {"name": name, "state": state, "ray_namespace": "fleet", "label_selector": None, "pid": 0}
    return known | {"placement_group_id": None, "required_resources": {}} | changes


ROWS = [
    row("role:qa:0", "ALIVE", pid=7),
    row("council:0", "PENDING_CREATION", label_selector={"pool": "agents"}),
    row("context", "RESTARTING"),
    row("sandbox:local", "PENDING_CREATION", label_selector={"pool": "gpu", "zone": "near"}),
    row("engine:tiny:0", "PENDING_CREATION", placement_group_id="f0", required_resources={"GPU": 2.0, "CPU": 1.0}),
    row("council:1", "DEAD"),
    row("SERVE_PROXY", "ALIVE", ray_namespace="serve"),
]


def test_actor_without_a_node_waits_and_says_for_which() -> None:
    assert actor_lines(ROWS, NODES) == (
        ActorLine(name="context", state="restarting"),
        ActorLine(name="council:0", state="starting"),
        ActorLine(name="engine:tiny:0", state="waiting", why="for a node with 1 CPU, 2 GPU"),
        ActorLine(name="role:qa:0", state="running"),
        ActorLine(name="sandbox:local", state="waiting", why="for a node with label pool=gpu, label zone=near"),
    )


async def test_dashboard_is_asked_with_its_token_and_its_silence_is_no_error() -> None:
    def answer(request: Request) -> Reply:
        if request.headers.get("authorization") != "Bearer mine":
            return Reply(status=401)
        rows = ROWS if request.path.endswith("/actors") else NODES
        return Reply(document={"data": {"result": {"result": rows}}})

    async with serving_http(answer) as url:
        assert await asyncio.to_thread(read_actor_lines, url, "mine") == actor_lines(ROWS, NODES)
        assert await asyncio.to_thread(read_actor_lines, url, "") is None
    assert await asyncio.to_thread(read_actor_lines, url, "mine") is None
    async with serving_http(lambda _: Reply(document={"data": None})) as url:
        assert await asyncio.to_thread(read_actor_lines, url, "mine") is None
