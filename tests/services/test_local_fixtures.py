"""The shared stores of the tests answer over their real protocols."""

from __future__ import annotations

import neo4j
import redis.asyncio

from tests.support.services import Neo4jAddress


async def test_redis_fixture_answers_ping(redis_url: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        assert await client.ping()


async def test_graph_fixture_answers_a_query(neo4j_address: Neo4jAddress) -> None:
    auth = (neo4j_address.user, neo4j_address.password)
    async with neo4j.AsyncGraphDatabase.driver(neo4j_address.uri, auth=auth) as driver:
        records, _, _ = await driver.execute_query("RETURN 1 AS one", database_="neo4j")
    assert records[0]["one"] == 1
