"""`fleet story archive` on the stores of a fleet, while its projector runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis
from typer.testing import CliRunner, Result

from cluster.local.identity import ProcessIdentity
from cluster.local.record import Addresses, RunningFleet
from fleet.cli.app import app
from fleet.cli.endpoints import endpoints_of
from fleet.cli.local.local_principals import ensure_principals
from fleet.config.environment import load_settings
from fleet.desk.archive import tombstone_of
from fleet.events.story import StoryCancelled
from fleet.graph.service.projector import Projector
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import StoryId, StreamId
from fleet.log.redis.dead_letters import RedisDeadLetters
from fleet.log.redis.feed import RedisFeedGroup
from fleet.log.redis.log import RedisEventLog
from fleet.wiring.stores.stores import make_graph
from tests.support.graphs import empty_graph
from tests.support.services import Neo4jAddress
from tests.support.stores import empty_database, own_database
from tests.support.story_events import StoryLog, story

STORY = StoryId("st-archived1")
STREAM = StreamId.of_story(STORY)


def cancelled() -> StoryLog:
    log = StoryLog(STORY)
    for _, payload in story(until="scored").decoded:
        log.add(payload)
    return log.add(StoryCancelled(reason="nobody wants it any more"))


class Fleet:
    """The file of a running fleet, and the command line that finds it."""

    def __init__(self, home: Path, addresses: Addresses) -> None:
        self.home = home
        home.mkdir()
        running = RunningFleet(home=home, supervisor=ProcessIdentity.of_self(), started_at_ms=0, addresses=addresses)
        (home / "fleet.json").write_text(running.model_dump_json())
        self.endpoints = endpoints_of(load_settings({"HOME": str(home), "FLEET_HOME": str(home)}), addresses)

    async def __call__(self, *args: str) -> Result:
        environ = {
            "FLEET_HOME": str(self.home),
            "FLEET_CONFIG": None,
            "FLEET_REDIS_URL": None,
            "NO_COLOR": "1",
            "TERM": "dumb",
        }
        return await asyncio.to_thread(CliRunner().invoke, app, list(args), env=environ)


@pytest.fixture
async def client(redis_url: str) -> AsyncGenerator[Redis]:
    async with empty_database(own_database(redis_url)) as opened:
        yield opened


@pytest.fixture
def log(client: Redis) -> RedisEventLog:
    return RedisEventLog(client)


@pytest.fixture
def fleet(tmp_path: Path, redis_url: str, neo4j_address: Neo4jAddress) -> Fleet:
    # A graph that is ahead of this log, as tests before this one left it, would be a log that went back.
    empty_graph(neo4j_address)
    url = own_database(redis_url)
    return Fleet(
        tmp_path / "home",
        Addresses(
            redis_url=url,
            cache_url=url,
            neo4j_uri=neo4j_address.uri,
            neo4j_user=neo4j_address.user,
            neo4j_password=neo4j_address.password,
            neo4j_database="neo4j",
        ),
    )


@pytest.fixture
async def projector(fleet: Fleet, client: Redis) -> AsyncGenerator[asyncio.Task[None]]:
    graph = make_graph(fleet.endpoints)
    service = Projector(
        RedisEventLog(client),
        graph,
        feed=RedisFeedGroup(client),
        letters=RedisDeadLetters(client, client),
        clock=SystemClock(),
        consumer="test",
    )
    running = asyncio.create_task(service.run())
    yield running
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await graph.close()


@pytest.mark.rule("EV-25", "LC-93")
async def test_story_is_archived_to_a_file_that_replays(
    fleet: Fleet, log: RedisEventLog, projector: asyncio.Task[None], tmp_path: Path
) -> None:
    ensure_principals(fleet.endpoints.principals_file)
    await cancelled().write_to(log)
    (tmp_path / "proof").write_bytes(b"proof")
    done = await fleet("story", "archive", STORY, "--proof", str(tmp_path / "proof"), "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["story_id"], said["last_version"]) == (STORY, len(cancelled().events) + 1)
    assert await log.read(STREAM) == []
    assert not projector.done()
    tombstone = await tombstone_of(log, STORY)
    assert tombstone is not None
    assert said["export_digest"] == tombstone.export_digest
    replayed = await fleet("replay", "--from", said["file"], "--json")
    assert replayed.exit_code == 0, replayed.output
    assert json.loads(replayed.stdout)["versions"][-1]["disposition"] == "archived"
    again = await fleet("story", "archive", STORY)
    assert again.exit_code == 0, again.output
    assert said["file"] in again.output


async def test_story_is_archived_only_for_a_po_and_only_once_it_is_over(
    fleet: Fleet, log: RedisEventLog, tmp_path: Path
) -> None:
    await story(until="scored").write_to(log)
    refused = await fleet("story", "archive", "st-slug7")
    assert (refused.exit_code, "does not hold role" in refused.stderr) == (2, True), refused.output
    ensure_principals(fleet.endpoints.principals_file)
    early = await fleet("story", "archive", "st-slug7", "--json")
    assert json.loads(early.stdout)["error"]["code"] == "invalid_transition"
    unknown = await fleet("story", "archive", "st-nobody", "--json")
    assert json.loads(unknown.stdout)["error"]["code"] == "not_found"
    no_file = await fleet("story", "archive", "st-slug7", "--proof", str(tmp_path / "none"))
    assert "cannot be read" in no_file.stderr
    assert len(await log.read(StreamId("story:st-slug7"))) == len(story(until="scored").events)
