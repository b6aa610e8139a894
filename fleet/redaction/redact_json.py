"""Secrets in data: every text is looked at, by itself and as the value of its name (CX-60, CX-70)."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from fleet.redaction.redact import find_spans, operator_patterns, placeholder, redact
from fleet.redaction.secret_patterns import SecretPattern

_TELLING = re.compile(r"passw|pwd|secret|token|key|credential|auth|cookie|connection|passphrase", re.IGNORECASE)
_SAID = re.compile(r'("(?:message|excerpt|reason)"\s*:\s*)("(?:[^"\\]|\\.)*")')
"""In a report as JSON, what a test said; names, paths and outcomes are left as they are."""
_SAID_IN_XML = re.compile(
    r'(?P<name>\bmessage=)"(?P<attribute>[^"<]*)"|<!\[CDATA\[(?P<data>.*?)\]\]>|(?<=>)(?P<text>[^<]+)(?=<)', re.DOTALL
)
_SHORT_CHARS = 100
"""Of a story's events most texts are as short, and the same again and again: names, ids, digests, states."""
_Patterns = tuple[SecretPattern, ...]


def redact_json(value: Any) -> Any:
    """The value with every secret replaced, names of fields too; equal to the value where there is none.

    A text under the name of a secret goes out whole, as it does in JSON that is printed.
    """
    return _redacted(value, operator_patterns())


def _redacted(value: Any, added: _Patterns) -> Any:
    # Built-in types first: asking whether a number is a Mapping costs more than all the rest.
    match value:
        case str():
            return _text(value, added)
        case None | bool() | int() | float():
            return value
        case dict() | Mapping():
            items = cast("Mapping[Any, Any]", value).items()
            plain = dict[Any, Any]()
            for name, item in items:
                key = _text(name, added) if isinstance(name, str) else name
                plain[_free(key, plain) if key in plain else key] = _item(str(name), item, added)
            return plain
        case list() | tuple():
            return [_redacted(item, added) for item in cast("Sequence[Any]", value)]
        case _:
            return value


def redact_field(name: str, value: Any) -> Any:
    """The value of a field of this name as `redact_json` gives it back; the name itself is nobody's secret."""
    return _item(name, value, operator_patterns())


def _text(text: str, added: _Patterns) -> str:
    return _short_text(text, added) if len(text) <= _SHORT_CHARS else redact(text).text


@lru_cache(maxsize=8192)
def _short_text(text: str, _: _Patterns) -> str:
    """The text without secrets; patterns that the operator adds make another answer."""
    return redact(text).text


def _free(name: Any, taken: Mapping[Any, Any]) -> Any:
    """The name, or one that is free: of two names that are secret neither value may get lost."""
    number, free = 1, name
    while free in taken:
        number, free = number + 1, f"{name} {number + 1}"
    return free


def _item(name: str, value: Any, added: _Patterns) -> Any:
    if not isinstance(value, str):
        return _redacted(value, added)
    is_short = len(name) + len(value) <= _SHORT_CHARS
    return _short_field(name, value, added) if is_short else _field(name, value, added)


def _field(name: str, value: str, added: _Patterns) -> str:
    """The text without secrets; a placeholder instead where its name tells that it is one."""
    plain = _text(value, added)
    if plain != value or not value or not _TELLING.search(name):
        return plain
    spans = find_spans(json.dumps({name: value}, ensure_ascii=False))
    return placeholder(spans[-1].kind) if spans else value


_short_field = lru_cache(maxsize=8192)(_field)


def redact_report(path: str, content: bytes) -> bytes:
    """A report of tests without secrets in what the tests said; its form stays as it is.

    Reports are JUnit in XML, and JSON with a `message`, an `excerpt` or a `reason`. Any other file is given back.
    """
    if not path.endswith((".xml", ".json")):
        return content
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return content
    plain = _SAID.sub(_said, text) if path.endswith(".json") else _xml_report(text)
    return content if plain == text else plain.encode()


def _said(match: re.Match[str]) -> str:
    try:
        value = json.loads(match[2], strict=False)
    except ValueError:
        return match[0]
    plain = redact(value).text
    return match[0] if plain == value else match[1] + json.dumps(plain)


def _xml_report(text: str) -> str:
    return _SAID_IN_XML.sub(_said_in_xml, text) if "<testcase" in text else text


def _said_in_xml(match: re.Match[str]) -> str:
    if (data := match["data"]) is not None:
        return f"<![CDATA[{redact(data).text}]]>"
    raw = match["attribute"] if match["name"] else match["text"]
    value = html.unescape(raw)
    plain = redact(value).text
    if plain == value:
        return match[0]
    shown = html.escape(plain, quote=bool(match["name"]))
    # A break within an attribute would be read as a space.
    shown = shown.replace("\n", "&#10;") if match["name"] else shown
    return f'{match["name"]}"{shown}"' if match["name"] else shown
