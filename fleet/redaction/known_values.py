"""Takes values that are known to be secret out of text (CX-60). Every form in which a program may print them counts."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection
from typing import NamedTuple

KNOWN_SECRET = "[REDACTED:KNOWN_SECRET]"
MIN_SECRET_CHARS = 6
"""A shorter value cannot be told from ordinary text, so it cannot be kept out of it."""
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class RedactedText(NamedTuple):
    """The text without the values, and how many places were taken out."""

    text: str
    places: int


def forms_of(value: str) -> frozenset[str]:
    """How a program may print this value: as it is, line by line, in JSON, in a URL, in base64 and in hex.

    A form that is shorter than MIN_SECRET_CHARS is left out.
    """
    data = value.encode("utf-8", "surrogatepass")
    forms = {
        value,
        *(line.strip() for line in value.splitlines()),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        "".join(chr(b) if b in _UNRESERVED else f"%{b:02X}" for b in data),
        data.hex(),
        data.hex().upper(),
        *_base64_forms(data),
    }
    return frozenset(form for form in forms if len(form) >= MIN_SECRET_CHARS)


def redact_known(text: str, forms: Collection[str]) -> RedactedText:
    """Every form replaced by KNOWN_SECRET, the longest first; a KNOWN_SECRET that is there already stays as it is.

    No other text of the form of a mark is left alone: a program can print a value as `[REDACTED:<value>]`.
    Doing it again changes nothing. Overlapping values go out from the first one's begin to its end.
    """
    if not forms:
        return RedactedText(text, 0)
    values = "|".join(re.escape(form) for form in sorted(forms, key=lambda form: (-len(form), form)))
    count = 0

    def replaced(match: re.Match[str]) -> str:
        nonlocal count
        if match["known"] is None:
            return match[0]
        count += 1
        return KNOWN_SECRET

    return RedactedText(re.sub(f"{re.escape(KNOWN_SECRET)}|(?P<known>{values})", replaced, text), count)


def _base64_forms(data: bytes) -> set[str]:
    """The value in base64 wherever it begins in what was encoded, as in `user:password` of an Authorization header.

    The characters at both ends depend on the neighbours, so they are not part of the form.
    """
    forms: set[str] = set()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data).decode().rstrip("=")
        start = (before * 8 + 5) // 6
        end = (before + len(data)) * 8 // 6
        piece = encoded[start:end]
        forms |= {piece, piece.replace("+", "-").replace("/", "_")}
    return forms
