"""Values beside the name of a secret: `password: x`, `"api_key": "x"`, `?token=x`, `--password x` (CX-70)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

from fleet.redaction.secret_values import WORDS, is_bare_secret, is_placeholder, is_quoted_secret

_KEYWORDS = (
    *("password", "passwd", "pwd", "passphrase", "secret", "token", "credential"),
    *("apikey", "api_key", "api-key", "accesskey", "access_key", "access-key"),
    *("privatekey", "private_key", "private-key", "connectionstring", "connection_string", "connection-string"),
)
_HAS_KEYWORD = re.compile("|".join(_KEYWORDS))
_STRONG = re.compile(r"passwords?|passwd|pwd|passphrase|secrets?|(?:api|access|private)_?key|connection_?string")
_NAMES = re.compile(rf"(?:{_STRONG.pattern}|token|credentials?)(?=_|\d*\Z)")
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_AFTER_WORDS = (
    "type types name names url uri urls endpoint file files filename path paths dir field fields id ids count counts "
    "limit limits len length size budget budgets policy prompt label hint regex pattern re class kind ttl expiry "
    "expires expiration lifetime at in is ok valid required enabled index idx pos position start end list set map dict "
    "tree stream source info error errors status state manager service provider store factory helper handler parser "
    "counter bucket usage rate cost price ref refs arn version algorithm algo method scheme header format chars char "
    "min max env var param option placeholder message help text title description"
)
_NOT_AFTER = frozenset(_AFTER_WORDS.split())
_BEFORE_WORDS = (
    "has is max min num no use with show hide get parse next prev peek pad eos bos unk mask sep special stop start end "
    "public per"
)
_NOT_BEFORE = frozenset(_BEFORE_WORDS.split())
_RIGHT = re.compile(r"[\w-]{0,40}")
_ASSIGNED = re.compile(
    r"(?P<close>\\{0,8}[\"'`])?\]?[ \t]{0,4}"
    r"(?::[ \t]{0,2}(?:str|string|bytes|String|&str)(?:[ \t]?\|[ \t]?None)?[ \t]{0,2}(?==))?"
    r"(?P<sign>=>|:=|=(?![=~>])|:(?![:/=]))(?P<space>[ \t]{0,8})"
)
_XML = re.compile(r">([^<>\s][^<>\n]{0,400})</")
_OPEN = re.compile(r"[rbufRBUF]{0,2}(?P<slashes>\\{0,8})(?P<quote>[\"'`])")
_LINE = re.compile(r"[^\r\n]*")
_TOKEN = re.compile(r"[^\s\"'`\\,;&<>(){}\[\]]{1,4096}")
_QUERY = re.compile(r"[^\s\"'`\\&#<>(){}\[\]]{1,4096}")
_FLAG = re.compile(r"[ \t]+(?P<open>[\"']?)(?P<value>[^\s\"'`\\;|&<>]{1,4096})")
_LINE_START = re.compile(r"[ \t]*(?:[+>-][ \t]*)?(?:-[ \t]+)?(?:(?:export|set|ENV|env|declare -x)[ \t]+)?")
_MOST = 64 << 10
_COMMANDS = (
    (
        "mysql",
        re.compile(r"mysql(?:dump|admin)?\b[^\n|;&]{0,200}?[ \t]-p(?P<value>[^\s\"'`\\;|&<>-][^\s\"'`\\;|&<>]{3,200})"),
    ),
    ("sshpass", re.compile(r"sshpass[ \t]+-p[ \t]*[\"']?(?P<value>[^\s\"'`\\;|&<>]{4,200})")),
    ("login", re.compile(r"login\b[^\n|;&]{0,200}?[ \t]-p[ \t]+[\"']?(?P<value>[^\s\"'`\\;|&<>]{4,200})")),
    ("redis-cli", re.compile(r"redis-cli\b[^\n|;&]{0,200}?[ \t]-a[ \t]+[\"']?(?P<value>[^\s\"'`\\;|&<>]{4,200})")),
    (
        "curl",
        re.compile(
            r"curl\b[^\n|;&]{0,300}?[ \t](?:-u|--user)[ \t]+[\"']?[^\s\"':]{1,100}:(?P<value>[^\s\"'`\\;|&<>]{4,200})"
        ),
    ),
)
"""Known commands that take a password with `-p` and the like."""


SECRET_WORDS = (*_KEYWORDS, *(word for word, _ in _COMMANDS))
"""In lower case: a text with none of them has no named values."""


_MARK, _MARK_LENGTH = re.compile(r"\[REDACTED:[A-Z_]{1,40}\]"), 52


class NamedValue(NamedTuple):
    """Where the value stands."""

    start: int
    end: int
    kind: Literal["KEY_VALUE", "URL_CREDENTIALS"] = "KEY_VALUE"


def named_values(text: str, lowered: str) -> Iterator[NamedValue]:
    """Every secret value with a name, in no order; `lowered` is the text in lower case, character by character."""
    for start, end in _names(text, lowered):
        if (value := _value_of(text, start, end)) is not None:
            yield value
    for word, expression in _COMMANDS:
        if word in lowered:
            for match in expression.finditer(text):
                if is_bare_secret(match["value"], is_assigned=True):
                    yield NamedValue(*match.span("value"))


def line_values(text: str, lowered: str) -> Iterator[NamedValue]:
    """As `named_values`, of lines alone that begin with the name and end with the value."""
    for keyword, end in _names(text, lowered):
        start = _name_start(text, keyword)
        match = _ASSIGNED.match(text, end)
        if match is not None and match["close"] is None and (strength := _strength(text[start:end])) is not None:
            value = _whole_line(text, start, match, name=text[start:end], is_strong=strength == "strong")
            if value is not None:
                yield value


def _names(text: str, lowered: str) -> Iterator[tuple[int, int]]:
    """Where a word for a secret begins, and where the name that holds it ends."""
    for word in _KEYWORDS:
        at, name_end = lowered.find(word), -1
        while at >= 0:
            right = _RIGHT.match(text, at)
            end = right.end() if right else at
            # Of `access_token_secret` both words belong to one name; of `[REDACTED:PRIVATE_KEY]=` none is one.
            if end > name_end and not _is_in_mark(text, at, end):
                yield at, end
            name_end = end
            at = lowered.find(word, at + len(word))


def _is_in_mark(text: str, keyword: int, end: int) -> bool:
    start = text.rfind("[", max(0, keyword - _MARK_LENGTH), keyword)
    return start >= 0 and (match := _MARK.match(text, start)) is not None and match.end() > end


def _value_of(text: str, keyword: int, end: int) -> NamedValue | None:
    start = _name_start(text, keyword)
    after = text[end : end + 1]
    if not after or after not in ":=\"'`\\] \t>":
        return None
    name = text[start:end].lstrip("-.")
    strength = _strength(name)
    if strength is None:
        return None
    before = text[start - 1 : start] if start else ""
    if text.startswith("--", start) and after in " \t":
        return _flag_value(text, end)
    if after == ">":
        return _element_value(text, end, before)
    match = _ASSIGNED.match(text, end)
    if match is None:
        return None
    if before in ("?", "&") and match["sign"] == "=" and not match["space"]:
        return _query_value(text, match.end())
    return _assigned_value(text, start, match, name=name, is_strong=strength == "strong")


def _name_start(text: str, keyword: int) -> int:
    start, least = keyword, max(0, keyword - 64)
    while start > least and ((before := text[start - 1]).isalnum() or before in "_.-"):
        start -= 1
    # In `\nPASSWORD=x` within a string the letter belongs to the escape.
    return start + (start < keyword and text[start - 1 : start] == "\\" and text[start] in "nrt")


def names_a_secret(name: str) -> bool:
    """Whether what has this name is a secret, not a word about one: `db_password`, but no `password_file`."""
    return _strength(name) is not None


@lru_cache(4096)
def _strength(name: str) -> Literal["strong", "weak"] | None:
    """How surely something of this name is a secret; None when it is not."""
    parts = [part.lower() for part in _PARTS.findall(name)]
    joined = "_".join(parts)
    match = _NAMES.search(joined)
    if match is None:
        return None
    before, after = joined[: match.start()].split("_"), joined[match.end() :].split("_")
    if _NOT_AFTER.intersection(after) or _NOT_BEFORE.intersection(before):
        return None
    return "strong" if _STRONG.search(joined) else "weak"


def _flag_value(text: str, end: int) -> NamedValue | None:
    match = _FLAG.match(text, end)
    if match is None or match["value"][0] in "-[":
        return None
    if match["open"] or is_bare_secret(match["value"], is_assigned=True):
        return None if is_placeholder(match["value"]) else NamedValue(*match.span("value"))
    return None


def _element_value(text: str, end: int, before: str) -> NamedValue | None:
    match = _XML.match(text, end) if before == "<" else None
    if match is None or not is_quoted_secret(match[1], is_strong=True, is_field=True):
        return None
    return NamedValue(*match.span(1))


def _query_value(text: str, at: int) -> NamedValue | None:
    match = _QUERY.match(text, at)
    if match is None or is_placeholder(match[0]) or match[0].lower() in WORDS:
        return None
    return NamedValue(*match.span(), kind="URL_CREDENTIALS")


def _assigned_value(text: str, start: int, match: re.Match[str], *, name: str, is_strong: bool) -> NamedValue | None:
    at, is_field = match.end(), match["close"] is not None
    opened = _OPEN.match(text, at)
    if opened is not None:
        end = _closing(text, opened.end(), len(opened["slashes"]), opened["quote"])
        value = text[opened.end() : end]
        if not is_quoted_secret(value, is_strong=is_strong, is_field=is_field):
            return None
        return NamedValue(opened.end(), end)
    if is_field:
        return None
    whole = _whole_line(text, start, match, name=name, is_strong=is_strong)
    return whole or _bare_value(text, at, is_env=_is_env(text, match), is_strong=is_strong)


def _whole_line(text: str, start: int, match: re.Match[str], *, name: str, is_strong: bool) -> NamedValue | None:
    is_env = _is_env(text, match)
    if not _starts_line(text, start) or not (is_strong or is_env or match["sign"] == ":"):
        return None
    return _line_value(text, match.end(), name=name, is_env=is_env, sign=match["sign"])


def _is_env(text: str, match: re.Match[str]) -> bool:
    return match["sign"] == "=" and not match["space"] and text[match.start()] == "="


def _starts_line(text: str, start: int) -> bool:
    least = max(0, start - 80)
    line = text.rfind("\n", least, start) + 1 or least
    return (line == 0 or text[line - 1] == "\n") and bool(_LINE_START.fullmatch(text, line, start))


def _line_value(text: str, at: int, *, name: str, is_env: bool, sign: str) -> NamedValue | None:
    """The value up to the end of the line, where a line of settings or of YAML is one."""
    match = _LINE.match(text, at)
    value = match[0].rstrip() if match else ""
    if not value or value[0] in "&*!#":
        return None
    end = at + len(value)
    if is_env and name.isupper():
        is_path = name in ("PWD", "OLDPWD") or value[0] == "/"
        is_plain = not is_placeholder(value) and not re.match(r"[A-Za-z_][\w.]*[(\[]|\d{1,5}[,;]?\Z|[\"'`\\(]", value)
        quotes = any(c in value for c in "\"'`\\")
        return NamedValue(at, end) if is_plain and not is_path and not quotes and value[-1] not in ",;" else None
    if (
        sign == ":"
        and not any(c.isspace() or c in "\"'`\\,;" for c in value)
        and is_bare_secret(value, is_assigned=True)
    ):
        return NamedValue(at, end)
    return None


def _bare_value(text: str, at: int, *, is_env: bool, is_strong: bool) -> NamedValue | None:
    match = _TOKEN.match(text, at)
    if match is None:
        return None
    value = match[0].rstrip(".:")
    following = text[match.end() : match.end() + 1]
    # In `f(token=t1, x)` the value is a name; in a log or a connection string it is the secret itself.
    is_assigned = is_env and is_strong and following not in ",)([{"
    if following in ("(", "[", "{") or not value or not is_bare_secret(value, is_assigned=is_assigned):
        return None
    return NamedValue(at, at + len(value))


def _closing(text: str, at: int, slashes: int, quote: str) -> int:
    """Finds where the quote of the same depth of escapes ends the value.

    It is the end of the line where the value was cut off.
    """
    stop = text.find("\n", at, at + _MOST)
    stop = min(len(text), at + _MOST) if stop < 0 else stop
    position = text.find(quote, at, stop)
    while position >= 0:
        before = position
        while before > at and text[before - 1] == "\\":
            before -= 1
        escapes = position - before
        # What stands before a quote are the escapes of its depth, and backslashes of the value in pairs.
        if escapes <= slashes or (escapes - slashes) // (slashes + 1) % 2 == 0:
            return position - min(escapes, slashes)
        position = text.find(quote, position + 1, stop)
    return at + len(text[at:stop].rstrip())
