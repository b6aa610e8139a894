"""`fleet graph` beside running stores and a running projector."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from actors.projector import lag_gauges, show_lag
from cluster.local.identity import ProcessIdentity
from cluster.local.record import Addresses, RunningFleet, save_fleet
from fleet.cli.app import app
from fleet.cli.output import Output
from fleet.cli.store import graph as command
from fleet.events.codec import decode, encode
from fleet.events.envelope import NewEvent
from fleet.graph.service.projector import Projector
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import StoreUnavailable
from fleet.kernel.ids import StreamId
from fleet.log.port import MAX_ATTEMPTS
from fleet.log.redis.dead_letters import RedisDeadLetters
from fleet.log.redis.feed import RedisFeedGroup
from fleet.log.redis.log import RedisEventLog
from tests.support.graphs import empty_graph, open_graph, sample_history
from tests.support.projection import CREATED, MOVED, STORY, Projections, append, running
from tests.support.services import Neo4jAddress
from tests.support.stores import empty_database, own_database

OTHER = StreamId("story:st-b2")


@pytest.fixture
async def projector(redis_url: str, neo4j_address: Neo4jAddress, tmp_path: Path) -> AsyncGenerator[Projector]:
    """A projector over real stores, which a fleet in `tmp_path` names."""
    url = own_database(redis_url, 8)
    empty_graph(neo4j_address)
    addresses = Addresses(
        redis_url=url,
        cache_url=url,
        neo4j_uri=neo4j_address.uri,
        neo4j_user=neo4j_address.user,
        neo4j_password=neo4j_address.password,
        neo4j_database="neo4j",
    )
    me = ProcessIdentity.of_self()
    save_fleet(RunningFleet(home=tmp_path, supervisor=me, started_at_ms=time.time_ns() // 10**6, addresses=addresses))
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(empty_database(url))
        graph = await stack.enter_async_context(open_graph(neo4j_address))
        yield Projector(
            RedisEventLog(redis),
            graph,
            feed=RedisFeedGroup(redis, block_s=0.1),
            letters=RedisDeadLetters(redis, redis),
            clock=SystemClock(),
            poll_s=0.1,
        )


async def fleet(home: Path, *args: str, **variables: str) -> Result:
    environ: dict[str, str | None] = {
        "FLEET_HOME": str(home),
        "FLEET_CONFIG": None,
        "FLEET_REDIS_URL": None,
        "NO_COLOR": "1",
        "TERM": "dumb",
    }
    return await asyncio.to_thread(CliRunner().invoke, app, ["graph", *args], env=environ | variables)


def answer(result: Result) -> dict[str, Any]:
    assert result.stdout, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.rule("GR-7", "GR-9")
async def test_graph_status_and_rebuild_beside_a_running_projector(
    projector: Projector, tmp_path: Path, redis_url: str
) -> None:
    async with empty_database(own_database(redis_url, 8)) as redis:
        log = RedisEventLog(redis)
        await append(log, STORY, CREATED, MOVED)
        found = answer(await fleet(tmp_path, "status", "--json"))
        assert (found["state"]["active"], found["lag_total"], found["streams_behind"]) == (1, 2, 1)
        assert found["set_aside"] == {}
        async with running(projector):
            rebuilt = await fleet(tmp_path, "rebuild")
            assert rebuilt.exit_code == 0, rebuilt.stderr
            assert "projection 2 is active; it equals the one before it" in rebuilt.stdout
        told = await fleet(tmp_path, "status")
        assert told.exit_code == 0
        assert "2 events in 1 streams, 0 not in the graph yet" in told.stdout


@pytest.mark.rule("EV-22")
async def test_graph_status_names_what_is_set_aside_and_how_to_go_on(
    projector: Projector, tmp_path: Path, redis_url: str
) -> None:
    newer = NewEvent(type="StoryCreated", schema=99, body=encode(CREATED).body)
    async with empty_database(own_database(redis_url, 8)) as redis:
        await append(RedisEventLog(redis), STORY, CREATED, newer)
        for _ in range(MAX_ATTEMPTS):
            await projector.sweep()
        await projector.ask_for_rebuild()
        told = await fleet(tmp_path, "status")
    assert told.exit_code == 4
    text = " ".join(told.stdout.split())
    assert "story:st-a1: 1 behind" in text
    assert "is set aside (unsupported_schema)" in text
    assert "fleet dlq retry dl-" in text
    assert "projection 2 is being built: 0 of 2 events" in text


async def test_graph_rebuild_that_nobody_works_on_says_so() -> None:
    world = Projections()
    await append(world.log, STORY, CREATED)
    worker = world.projector()
    wanted = (await worker.ask_for_rebuild()).wanted
    with pytest.raises(StoreUnavailable, match="nothing was done for projection 2"):
        await command.watched(Output(as_json=True), worker, wanted, stalled_s=0.1)
    assert (await world.graph.projection()).is_rebuild_wanted


@pytest.mark.parametrize("args", [["status"], ["rebuild"]])
async def test_graph_command_without_a_fleet_says_how_to_start_one(tmp_path: Path, args: list[str]) -> None:
    result = await fleet(tmp_path, *args)
    assert result.exit_code == 5
    assert "fleet up --detach" in result.stderr


@pytest.mark.rule("GR-9")
async def test_graph_is_asked_and_rebuilt_where_variables_alone_name_the_stores_as_in_a_pod(
    projector: Projector, tmp_path: Path, redis_url: str, neo4j_address: Neo4jAddress
) -> None:
    pod = tmp_path / "pod"
    named = {
        "FLEET_REDIS_URL": own_database(redis_url, 8),
        "FLEET_NEO4J_URI": neo4j_address.uri,
        "FLEET_NEO4J_USER": neo4j_address.user,
        "FLEET_NEO4J_PASSWORD": neo4j_address.password,
    }
    assert (await fleet(pod, "status")).exit_code == 5
    async with empty_database(own_database(redis_url, 8)) as redis:
        await append(RedisEventLog(redis), STORY, CREATED, MOVED)
        assert answer(await fleet(pod, "status", "--json", **named))["lag_total"] == 2
        async with running(projector):
            rebuilt = await fleet(pod, "rebuild", **named)
    assert rebuilt.exit_code == 0, rebuilt.stderr
    assert "projection 2 is active; it equals the one before it" in rebuilt.stdout


async def test_gauges_say_what_the_status_says() -> None:
    world = Projections()
    await append(world.log, STORY, CREATED, MOVED)
    await append(world.log, OTHER, CREATED)
    seen: dict[str, float] = {}

    class Shown:
        def __init__(self, name: str) -> None:
            self.name = name

        def set(self, value: float) -> None:
            seen[self.name] = value

    show_lag({name: Shown(name) for name in lag_gauges()}, await world.projector().status())
    assert seen == {
        "fleet_projection_lag_events": 3,
        "fleet_projection_streams_behind": 2,
        "fleet_projection_streams_set_aside": 0,
    }


async def test_graph_ask_prints_the_rows_of_a_named_query(projector: Projector, tmp_path: Path, redis_url: str) -> None:
    async with empty_database(own_database(redis_url, 8)) as redis:
        for event in sample_history("story"):
            await append(RedisEventLog(redis), event.stream, decode(event))
        await projector.sweep()
        asked = await fleet(tmp_path, "ask", "decision_impact", "decision_id=de-onebase1", "depth=1", "--json")
        found = answer(asked)
        assert (found["query"], len(found["rows"])) == ("decision_impact", 7)
        told = await fleet(tmp_path, "ask", "critical_decisions", "story_id=st-onecart7")
        assert told.exit_code == 0, told.stderr
        nothing = await fleet(tmp_path, "ask", "unanswered_questions", "story_id=st-onecart7", "severity=blocking")
        assert "nothing found" in nothing.stdout
        unknown = await fleet(tmp_path, "ask", "plan_layers", "plan_id=pv-nobody")
        assert (unknown.exit_code, "the graph holds no PlanVersion" in unknown.stderr) == (2, True)


async def test_graph_ask_out_of_its_bounds_is_bad_input_without_a_fleet(tmp_path: Path) -> None:
    for args in (["no_such"], ["decision_impact"], ["decision_impact", "depth"], ["decision_impact", "depth=x"]):
        refused = await fleet(tmp_path, "ask", *args)
        assert refused.exit_code == 2, refused.stderr
