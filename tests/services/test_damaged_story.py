"""Commands over all stories while somebody has altered one of them in the store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from fleet.kernel.ids import StoryId
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.keys import stream_key
from fleet.log.redis.log import RedisEventLog
from tests.support.served_team import ServedTeam, served_team
from tests.support.stores import own_database
from tests.support.story_events import StoryLog, created_payload

WHOLE, ALTERED = StoryId("st-whole1"), StoryId("st-altered1")
pytestmark = [pytest.mark.rule("AP-41"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[ServedTeam]:
    url = own_database(redis_url, 13)
    with served_team(tmp_path_factory.mktemp("served") / "home", url) as found:
        asyncio.run(_altered(url))
        yield found


async def _altered(url: str) -> None:
    client = connect_redis(url)
    try:
        log = RedisEventLog(client)
        for story_id in (WHOLE, ALTERED):
            written = StoryLog(story_id).add(created_payload())
            await written.write_to(log)
        key = stream_key(written.stream, "log")
        ((entry_id, fields),) = await client.xrange(key)
        await client.delete(key)
        await client.xadd(key, {**fields, b"a": b"user:mallory"}, id=entry_id)
    finally:
        await client.aclose()


def last(result: Result) -> dict[str, Any]:
    return json.loads(result.stdout.strip().splitlines()[-1])


def test_story_list_shows_the_others_and_names_the_altered_one(fleet: ServedTeam) -> None:
    told = fleet("story", "list")
    assert told.exit_code == 4
    assert str(WHOLE) in told.stdout
    assert f"story {ALTERED} is left out" in told.stderr
    assert "fleet audit verify" in told.stderr
    listed = last(fleet("story", "list", "--json"))
    assert [line["story_id"] for line in listed["stories"]] == [WHOLE]
    assert [(one["story_id"], one["code"]) for one in listed["damaged"]] == [(ALTERED, "log_corrupted")]


@pytest.mark.parametrize(
    "command",
    [("epic", "list"), ("epic", "show", "ep-inbox"), ("project", "show", "pr-default"), ("budget", "--by", "role")],
)
def test_command_over_all_stories_shows_the_others_and_ends_with_4(fleet: ServedTeam, command: tuple[str, ...]) -> None:
    told = fleet(*command)
    assert (told.exit_code, f"story {ALTERED} is left out" in told.stderr) == (4, True), told.output


def test_export_of_all_holds_the_others_and_names_the_altered_one(fleet: ServedTeam, tmp_path: Path) -> None:
    told = fleet("export", "--parquet", str(tmp_path / "export"), "--json")
    assert (told.exit_code, f"story {ALTERED} is left out" in told.stderr) == (4, True), told.output
    done = last(told)
    assert (done["stories"], list(done["damaged"])) == (1, [ALTERED])
    assert (tmp_path / "export" / "stories.parquet").exists()


def test_export_of_the_altered_story_alone_leaves_nothing(fleet: ServedTeam, tmp_path: Path) -> None:
    told = fleet("export", "--parquet", str(tmp_path / "export"), "--story", str(ALTERED))
    assert (told.exit_code, "is damaged" in told.stderr) == (4, True), told.output
    assert not (tmp_path / "export").exists()


def test_commands_of_another_story_go_on(fleet: ServedTeam) -> None:
    shown = fleet("story", "show", str(WHOLE), "--json")
    assert (shown.exit_code, last(shown)["story_id"]) == (0, WHOLE), shown.output
