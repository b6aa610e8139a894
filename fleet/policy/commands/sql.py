"""What an SQL statement does, decided by its text (RT-60); the server's read-only transaction is the second lock."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

StatementClass = Literal["read", "write", "refused"]


class ClassifiedStatement(NamedTuple):
    """The class of one statement, and why it is not `read`."""

    kind: StatementClass
    reason: str


# Comments nest in PostgreSQL, so they are taken out by hand; the rest are the literals in which words mean nothing.
_LITERAL = re.compile(
    r"""(?:\b[eE]'(?:[^'\\]|\\.|'')*')|(?:'(?:[^']|'')*')|(?:"(?:[^"]|"")*")|(?P<dollar>\$(?:[A-Za-z_\x80-\U0010ffff][\w]*)?\$)|--[^\n\r]*|(?P<block>/\*)""",
    re.DOTALL,
)
_READS = frozenset({"SELECT", "WITH", "TABLE", "VALUES", "SHOW", "EXPLAIN"})
_WRITES = frozenset(
    {"INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE", "CREATE", "ALTER", "DROP", "COMMENT", "GRANT", "REVOKE", "CALL"}
    | {"REFRESH", "ANALYZE", "REINDEX"}
)
_CHANGING = re.compile(r"\(\s*(?:INSERT|UPDATE|DELETE|MERGE)\b|\bINTO\b|^\W*(?:INSERT|UPDATE|DELETE|MERGE)\b")
_INNER = re.compile(r"\b(?:INSERT\s+INTO|DELETE\s+FROM|MERGE\s+INTO|UPDATE\s+\S+\s+SET|CREATE|EXECUTE|REFRESH)\b")
_LOCKING = re.compile(r"\bFOR\s+(?:NO\s+KEY\s+UPDATE|UPDATE|KEY\s+SHARE|SHARE)\b")
_SIDE_EFFECTS = re.compile(
    r"\b(?:PG_(?:TERMINATE_BACKEND|CANCEL_BACKEND|RELOAD_CONF|ROTATE_LOGFILE|READ_FILE|READ_BINARY_FILE|READ_SERVER_FILES"
    r"|LS_\w+|STAT_FILE|SWITCH_WAL|PROMOTE|CREATE_RESTORE_POINT|BACKUP_\w+|START_BACKUP|STOP_BACKUP|WAL_REPLAY_\w+"
    r"|LOGICAL_\w+|REPLICATION_\w+|CREATE_\w+_SLOT|CREATE_\w+_REPLICATION_SLOT|DROP_REPLICATION_SLOT"
    r"|COPY_\w+_SLOT|ADVISORY_\w+|TRY_ADVISORY_\w+|NOTIFY|STAT_RESET\w*|FILE_\w+|EXPORT_SNAPSHOT|LOG_\w+)"
    r"|LO_\w+|LOREAD|LOWRITE|DBLINK\w*|SETVAL|NEXTVAL|SET_CONFIG|QUERY_TO_XML\w*|CURSOR_TO_XML\w*|DATABASE_TO_XML\w*"
    r"|SCHEMA_TO_XML\w*|TABLE_TO_XML\w*|BRIN_\w+|GIN_CLEAN_PENDING_LIST|TXID_CURRENT|PG_CURRENT_XACT_ID)\s*\("
)


def classify_sql(text: str) -> ClassifiedStatement:
    """What the statement does: `read`, `write`, or `refused` for what no operation carries out.

    The words count, wherever they stand outside of literals and comments. A statement that reads but looks like one
    that changes is taken for a write: the error is on the side that asks a person.
    """
    bare = _without_literals(text)
    if bare is None:
        return ClassifiedStatement("refused", "a comment or a literal does not end")
    parts = [part for part in bare.upper().split(";") if part.strip()]
    if len(parts) != 1:
        return ClassifiedStatement("refused", "it must be exactly one statement")
    words = parts[0].strip().lstrip("( \t\r\n")
    first = re.match(r"[A-Z]*", words)
    verb = first[0] if first else ""
    if verb in _WRITES:
        return ClassifiedStatement("write", f"{verb} changes the database")
    if verb not in _READS:
        return ClassifiedStatement("refused", f"{verb or 'a statement of no word'} is not carried out by this tool")
    return _of_reading(words)


def _of_reading(words: str) -> ClassifiedStatement:
    if _CHANGING.search(words) or _INNER.search(words):
        return ClassifiedStatement("write", "a part of it changes the database")
    if _LOCKING.search(words):
        return ClassifiedStatement("write", "it locks rows")
    if match := _SIDE_EFFECTS.search(words):
        return ClassifiedStatement("write", f"{match[0].rstrip('( ').lower()} has side effects")
    return ClassifiedStatement("read", "it reads only")


def _without_literals(text: str) -> str | None:
    """The text with a blank for every literal and comment; None when one of them does not end."""
    kept: list[str] = []
    at = 0
    while literal := _LITERAL.search(text, at):
        kept += [text[at : literal.start()], " "]
        end: int | None = literal.end()
        if literal["block"]:
            end = _end_of_comment(text, literal.end())
        elif literal["dollar"]:
            close = text.find(literal["dollar"], literal.end())
            end = None if close < 0 else close + len(literal["dollar"])
        if end is None:
            return None
        # A quoted name keeps its place as a name, so that `"delete"` is none of the words.
        kept.append('"' if literal[0].startswith('"') else "")
        at = end
    rest = text[at:]
    return None if "'" in rest or '"' in rest else "".join(kept) + rest


def _end_of_comment(text: str, at: int) -> int | None:
    depth = 1
    while depth:
        opening, closing = text.find("/*", at), text.find("*/", at)
        if closing < 0:
            return None
        nests = 0 <= opening < closing
        depth += 1 if nests else -1
        at = (opening if nests else closing) + 2
    return at
