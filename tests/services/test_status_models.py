"""`fleet status` shows how the models are doing, as the processes of the fleet said it last."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from fleet.log.redis.connection import connect_redis
from fleet.models.figures import ModelFigures
from fleet.models.redis import RedisModelBoard
from tests.support.served_team import served_team
from tests.support.stores import own_database


async def post(url: str, *rows: ModelFigures) -> None:
    client = connect_redis(url)
    await RedisModelBoard(client).post("role:qa:0", rows, ttl_s=60)
    await client.aclose()


def test_status_shows_queue_circuits_and_tokens_of_each_engine(tmp_path: Path, redis_url: str) -> None:
    url = own_database(redis_url, 7)
    row = ModelFigures(source="router", engine="vllm", replica="vllm", circuit="open", waiting=5, rejected=2)
    with served_team(tmp_path / "home", url) as fleet:
        quiet = json.loads(fleet("status", "--json").stdout.splitlines()[-1])
        asyncio.run(post(url, row.model_copy(update={"tokens_in": 200, "tokens_cached": 50})))
        told = fleet("status")
        found = json.loads(fleet("status", "--json").stdout.splitlines()[-1])
    assert quiet["engines"] == []
    (engine,) = found["engines"]
    assert (engine["engine"], engine["waiting"], engine["rejected"], engine["hit_rate"]) == ("vllm", 5, 2, 0.25)
    assert engine["open_circuits"] == ["vllm"]
    assert "engine     vllm: 0 running, 5 waiting" in told.stdout
