"""What an SQL statement does, decided by its syntax tree (RT-60); a read-only transaction is the second lock."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Literal, NamedTuple

StatementClass = Literal["read", "write", "refused"]


class ClassifiedStatement(NamedTuple):
    """The class of one statement, and why it is not `read`."""

    kind: StatementClass
    reason: str


_READS = frozenset({"SELECT", "WITH", "TABLE", "VALUES"})
_WRITES = frozenset(
    {"INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE", "CREATE", "ALTER", "DROP", "COMMENT", "GRANT", "REVOKE", "CALL"}
    | {"REFRESH", "ANALYZE", "REINDEX"}
)
# Spaces that a parser and the server could take differently: the server knows those of ASCII alone.
_ODD_SPACE = re.compile(r"[^\S \t\n\r\f]|[\x00-\x08\x0b\x0e-\x1f\x7f]")
_LEADING = r"\A(?:\s|--[^\n]*\n|/\*[^*/]*\*/)*"
_SHOW = re.compile(_LEADING + r"SHOW\s+[\w.]+(?:\s+\w+){0,2}\s*;?\s*\Z", re.IGNORECASE)
_OPTIONS = "ANALY[ZS]E|VERBOSE|COSTS|SETTINGS|GENERIC_PLAN|BUFFERS|SERIALIZE|WAL|TIMING|SUMMARY|MEMORY|FORMAT"
_OPTION = rf"\s*(?:{_OPTIONS})(?:\s+\w+)?\s*"
_EXPLAIN = re.compile(
    _LEADING + rf"EXPLAIN\b(?:\s*\({_OPTION}(?:,{_OPTION})*\)|(?:\s+(?:ANALY[ZS]E|VERBOSE)\b)*)", re.IGNORECASE
)
# Functions of PostgreSQL that read and compute, and whose arguments run no statement. Any other may do anything.
READING_FUNCTIONS = frozenset(
    """
    abs acos age any_value array array_agg array_append array_cat array_dims array_fill array_length array_lower
    array_ndims array_position array_positions array_prepend array_remove array_replace array_to_json array_to_string
    array_upper ascii asin atan atan2 avg bit_and bit_length bit_or bool_and bool_or bpchar btrim cardinality cbrt ceil
    ceiling char_length character_length chr clock_timestamp coalesce col_description concat concat_ws convert
    convert_from convert_to corr cos cot count covar_pop covar_samp crc32 cube cume_dist current_database current_query
    current_schema current_schemas current_setting currval date date_bin date_part date_trunc decode degrees dense_rank
    div encode every exists exp factorial first_value float4 float8 floor format format_type gcd gen_random_uuid
    generate_series generate_subscripts get_byte greatest grouping has_any_column_privilege has_column_privilege
    has_database_privilege has_function_privilege has_schema_privilege has_sequence_privilege has_table_privilege host
    inet_server_addr inet_server_port initcap int2 int4 int8 isempty isfinite json_agg json_array_elements
    json_array_elements_text json_array_length json_build_array json_build_object json_each json_each_text
    json_extract_path json_extract_path_text json_object json_object_agg json_object_keys json_populate_record
    json_populate_recordset json_strip_nulls json_to_record json_to_recordset json_typeof jsonb_agg
    jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each
    jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_agg
    jsonb_object_keys jsonb_path_exists jsonb_path_match jsonb_path_query jsonb_path_query_array jsonb_path_query_first
    jsonb_populate_record jsonb_populate_recordset jsonb_pretty jsonb_set jsonb_strip_nulls jsonb_to_record
    jsonb_to_recordset jsonb_typeof justify_days justify_hours justify_interval lag last_value lcm lead least left
    length ln log log10 lower lower_inc lower_inf lpad ltrim make_date make_interval make_time make_timestamp
    make_timestamptz masklen max md5 min mod mode netmask network now nth_value ntile nullif num_nonnulls num_nulls
    numeric numrange obj_description octet_length overlaps parse_ident percent_rank percentile_cont percentile_disc
    pg_backend_pid pg_client_encoding pg_column_size pg_database_size pg_encoding_to_char pg_function_is_visible
    pg_get_constraintdef pg_get_expr pg_get_functiondef pg_get_function_arguments pg_get_function_identity_arguments
    pg_get_function_result pg_get_indexdef pg_get_keywords pg_get_partkeydef pg_get_ruledef pg_get_serial_sequence
    pg_get_triggerdef pg_get_userbyid pg_get_viewdef pg_indexes_size pg_is_in_recovery pg_postmaster_start_time
    pg_relation_size pg_size_bytes pg_size_pretty pg_table_is_visible pg_table_size pg_tablespace_size
    pg_total_relation_size pg_type_is_visible pg_typeof pi plainto_tsquery phraseto_tsquery position power quote_ident
    quote_literal quote_nullable radians random range_merge rank regexp_count regexp_instr regexp_like regexp_match
    regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr regr_count regr_intercept
    regr_r2 regr_slope repeat replace reverse right rollup round row row_number row_to_json rpad rtrim scale
    set_byte setweight sha224 sha256 sha384 sha512 shobj_description sign sin split_part sqrt starts_with
    statement_timestamp stddev stddev_pop stddev_samp string_to_array string_to_table strip strpos substr substring sum
    tan text time timeofday timestamp timestamptz to_ascii to_char to_date to_hex to_json to_jsonb to_number to_regclass
    to_regproc to_regtype to_timestamp to_tsquery to_tsvector transaction_timestamp translate trim_array trim_scale
    trunc ts_headline ts_rank ts_rank_cd tsrange tstzrange txid_current_snapshot unnest upper upper_inc upper_inf
    daterange int4range int8range var_pop var_samp variance version websearch_to_tsquery width_bucket
    """.split()  # noqa: SIM905 - a list of three hundred quoted words reads worse
)
# Forms of the language with words between their arguments; every other call keeps its name, whatever a parser knows.
_FORMS = ("CAST", "EXTRACT", "OVERLAY", "POSITION", "STRING_AGG", "SUBSTRING", "TRIM")
_WORDS = ("ANY", "CASE", "VARIADIC")


def classify_sql(text: str) -> ClassifiedStatement:
    """Tells what the statement does: `read`, `write`, or `refused` for what no operation carries out.

    It reads if every part of it is a query and every function is one of `READING_FUNCTIONS`. What cannot be parsed is
    refused; the error is on the side that asks a person.
    """
    if _ODD_SPACE.search(text):
        return ClassifiedStatement("refused", "it has a control character or a space that is none of ASCII")
    # A comment ends at either sign.
    text = text.replace("\r", "\n")
    if _SHOW.match(text):
        return ClassifiedStatement("read", "it reads only")
    explained = _EXPLAIN.match(text)
    return _classify(text[explained.end() :] if explained else text)


def _classify(text: str) -> ClassifiedStatement:
    sql = _sql()
    try:
        words = _without_end(sql.words(text))
        if not words or ";" in words:
            return ClassifiedStatement("refused", "it must be exactly one statement")
        verb = next((word for word in words if word != "("), "").upper()
        if verb in _WRITES:
            return ClassifiedStatement("write", f"{verb} changes the database")
        if verb not in _READS:
            return ClassifiedStatement("refused", f"{verb[:40]!r} is not carried out by this tool")
        trees = sql.trees(text)
    except sql.errors as error:
        return ClassifiedStatement("refused", f"it cannot be parsed ({type(error).__name__})")
    if len(trees) != 1:
        return ClassifiedStatement("refused", "it must be exactly one statement")
    problem = next(_effects(trees[0], sql), None)
    return ClassifiedStatement("write", problem) if problem else ClassifiedStatement("read", "it reads only")


def _without_end(words: Iterable[str]) -> list[str]:
    listed = list(words)
    while listed and listed[-1] == ";":
        listed.pop()
    return listed


def _effects(tree: Any, sql: Any) -> Iterator[str]:
    """Whatever in the tree may have an effect, as reasons."""
    kinds = sql.kinds
    if not isinstance(tree, sql.queries):
        yield "a part of it changes the database"
    for node in tree.walk():
        if isinstance(node, kinds.Lock):
            yield "it locks rows"
        elif isinstance(node, sql.changes) or (isinstance(node, kinds.CTE) and not isinstance(node.this, sql.queries)):
            yield "a part of it changes the database"
        elif isinstance(node, kinds.Anonymous) and not _only_reads(node, kinds):
            yield f"{node.name[:60]} is no function of which it is known that it only reads"


def _only_reads(call: Any, kinds: Any) -> bool:
    schema = ""
    if isinstance(call.parent, kinds.Dot) and call.parent.expression is call:
        schema = call.parent.this.name if isinstance(call.parent.this, kinds.Identifier) else "?"
    elif isinstance(call.parent, kinds.Table):
        schema = "?" if call.parent.catalog else call.parent.db
    is_quoted = isinstance(call.this, kinds.Identifier)
    return (call.name if is_quoted else call.name.lower()) in READING_FUNCTIONS and schema.lower() in ("", "pg_catalog")


def _only(parsers: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: parsers[name] for name in names}


@cache
def _sql() -> Any:
    """The parser, loaded when the first statement is looked at: it has the size of all the rest of the policy."""
    from sqlglot import exp
    from sqlglot.dialects.postgres import Postgres
    from sqlglot.errors import SqlglotError

    known: Any = Postgres.Parser

    class _Names(Postgres):
        class Parser(Postgres.Parser):
            FUNCTIONS: dict[str, Any] = {}
            NO_PAREN_FUNCTION_PARSERS = _only(known.NO_PAREN_FUNCTION_PARSERS, _WORDS)
            FUNCTION_PARSERS = _only(known.FUNCTION_PARSERS, _FORMS)

    class _Sql:
        kinds = exp
        errors = (SqlglotError, RecursionError, ValueError)
        queries = (exp.Query, exp.Values)
        changes = (exp.DDL, exp.Update, exp.Delete, exp.Merge, exp.Copy, exp.Drop, exp.Into, exp.Command, exp.Operator)

        @staticmethod
        def words(text: str) -> list[str]:
            return [token.text for token in _Names().tokenize(text)]

        @staticmethod
        def trees(text: str) -> list[Any]:
            trees = _Names().parse(text)
            return [tree for tree in trees if tree is not None and not isinstance(tree, exp.Semicolon)]

    return _Sql
