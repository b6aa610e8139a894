"""Tokens that look drawn at random, whatever stands around them (CX-71)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from operator import ne

MIN_CHARS = 24
_MIN_BITS = 4.0
_MIN_CHANGES = 0.4
_TOKEN = re.compile(r"[A-Za-z0-9+/_=-]{24,}")
_HASH_BEFORE = re.compile(r"(?:sha-?\d{1,3}[-=:_]|h1:|;base64,|md5[-=:])\Z", re.IGNORECASE)
_KNOWN = re.compile(r"sha-?\d{1,3}[-=]|(?:call|toolu|chatcmpl|msg|req|resp)[_-]", re.IGNORECASE)
"""Integrity hashes, and ids that engines give to calls."""
_CLASSES = str.maketrans(
    {
        **dict.fromkeys(map(chr, range(ord("a"), ord("z") + 1)), "a"),
        **dict.fromkeys(map(chr, range(ord("A"), ord("Z") + 1)), "A"),
        **dict.fromkeys("0123456789", "0"),
        **dict.fromkeys("+/_=-", "-"),
    }
)


def has_long_token(text: str) -> bool:
    """Whether any token is long enough to be looked at."""
    return bool(_TOKEN.search(text))


def random_tokens(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of every token of 24 or more characters that looks random. Linear time.

    Integrity hashes and embedded data are none (CX-72); a path is looked at part by part.
    """
    for match in _TOKEN.finditer(text):
        start, token = match.start(), match[0]
        if token[0] in "nrtbf" and text[start - 1 : start] == "\\":
            # The letter belongs to an escape, without which JSON would be none.
            start, token = start + 1, token[1:]
        if _KNOWN.match(token) or _HASH_BEFORE.search(text, max(0, start - 10), start):
            continue
        if "/" in token and not any(map(_is_mixed, token.split("/"))):
            # A path, such as the name of a step: chance would mix the classes between two separators too.
            continue
        if token.count("/") * 9 > len(token):
            for part in re.finditer(r"[^/]{24,}", token):
                if is_high_entropy(part[0]):
                    yield start + part.start(), start + part.end()
        else:
            body = token.strip("-_/=") if token[0] in "-_/=" or token[-1] in "-_/=" else token
            if is_high_entropy(body):
                yield start, match.end()


def is_high_entropy(token: str) -> bool:
    """Whether lower, upper and digits are mixed as only chance mixes them: entropy and changes of class per character.

    Words joined by `_` or `-` are judged without their joints.
    """
    if len(token) < MIN_CHARS or not _is_mixed(token):
        return False
    classes = token.translate(_CLASSES)
    solid = classes.replace("-", "")
    if _reads_as_words(solid):
        return False
    if sum(map(ne, solid, solid[1:])) < _MIN_CHANGES * len(solid):
        return False
    return _bits(token) >= _MIN_BITS


def _is_mixed(token: str) -> bool:
    """Whether it has a lower letter, an upper one, and a digit."""
    return {"a", "A", "0"} <= set(token.translate(_CLASSES))


def _reads_as_words(classes: str) -> bool:
    """Whether it is a name in camel case: small letters stand together, and digits are few."""
    runs = [run for run in classes.replace("A", "0").split("0") if run]
    return classes.count("0") <= 2 and sum(map(len, runs)) >= 2.75 * len(runs)


def _bits(token: str) -> float:
    size = len(token)
    return -sum(n / size * math.log2(n / size) for n in Counter(token).values())
