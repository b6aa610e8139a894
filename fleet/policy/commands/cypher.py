"""What a Cypher statement does, decided by its text (RT-60)."""

from __future__ import annotations

import re

from fleet.policy.commands.sql import ClassifiedStatement

_LITERAL = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`(?:[^`]|``)*`|//[^\n\r]*|/\*.*?\*/""", re.DOTALL)
_READS = frozenset({"MATCH", "OPTIONAL", "UNWIND", "WITH", "RETURN", "CALL", "SHOW"})
_WRITES = frozenset({"CREATE", "MERGE", "SET", "DELETE", "DETACH", "REMOVE", "FOREACH", "DROP"})
# A label or a property of such a name needs backticks: the error is on the side that asks a person.
_CHANGING = re.compile(r"\b(CREATE|MERGE|SET|DELETE|DETACH|REMOVE|FOREACH|DROP)\b")
_CALLED = re.compile(r"\bCALL\s*([^\s({]+)")
_SAFE_PROCEDURES = frozenset(
    {"DB.LABELS", "DB.RELATIONSHIPTYPES", "DB.PROPERTYKEYS", "DB.SCHEMA.VISUALIZATION", "DBMS.COMPONENTS", "DB.PING"}
    | {"DB.SCHEMA.NODETYPEPROPERTIES", "DB.SCHEMA.RELTYPEPROPERTIES", "DB.INDEX.FULLTEXT.QUERYNODES", "DB.INFO"}
    | {"DB.INDEX.FULLTEXT.QUERYRELATIONSHIPS", "DB.INDEX.VECTOR.QUERYNODES"}
)
_ADMINISTERS = "it administers the server"
_REFUSED = (
    (re.compile(r"\bLOAD\s+CSV\b"), "LOAD CSV reads files and addresses of the server"),
    (re.compile(r"\bIN\s+(?:\d+\s+)?(?:CONCURRENT\s+)?TRANSACTIONS\b"), "it makes transactions of its own"),
    (re.compile(r"\bPERIODIC\s+COMMIT\b"), "it makes transactions of its own"),
    (re.compile(r"^\s*USE\b"), "the database is that of its address"),
    (re.compile(r"^\s*(?:TERMINATE|GRANT|DENY|REVOKE|ALTER|STOP|START|DEALLOCATE|ENABLE)\b"), _ADMINISTERS),
    (
        re.compile(r"^\s*(?:CREATE|DROP)\s+(?:OR\s+REPLACE\s+)?(?:DATABASE|COMPOSITE|ALIAS|USER|ROLE|SERVER)\b"),
        _ADMINISTERS,
    ),
    (
        re.compile(r"\bAPOC\s*\.\s*(?:CYPHER|LOAD|EXPORT|IMPORT|PERIODIC|TRIGGER|SYSTEMDB|UTIL\s*\.\s*SLEEP)\b"),
        "this procedure leaves the bounds of the statement",
    ),
)


def classify_cypher(text: str) -> ClassifiedStatement:
    """What the statement does. Words within strings, quoted names and comments do not count."""
    bare = _LITERAL.sub(" q ", text).upper()
    if "/*" in bare or "'" in bare or '"' in bare or "`" in bare:
        return ClassifiedStatement("refused", "a comment or a literal does not end")
    # Escapes of the form \\uXXXX are read before the words are, so a word may be hidden in one.
    if "\\" in bare:
        return ClassifiedStatement("refused", "an escape stands outside of a literal")
    parts = [part for part in bare.split(";") if part.strip()]
    if len(parts) != 1:
        return ClassifiedStatement("refused", "it must be exactly one statement")
    words = re.sub(r"^\s*(?:EXPLAIN|PROFILE|CYPHER(?:\s+\w+=\w+)*)\s+", "", parts[0]).strip()
    if why := next((why for form, why in _REFUSED if form.search(words)), None):
        return ClassifiedStatement("refused", why)
    first = re.match(r"[A-Z]*", words)
    verb = first[0] if first else ""
    if verb not in _READS | _WRITES:
        return ClassifiedStatement("refused", f"{verb or 'a statement of no word'} is not carried out by this tool")
    return _of_words(words)


def _of_words(words: str) -> ClassifiedStatement:
    if match := _CHANGING.search(words):
        return ClassifiedStatement("write", f"{match[1]} changes the graph")
    unsafe = [name for name in _CALLED.findall(words) if name not in _SAFE_PROCEDURES]
    if unsafe:
        return ClassifiedStatement("write", f"procedure {unsafe[0].lower()[:60]} may change the graph")
    return ClassifiedStatement("read", "it reads only")
