"""What statements do, decided by their text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.policy.commands.cypher import classify_cypher
from fleet.policy.commands.redis import READ_COMMANDS, WRITE_COMMANDS, classify_redis
from fleet.policy.commands.sql import classify_sql

SQL_READS = [
    "SELECT 1",
    "select * from t where a = 'x; DROP TABLE t'",
    "SELECT 1;",
    "SELECT 1; -- ; DROP TABLE t",
    "-- note\nSELECT 1",
    "/* a /* nested; */ one */ SELECT 1",
    "(SELECT 1) UNION (SELECT 2)",
    "WITH x AS (SELECT 1) SELECT * FROM x",
    'SELECT "delete" FROM t',
    'SELECT "a""; DROP TABLE t" FROM t',
    "SELECT $$; DELETE FROM t$$",
    "SELECT $a$ $$ ; $a$",
    r"SELECT E'it\'s; DELETE FROM t'",
    "TABLE t",
    "VALUES (1)",
    "SHOW server_version",
    "EXPLAIN SELECT 1",
    "EXPLAIN (ANALYZE) SELECT 1",
    "SELECT updated, deleted FROM inserts",
    "SELECT execute FROM t",
    "SELECT current_user, now(), coalesce(a, 1), pg_catalog.count(*) FILTER (WHERE b) OVER (PARTITION BY c) FROM t",
    "SELECT \"count\"(DISTINCT a), string_agg(b, ',') FROM t GROUP BY GROUPING SETS ((a), ()) HAVING sum(a) > 1",
    "SELECT a::regclass, CAST(b AS int), c ->> 'x', EXTRACT(epoch FROM now()) FROM generate_series(1, 3) g(c)",
    "EXPLAIN (ANALYZE, FORMAT json, COSTS off) SELECT 1",
    "EXPLAIN ANALYZE VERBOSE WITH x AS (SELECT 1) SELECT * FROM x",
    "SELECT a$$, b$$ FROM t",
]
SQL_WRITES = [
    "INSERT INTO t VALUES (1)",
    "update t set a = 1",
    "DELETE FROM t",
    "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
    "TRUNCATE t",
    "CREATE TABLE t (a int)",
    "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
    "WITH x AS MATERIALIZED (\n  UPDATE t SET a = 1 RETURNING *) SELECT 1",
    "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
    "WITH x AS (/* */ DELETE FROM t) SELECT 1",
    "SELECT * INTO u FROM t",
    "EXPLAIN ANALYZE DELETE FROM t",
    "EXPLAIN ANALYZE UPDATE t SET a = 1",
    "EXPLAIN ANALYZE CREATE TABLE u AS SELECT 1",
    "SELECT * FROM t FOR UPDATE",
    "SELECT * FROM t FOR NO KEY UPDATE",
    "SELECT * FROM t FOR SHARE SKIP LOCKED",
    "SELECT pg_terminate_backend(1)",
    "SELECT pg_catalog.pg_read_file('/etc/passwd')",
    "SELECT nextval('s')",
    "SELECT set_config('transaction_read_only', 'off', true)",
    "SELECT dblink_exec('x', 'y')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT pg_advisory_lock (1)",
    "CALL p()",
    'SELECT "pg_terminate_backend"(1)',
    "SELECT pg_catalog.\"pg_read_file\"('/etc/passwd')",
    "SELECT \"dblink_exec\" ('x', 'y')",
    r'SELECT U&"\0070g_sleep"(1)',
    "EXPLAIN ANALYZE UPDATE t AS x SET a = 1",
    "EXPLAIN (ANALYZE) UPDATE t AS x SET a = 1",
    "EXPLAIN SELECT * INTO u FROM t",
    "SELECT * FROM pg_sleep(1)",
    "SELECT * FROM ROWS FROM (pg_sleep(1)) AS x",
    "SELECT x.a FROM t, LATERAL (SELECT pg_sleep(1)) x",
    "SELECT ts_stat('SELECT evil()')",
    "SELECT cron.schedule('x', 'y')",
    "SELECT evil.count(1)",
    "SELECT * FROM evil.count(1)",
    "SELECT a.b.count(1)",
    "SELECT 1 -- x\r, pg_sleep(5)",
    "SELECT a$$, pg_sleep(1), b$$ FROM t",
    r"SELECT e'\'', pg_sleep(1), ''",
    "SELECT a OPERATOR(evil.+) b FROM t",
    "SELECT convert(1), if(1), to_file(1)",
    "EXPLAIN (ANALYZE /* */) SELECT 1",
]
SQL_REFUSED = [
    "",
    "  ;;  ",
    "-- only a comment",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE t",
    "COMMIT",
    "ROLLBACK",
    "BEGIN",
    "SET default_transaction_read_only = off",
    "RESET ALL",
    "COPY t TO PROGRAM 'sh'",
    "COPY t FROM STDIN",
    "DO $$ BEGIN END $$",
    "LISTEN a",
    "NOTIFY a",
    "LOAD 'x'",
    "PREPARE a AS SELECT 1",
    "EXECUTE a",
    "DISCARD ALL",
    "LOCK t",
    "VACUUM",
    "SELECT 'open",
    'SELECT "open',
    "SELECT $$open",
    "/* open SELECT 1",
    "/* a /* b */ SELECT 1",
    "\\! ls",
    "EXPLAIN ANALYZE EXECUTE a",
    "SELECT 1\x0b",
    "SELECT\u00a01",
    "SELECT " + "(" * 5000 + "1" + ")" * 5000,
    "SHOW a; DROP TABLE t",
]


@pytest.mark.rule("RT-60")
@pytest.mark.parametrize("text", SQL_READS)
def test_sql_that_reads_is_read(text: str) -> None:
    assert classify_sql(text).kind == "read"


@pytest.mark.rule("RT-60")
@pytest.mark.parametrize("text", SQL_WRITES)
def test_sql_that_changes_is_write_wherever_it_does(text: str) -> None:
    assert classify_sql(text).kind == "write"


@pytest.mark.rule("RT-60")
@pytest.mark.parametrize("text", SQL_REFUSED)
def test_sql_of_several_statements_or_about_the_session_is_refused(text: str) -> None:
    assert classify_sql(text).kind == "refused"


@settings(max_examples=100)
@given(
    st.sampled_from(SQL_WRITES),
    st.sampled_from(["{}", "/* x */ {}", "  {}\n;", "-- y\n{}", "{} /* ; */"]),
    st.booleans(),
)
def test_sql_that_changes_is_never_read_in_another_dress(text: str, dress: str, is_upper: bool) -> None:
    assert classify_sql(dress.format(text.upper() if is_upper else text)).kind != "read"


@settings(max_examples=100)
@given(st.text("SELECT 1;'\"$/*-x\\\n", max_size=40), st.sampled_from(["; DELETE FROM t", "; COMMIT"]))
def test_second_statement_never_hides_behind_a_literal_that_ends(text: str, second: str) -> None:
    before = classify_sql(text)
    if before.kind == "read" and "-" not in text and ";" not in text:
        assert classify_sql(text + second).kind == "refused"


@pytest.mark.rule("RT-60")
@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (["GET", "a"], "read"),
        (["get", "a"], "read"),
        (["XINFO", "STREAM", "a"], "read"),
        (["xread", "count", "1", "streams", "a", "0"], "read"),
        (["XREAD", "block", "0", "STREAMS", "a", "$"], "refused"),
        (["SET", "a", "1"], "write"),
        (["getdel", "a"], "write"),
        (["KEYS", "*"], "refused"),
        (["EVAL", "return 1", "0"], "refused"),
        (["EVAL_RO", "return 1", "0"], "refused"),
        (["FLUSHALL"], "refused"),
        (["CONFIG", "GET", "*"], "refused"),
        (["XINFO", "HELP"], "refused"),
        (["SORT", "a", "STORE", "b"], "refused"),
        (["MULTI"], "refused"),
        (["MONITOR"], "refused"),
        ([""], "refused"),
        ([], "refused"),
    ],
)
def test_redis_command_is_of_its_list(command: list[str], kind: str) -> None:
    assert classify_redis(command).kind == kind


def test_redis_lists_have_nothing_in_common() -> None:
    assert not READ_COMMANDS & WRITE_COMMANDS
    assert not {"EVAL", "SCRIPT", "FUNCTION", "CONFIG", "DEBUG", "SHUTDOWN", "MIGRATE"} & (
        READ_COMMANDS | WRITE_COMMANDS
    )


@pytest.mark.rule("RT-60")
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("MATCH (n) RETURN n", "read"),
        ("match (n) where n.name = 'CREATE' return n", "read"),
        ("MATCH (n:`Set`) RETURN n // DELETE", "read"),
        ("EXPLAIN MATCH (n) RETURN n", "read"),
        ("CALL db.labels()", "read"),
        ("CALL { MATCH (n) RETURN n } RETURN n", "read"),
        ("UNWIND [1, 2] AS x RETURN x;", "read"),
        ("CREATE (n)", "write"),
        ("MATCH (n) SET n.a = 1", "write"),
        ("MATCH (n) DETACH DELETE n", "write"),
        ("MATCH (n) /* x */ REMOVE n.a", "write"),
        ("MATCH (n) CALL { CREATE (m) } RETURN n", "write"),
        ("CALL apoc.create.node(['A'], {})", "write"),
        ("MATCH (n) FOREACH (x IN [1] | SET n.a = x)", "write"),
        ("WITH 1.SET AS x RETURN x", "write"),
        ("LOAD CSV FROM 'file:///etc/passwd' AS l RETURN l", "refused"),
        ("MATCH (n) CALL { WITH n DELETE n } IN TRANSACTIONS", "refused"),
        ("CREATE DATABASE d", "refused"),
        ("CREATE OR REPLACE USER u SET PASSWORD 'x'", "refused"),
        ("CALL apoc.cypher.runWrite('CREATE (n)', {})", "refused"),
        ("USE other MATCH (n) RETURN n", "refused"),
        ("MATCH (n) RETURN n; MATCH (m) DELETE m", "refused"),
        ("MATCH (n) RETURN '", "refused"),
        ("MATCH (n) /* RETURN n", "refused"),
        ("MATCH (n) \\u0053ET n.a = 1", "refused"),
        ("GRANT ROLE r TO u", "refused"),
        ("", "refused"),
        ("42", "refused"),
        ("BEGIN", "refused"),
    ],
)
def test_cypher_statement_is_of_its_class(text: str, kind: str) -> None:
    assert classify_cypher(text).kind == kind
