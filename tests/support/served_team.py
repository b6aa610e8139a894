"""A team that serves the command line: its stores are on a Redis server, and its home says that a fleet is up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner, Result

from cluster.local.identity import ProcessIdentity
from cluster.local.record import Addresses, RunningFleet
from fleet.cli.app import app
from fleet.cli.local.local_principals import ensure_principals
from fleet.log.redis.connection import connect_redis
from fleet.models.port import Agents, ChatModel
from fleet.models.profiles import ModelsConfig
from tests.support.team import team


@dataclass(frozen=True)
class ServedTeam:
    """`fleet` on the home of a running team, in this process."""

    home: Path

    def __call__(self, *args: str) -> Result:
        environ = {"FLEET_HOME": str(self.home), "FLEET_CONFIG": None, "NO_COLOR": "1", "TERM": "dumb"}
        return CliRunner().invoke(app, list(args), env=environ)


def _say_up(home: Path, url: str) -> None:
    addresses = Addresses(
        redis_url=url,
        cache_url=url,
        neo4j_uri="bolt://127.0.0.1:1",
        neo4j_user="neo4j",
        neo4j_password="none",
        neo4j_database="neo4j",
    )
    running = RunningFleet(home=home, supervisor=ProcessIdentity.of_self(), started_at_ms=0, addresses=addresses)
    (home / "fleet.json").write_text(running.model_dump_json())
    ensure_principals(home / "principals.json")


@contextmanager
def served_team(
    home: Path,
    url: str,
    *,
    models: Mapping[str, ChatModel] | None = None,
    agents: Agents | None = None,
    configured: ModelsConfig | None = None,
) -> Iterator[ServedTeam]:
    """The team runs on a loop of its own until the block ends; database `url` is emptied first."""
    home.mkdir()
    _say_up(home, url)
    up, over = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    async def serve() -> None:
        client = connect_redis(url)
        try:
            await client.flushdb()
            async with team(home, models=models, redis=client, agents=agents, configured=configured):
                up.set()
                await asyncio.to_thread(over.wait)
        finally:
            await client.aclose()

    def body() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failed.append(error)
        finally:
            up.set()

    thread = threading.Thread(target=body, name="served team")
    thread.start()
    try:
        assert up.wait(30)
        yield ServedTeam(home)
    finally:
        over.set()
        thread.join(30)
    assert not failed, failed
