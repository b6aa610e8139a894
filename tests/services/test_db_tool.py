"""Tool db against real servers: PostgreSQL where it is installed, Redis and a graph behind Bolt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import asyncpg
import neo4j
import pytest
import redis

from fleet.extensions.operations.db import DbTool
from fleet.kernel.errors import InvalidInput, PolicyDenied, ToolFailed
from fleet.policy.commands.sql import READING_FUNCTIONS, classify_sql
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.targets import DatabaseTarget
from fleet.trees.memory import MemoryBlobStore
from tests.support.postgres import PostgresAddress, postgres_programs, postgres_server
from tests.support.services import Neo4jAddress
from tests.support.stores import own_database
from tests.support.tool_calls import TableOfSecrets, call_of, context_of


def target(kind: Any, url: str | None, **more: Any) -> DatabaseTarget:
    """A target as a test has it: the address may hold a password, which a file may not."""
    return DatabaseTarget.model_construct(**{"allow_write": True, "kind": kind, "url": url, "write_url": None, **more})


async def asked(one: DbTool, op: str, database: str = "main", **args: Any) -> ToolOutcome:
    return await one.call(call_of("db", op, database=database, **args), context_of())


def rows_of(found: ToolOutcome) -> list[Any]:
    return [json.loads(line) for line in found.text.splitlines()[1:]]


# PostgreSQL.


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresAddress]:
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with postgres_server(programs) as address:
        yield address


@pytest.fixture
async def table(server: PostgresAddress) -> DbTool:
    """A table of three rows."""
    connection: Any = await asyncpg.connect(server.owner)
    try:
        await connection.execute("DROP TABLE IF EXISTS items; CREATE TABLE items (id int, name text)")
        await connection.execute("INSERT INTO items SELECT i, 'item ' || i FROM generate_series(1, 3) i")
    finally:
        await connection.close()
    return DbTool(MemoryBlobStore(), databases={"main": target("postgresql", server.owner)})


async def count(one: DbTool) -> int:
    return rows_of(await asked(one, "postgresql_query", statement="SELECT count(*) FROM items"))[0][0]


@pytest.mark.rule("RT-48", "RT-60")
async def test_postgresql_query_gives_rows(table: DbTool) -> None:
    found = await asked(table, "postgresql_query", statement="SELECT id, name, 1.5::float8 FROM items ORDER BY id;")

    assert rows_of(found) == [[1, "item 1", "1.5"], [2, "item 2", "1.5"], [3, "item 3", "1.5"]]
    assert isinstance(found.content, dict)
    assert found.content["columns"] == ["id", "name", "float8"]


@pytest.mark.rule("RT-60")
@pytest.mark.parametrize(
    "statement",
    [
        "WITH x AS (DELETE FROM items RETURNING *) SELECT * FROM x",
        "DELETE FROM items",
        "SELECT 1; DELETE FROM items",
        "EXPLAIN ANALYZE DELETE FROM items",
        "EXPLAIN ANALYZE UPDATE items AS x SET id = 7",
        'SELECT "pg_terminate_backend"(pg_backend_pid())',
        """SELECT "pg_read_file"('PG_VERSION')""",
        "SELECT set_config('transaction_read_only', 'off', true)",
        "COMMIT",
    ],
)
async def test_postgresql_query_that_would_change_is_denied_and_changes_nothing(table: DbTool, statement: str) -> None:
    with pytest.raises(PolicyDenied) as caught:
        await asked(table, "postgresql_query", statement=statement)

    assert caught.value.details["rule_id"] == "RT-60"
    assert await count(table) == 3


@pytest.mark.rule("RT-60")
async def test_functions_that_count_as_reading_change_nothing_by_what_postgresql_says_of_them(
    server: PostgresAddress,
) -> None:
    connection: Any = await asyncpg.connect(server.owner)
    try:
        volatile = await connection.fetch(
            "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND provolatile = 'v'"
        )
    finally:
        await connection.close()

    assert {row[0] for row in volatile} & READING_FUNCTIONS == {
        # They look at a clock, at files of tables or at the session, or draw a number.
        *("clock_timestamp", "timeofday", "random", "gen_random_uuid", "current_query", "currval"),
        *("pg_database_size", "pg_indexes_size", "pg_relation_size", "pg_table_size", "pg_tablespace_size"),
        *("pg_total_relation_size", "pg_is_in_recovery"),
    }


PIECES = (
    *("SELECT ", "probe()", '"probe"()', "evil.count(1)", "count(1)", "'", "''", '"', "$$", "$a$", "--", "/*", "*/"),
    *(
        "\n",
        "\r",
        "\f",
        " ",
        ",",
        "1",
        "a",
        "e'",
        "U&'",
        'u&"',
        "\\",
        "\\'",
        "(",
        ")",
        "::",
        "AS ",
        "FROM ",
        "WITH x AS (",
    ),
    *("SELECT 1", "UPDATE t SET a=1", "INSERT INTO t VALUES (1)", "RETURNING a", "FOR UPDATE", "t", "pg_catalog."),
    *("OPERATOR(evil.+)", "+", "EXPLAIN ", "ANALYZE ", "(ANALYZE)", ";", "VALUES (1)", "TABLE t", "LATERAL ", "{", "}"),
    *("b'", "x'", "\u00a0", "INTO u ", "evil.", "if(1)", "probe(1)", "ROWS FROM ("),
)
PROBES = """
    CREATE TABLE t (a int); CREATE SCHEMA evil;
    CREATE FUNCTION probe() RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''probed''; END';
    CREATE FUNCTION probe(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''probed''; END';
    CREATE FUNCTION "if"(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''probed''; END';
    CREATE FUNCTION evil.count(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''probed''; END';
    CREATE FUNCTION evil.plus(int, int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''probed''; END';
    CREATE OPERATOR evil.+ (function = evil.plus, leftarg = int, rightarg = int);
"""


@pytest.mark.rule("RT-60")
async def test_no_text_that_counts_as_reading_calls_a_function_of_the_owner_on_a_real_server(
    server: PostgresAddress,
) -> None:
    random, ran = Random(20261125), 0
    connection: Any = await asyncpg.connect(server.owner)
    try:
        await connection.execute(PROBES)
        for _ in range(12_000):
            text = "SELECT " + "".join(random.choices(PIECES, k=random.randint(1, 8)))
            if classify_sql(text).kind == "read":
                ran += await _runs_harmlessly(connection, text)
    finally:
        await connection.execute('DROP SCHEMA evil CASCADE; DROP TABLE t; DROP FUNCTION probe(), probe(int), "if"(int)')
        await connection.close()
    assert ran > 100


async def _runs_harmlessly(connection: Any, text: str) -> bool:
    transaction = connection.transaction(readonly=True)
    await transaction.start()
    try:
        await (await connection.prepare(text)).fetch()
        problem = ""
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        problem = str(error)
    finally:
        await transaction.rollback()
    assert "probed" not in problem, text
    assert "read-only" not in problem, text
    return not problem


@pytest.mark.rule("RT-60")
async def test_postgresql_itself_refuses_what_a_function_changes(table: DbTool, server: PostgresAddress) -> None:
    connection: Any = await asyncpg.connect(server.owner)
    await connection.execute(
        "CREATE OR REPLACE FUNCTION now(int) RETURNS int LANGUAGE sql AS 'DELETE FROM items; SELECT 1'"
    )
    await connection.close()

    with pytest.raises(PolicyDenied, match="read-only"):
        await asked(table, "postgresql_query", statement="SELECT now(1)")

    assert await count(table) == 3


@pytest.mark.rule("RT-60")
async def test_postgresql_execute_commits_and_a_failing_statement_is_an_outcome(table: DbTool) -> None:
    done = await asked(table, "postgresql_execute", statement="DELETE FROM items WHERE id = 1")
    failed = await asked(table, "postgresql_execute", statement="INSERT INTO items SELECT 1/0, 'x'")

    assert isinstance(done.content, dict)
    assert done.content["status"] == "DELETE 1"
    assert (failed.outcome, failed.reason) == ("failed", "statement_failed")
    assert "22012" in failed.text
    assert await count(table) == 2


@pytest.mark.rule("RT-60")
async def test_postgresql_rows_and_bytes_are_bounded(table: DbTool) -> None:
    many = await asked(table, "postgresql_query", statement="SELECT generate_series(1, 5000)")
    wide = await asked(table, "postgresql_query", statement="SELECT repeat('x', 200000) FROM generate_series(1, 9)")

    assert isinstance(many.content, dict)
    assert isinstance(wide.content, dict)
    assert (many.content["rows"], many.content["is_cut"]) == (1000, True)
    assert (wide.content["rows"], wide.content["is_cut"]) == (2, True)


async def test_postgresql_statement_over_its_time_is_a_timed_out_outcome(server: PostgresAddress) -> None:
    from fleet.extensions.operations.postgresql import PostgresqlDatabase

    one = DbTool(
        MemoryBlobStore(),
        databases={"main": target("postgresql", server.owner)},
        drivers={"postgresql": PostgresqlDatabase(statement_s=0.2)},
    )
    found = await asked(one, "postgresql_query", statement="SELECT count(*) FROM generate_series(1, 2000000000)")

    assert (found.outcome, found.reason) == ("timed_out", "timeout")


@pytest.mark.rule("RT-65")
async def test_address_is_resolved_by_reference_and_wrong_password_shows_nothing(server: PostgresAddress) -> None:
    wrong = server.owner.replace("owner:", "owner:wrong")
    secrets = TableOfSecrets({"good": server.owner, "wrong": wrong})
    targets = {n: DatabaseTarget(kind="postgresql", url=f"secret://{n}") for n in ("good", "wrong")}
    one = DbTool(MemoryBlobStore(), databases=targets, secrets=secrets)

    found = await asked(one, "postgresql_query", "good", statement="SELECT 1")
    with pytest.raises(ToolFailed) as caught:
        await asked(one, "postgresql_query", "wrong", statement="SELECT 1")

    assert rows_of(found) == [[1]]
    assert "wrong" not in caught.value.message
    assert caught.value.__cause__ is None
    with pytest.raises(InvalidInput, match="secret"):
        await asked(DbTool(MemoryBlobStore(), databases=targets), "postgresql_query", "good", statement="SELECT 1")


# Redis.


@pytest.fixture
def keys(redis_url: str) -> Iterator[DbTool]:
    url = own_database(redis_url)
    with redis.Redis.from_url(url) as client:
        client.set("a", "1")
        client.rpush("list", *range(1200))
        yield DbTool(MemoryBlobStore(), databases={"main": target("redis", url)})
        client.flushdb()


@pytest.mark.rule("RT-60")
async def test_redis_reads_by_the_list_and_writes_by_the_other(keys: DbTool) -> None:
    assert rows_of(await asked(keys, "redis_read", command=["GET", "a"])) == [["1"]]
    with pytest.raises(PolicyDenied):
        await asked(keys, "redis_read", command=["SET", "a", "2"])
    with pytest.raises(PolicyDenied):
        await asked(keys, "redis_write", command=["FLUSHALL"])
    await asked(keys, "redis_write", command=["SET", "a", "3"])
    assert rows_of(await asked(keys, "redis_read", command=["GET", "a"])) == [["3"]]


async def test_redis_rows_are_bounded_and_a_refused_command_is_an_outcome(keys: DbTool) -> None:
    many = await asked(keys, "redis_read", command=["LRANGE", "list", "0", "-1"])
    wrong = await asked(keys, "redis_read", command=["HGET", "a", "b"])

    assert isinstance(many.content, dict)
    assert (many.content["rows"], many.content["is_cut"]) == (1000, True)
    assert (wrong.outcome, wrong.reason) == ("failed", "statement_failed")
    assert "WRONGTYPE" in wrong.text


# A graph behind Bolt.


@pytest.fixture
def graph(neo4j_address: Neo4jAddress) -> Iterator[DbTool]:
    where = neo4j_address
    url = where.uri.replace("://", f"://{where.user}:{where.password}@")
    with neo4j.GraphDatabase.driver(where.uri, auth=(where.user, where.password)) as driver:
        driver.execute_query("CREATE (:DbToolThing {name: 'one'})", database_="neo4j")
        yield DbTool(MemoryBlobStore(), databases={"main": target("neo4j", url)})
        driver.execute_query("MATCH (n:DbToolThing) DETACH DELETE n", database_="neo4j")


@pytest.mark.rule("RT-60")
async def test_graph_is_read_and_written_each_by_its_operation(graph: DbTool) -> None:
    query = "MATCH (n:DbToolThing) RETURN n.name AS name ORDER BY name"

    assert rows_of(await asked(graph, "neo4j_read", statement=query)) == [["one"]]
    with pytest.raises(PolicyDenied):
        await asked(graph, "neo4j_read", statement="MATCH (n:DbToolThing) DETACH DELETE n")
    await asked(graph, "neo4j_write", statement="CREATE (:DbToolThing {name: 'two'})")
    assert rows_of(await asked(graph, "neo4j_read", statement=query)) == [["one"], ["two"]]
    nodes = rows_of(await asked(graph, "neo4j_read", statement="MATCH (n:DbToolThing {name: 'one'}) RETURN n"))
    assert nodes == [[{"labels": ["DbToolThing"], "properties": {"name": "one"}}]]


async def test_statement_that_the_graph_refuses_is_an_outcome(graph: DbTool) -> None:
    found = await asked(graph, "neo4j_read", statement="MATCH (n RETURN n")

    assert (found.outcome, found.reason) == ("failed", "statement_failed")


# Without a server.


@pytest.mark.parametrize(
    ("op", "kind", "url", "args"),
    [
        ("postgresql_query", "postgresql", "postgresql://a:pass-word@127.0.0.1:1/b", {"statement": "SELECT 1"}),
        ("redis_read", "redis", "redis://:pass-word@127.0.0.1:1/0", {"command": ["GET", "a"]}),
        ("redis_read", "redis", "wrong://pass-word", {"command": ["GET", "a"]}),
        ("neo4j_read", "neo4j", "bolt://a:pass-word@127.0.0.1:1", {"statement": "RETURN 1"}),
        ("neo4j_read", "neo4j", "wrong://a:pass-word@127.0.0.1:1", {"statement": "RETURN 1"}),
    ],
)
async def test_database_that_is_not_there_is_a_failure_without_its_password(
    op: str, kind: str, url: str, args: dict[str, Any]
) -> None:
    one = DbTool(MemoryBlobStore(), databases={"main": target(kind, url)})
    with pytest.raises(ToolFailed) as caught:
        await asked(one, op, **args)

    assert "pass-word" not in caught.value.message


async def test_target_without_address_of_another_kind_or_without_writing_is_refused() -> None:
    databases = {
        "none": DatabaseTarget(),
        "cache": DatabaseTarget(kind="redis", url="redis://h:1/0"),
    }
    one = DbTool(MemoryBlobStore(), databases=databases)
    with pytest.raises(PolicyDenied, match="no address"):
        await asked(one, "redis_read", "none", command=["GET", "a"])
    with pytest.raises(InvalidInput, match="kind redis"):
        await asked(one, "postgresql_query", "cache", statement="SELECT 1")
    with pytest.raises(PolicyDenied, match="allow_write"):
        await asked(one, "redis_write", "cache", command=["SET", "a", "1"])
    with pytest.raises(InvalidInput):
        await asked(one, "drop", "cache")
    assert one.name == "db"
