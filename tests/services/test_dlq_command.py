"""`fleet dlq` and the dead letters of `fleet status`, on the stores of a fleet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from redis.asyncio import Redis
from typer.testing import CliRunner, Result

from cluster.local.identity import ProcessIdentity
from cluster.local.record import Addresses, RunningFleet
from fleet.cli.app import app
from fleet.kernel.ids import StreamId
from fleet.log.port import MAX_ATTEMPTS, DeadLetter, Failure
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.dead_letters import RedisDeadLetters
from tests.support.stores import own_database

T = TypeVar("T")
POISON = Failure("projector", StreamId("story:st-one"), 7, code="log_corrupted", reason="KeyError:\n [b]title[/b]")
NO_COMMAND = Failure("commands", StreamId("story:st-two"), 0, code="invalid_input", reason="no command", raw="{")


class Fleet:
    """The file of a running fleet whose log store answers and whose graph does not."""

    def __init__(self, home: Path, url: str) -> None:
        self.home, self._url = home, url
        self.say_where(url)

    def say_where(self, url: str) -> None:
        home = self.home
        addresses = Addresses(
            redis_url=url,
            cache_url=url,
            neo4j_uri="bolt://127.0.0.1:1",
            neo4j_user="neo4j",
            neo4j_password="secret",
            neo4j_database="neo4j",
        )
        supervisor = ProcessIdentity.of_self()
        running = RunningFleet(home=home, supervisor=supervisor, started_at_ms=0, addresses=addresses)
        home.mkdir(exist_ok=True)
        (home / "fleet.json").write_text(running.model_dump_json())

    def __call__(self, *args: str) -> Result:
        environ = {
            "FLEET_HOME": str(self.home),
            "FLEET_CONFIG": None,
            "FLEET_REDIS_URL": None,
            "NO_COLOR": "1",
            "TERM": "dumb",
        }
        return CliRunner().invoke(app, list(args), env=environ)

    def store(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        """The result of the work on the log store."""

        async def body() -> T:
            client = connect_redis(self._url)
            try:
                return await work(client)
            finally:
                await client.aclose()

        return asyncio.run(body())

    def park(self, failure: Failure) -> DeadLetter:
        async def body(client: Redis) -> DeadLetter | None:
            for _ in range(MAX_ATTEMPTS - 1):
                await RedisDeadLetters(client, client).failed(failure)
            return await RedisDeadLetters(client, client).failed(failure)

        letter = self.store(body)
        assert letter
        return letter


@pytest.fixture
def fleet(tmp_path: Path, redis_url: str) -> Fleet:
    opened = Fleet(tmp_path / "home", own_database(redis_url))
    opened.store(lambda client: client.flushdb())
    return opened


def test_empty_dlq_is_told_and_listed_as_nothing(fleet: Fleet) -> None:
    result = fleet("dlq", "list")
    assert (result.exit_code, result.stdout) == (0, "there is no dead letter: nothing is set aside\n")
    result = fleet("dlq", "list", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"letters": []})


def test_letters_are_listed_with_their_reasons(fleet: Fleet) -> None:
    letter, other = fleet.park(POISON), fleet.park(NO_COMMAND)
    headings, first, why, second, _, hint = fleet("dlq", "list").stdout.splitlines()
    assert headings.split() == ["ID", "SOURCE", "STREAM", "VERSION", "CODE", "ATTEMPTS", "FIRST", "LAST"]
    assert first.split()[:6] == [letter.letter_id, "projector", "story:st-one", "7", "log_corrupted", "5"]
    assert first.endswith("s ago")
    assert why == "  KeyError: [b]title[/b]"
    assert second.split()[:6] == [other.letter_id, "commands", "story:st-two", "-", "invalid_input", "5"]
    assert "fleet dlq retry ID" in hint
    found = json.loads(fleet("dlq", "list", "--json").stdout.splitlines()[-1])["letters"]
    assert [one["letter_id"] for one in found] == [letter.letter_id, other.letter_id]
    assert (found[0]["reason"], found[0]["version"], found[0]["attempts"]) == (POISON.reason, 7, 5)
    assert found[0]["first_seen_ms"] <= found[0]["last_seen_ms"]


@pytest.mark.parametrize(
    ("passed_s", "told"), [(90, "90 s ago"), (600, "10 min ago"), (40_000, "11 h ago"), (9 * 86_400, "9 d ago")]
)
def test_age_is_told_in_the_largest_unit_that_fits(fleet: Fleet, passed_s: int, told: str) -> None:
    fleet.park(POISON)

    async def age(client: Redis) -> None:
        (key,) = await client.keys("*:dlq")
        ((_, fields),) = await client.xrange(key)
        seen = str(int(fields[b"first_seen"]) - passed_s * 1000)
        await client.delete(key)
        await client.xadd(key, {**fields, b"first_seen": seen})

    fleet.store(age)
    assert told in fleet("dlq", "list").stdout


@pytest.mark.rule("EV-22")
def test_retry_of_a_projection_says_where_it_goes_on(fleet: Fleet) -> None:
    letter = fleet.park(POISON)
    result = fleet("dlq", "retry", letter.letter_id, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["retried"]["letter_id"] == letter.letter_id
    assert "goes on with story:st-one from version 7" in result.stderr
    assert fleet("dlq", "list").stdout.startswith("there is no dead letter")


def test_retry_of_a_command_says_that_it_is_queued(fleet: Fleet) -> None:
    raw = '{"command_id":"user:ada/1","stream":"story:st-two","name":"unpark","principal":"user:ada","body":{}}'
    letter = fleet.park(Failure("commands", NO_COMMAND.stream, 0, code="outcome_unknown", reason="killed", raw=raw))
    result = fleet("dlq", "retry", letter.letter_id)
    assert (result.exit_code, "back in the queue of story:st-two" in result.stdout) == (0, True)
    (queue,) = fleet.store(lambda client: client.keys("*:commands"))
    ((_, fields),) = fleet.store(lambda client: client.xrange(queue))
    assert fields == {b"command": raw.encode()}


def test_retry_of_an_unknown_letter_is_not_found(fleet: Fleet) -> None:
    result = fleet("dlq", "retry", "dl-00-nonsense", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["code"] == "not_found"
    assert "fleet dlq list" in result.stderr


def test_retry_of_what_is_no_command_names_the_reason(fleet: Fleet) -> None:
    letter = fleet.park(NO_COMMAND)
    result = fleet("dlq", "retry", letter.letter_id)
    assert result.exit_code == 2
    assert "cannot be retried" in result.stderr
    assert letter.letter_id in fleet("dlq", "list").stdout


def test_dlq_whose_store_is_down_is_exit_code_five(fleet: Fleet) -> None:
    fleet.say_where("redis://127.0.0.1:1/0")
    result = fleet("dlq", "list")
    assert (result.exit_code, result.stdout) == (5, "")
    assert "Redis cannot list the dead letters" in result.stderr


@pytest.mark.rule("AP-121")
def test_status_counts_dead_letters(fleet: Fleet) -> None:
    assert json.loads(fleet("status", "--json").stdout)["dead_letters"] == 0
    fleet.park(POISON)
    result = fleet("status", "--json")
    assert json.loads(result.stdout)["dead_letters"] == 1
    assert "1 dead letter; `fleet dlq list` shows them" in result.stderr
    fleet.say_where("redis://127.0.0.1:1/0")
    assert json.loads(fleet("status", "--json").stdout)["dead_letters"] is None
