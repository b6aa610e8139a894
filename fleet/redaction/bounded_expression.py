"""A small language of regular expressions whose cost at each place of a text is bounded by their form (CX-76).

Text, escapes, sets, groups, alternatives and repetitions with a bound. Nothing else is taken, so nothing that can be
written in it runs away on any text: what is repeated a varying number of times has one form and one length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

MAX_WAYS = 4_096
"""Ways in which an expression may be tried at one place."""
_MAX_REPEAT, _MAX_CHARS, _MAX_DEPTH = 2_000, 8_192, 10
_QUANTIFIER = re.compile(r"\?|\{(?P<least>\d{1,4})(?:,(?P<most>\d{1,4}))?\}")
_GROUP = re.compile(r"\((?:\?:|\?P<secret>)?(?!\?)")
_SET = re.compile(r"\[\^?\]?(?:\\.|[^\\\]])*\]")
_ESCAPE = re.compile(r"\\(?:(?P<place>[bB])|[dDwWsSt]|x[0-9A-Fa-f]{2}|[^A-Za-z0-9\n])")


@dataclass(frozen=True, slots=True)
class Extent:
    """Says in how many ways it can be tried at one place. It also holds how short and how long a match can be."""

    ways: int
    least: int
    most: int


def extent_of(expression: str) -> Extent:
    """The extent of the expression.

    Raises:
        ValueError: it uses something that has no bound, or is no expression; says what and where.
    """
    reader = _Reader(expression)
    extent = reader.alternatives(0)
    if reader.at < len(expression):
        reader.refuse("a group is closed that was not opened")
    if extent.ways > MAX_WAYS:
        raise ValueError(f"it can be tried in {extent.ways} ways at one place, {MAX_WAYS} are allowed: repeat less")
    if extent.most > _MAX_CHARS:
        raise ValueError(f"it can match {extent.most} characters, {_MAX_CHARS} are allowed: repeat less")
    return extent


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def refuse(self, why: str) -> NoReturn:
        raise ValueError(f"at character {self.at + 1}: {why}")

    def alternatives(self, depth: int) -> Extent:
        if depth > _MAX_DEPTH:
            self.refuse(f"groups are nested more than {_MAX_DEPTH} deep")
        branches = [self._sequence(depth)]
        while self.text.startswith("|", self.at):
            self.at += 1
            branches.append(self._sequence(depth))
        return Extent(sum(e.ways for e in branches), min(e.least for e in branches), max(e.most for e in branches))

    def _sequence(self, depth: int) -> Extent:
        whole = Extent(1, 0, 0)
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            part = self._repeated(self._atom(depth))
            ways = min(whole.ways * part.ways, MAX_WAYS**2)
            whole = Extent(ways, whole.least + part.least, whole.most + part.most)
        return whole

    def _atom(self, depth: int) -> Extent:
        char = self.text[self.at]
        if char == "(":
            return self._group(depth)
        if char in "*+?{":
            self.refuse(f"{char!r} repeats nothing; a literal one is written \\{char}")
        if char in "^$":
            self.at += 1
            return Extent(1, 0, 0)
        if char in "[\\":
            match = (_SET if char == "[" else _ESCAPE).match(self.text, self.at)
            if match is None:
                self.refuse("a set that is not closed" if char == "[" else "an escape that is not taken here")
            self.at = match.end()
            return Extent(1, 0, 0) if char == "\\" and match["place"] else Extent(1, 1, 1)
        self.at += 1
        return Extent(1, 1, 1)

    def _group(self, depth: int) -> Extent:
        match = _GROUP.match(self.text, self.at)
        if match is None:
            self.refuse("of groups only (...), (?:...) and (?P<secret>...) are taken")
        self.at = match.end()
        group = self.alternatives(depth + 1)
        if not self.text.startswith(")", self.at):
            self.refuse("a group is not closed")
        self.at += 1
        return group

    def _repeated(self, part: Extent) -> Extent:
        if self.text[self.at : self.at + 1] in ("*", "+"):
            self.refuse("a repetition without a bound; write {least,most}")
        match = _QUANTIFIER.match(self.text, self.at)
        if match is None:
            return part
        least = int(match["least"] or 0)
        most = int(match["most"]) if match["most"] is not None else (least if match["least"] else 1)
        if not least <= most <= _MAX_REPEAT:
            self.refuse(f"a repetition must have least <= most <= {_MAX_REPEAT}")
        if least != most and most > 1 and (part.ways > 1 or part.least != part.most):
            self.refuse("what is repeated a varying number of times must have one form and one length")
        self.at = match.end()
        if self.text[self.at : self.at + 1] in tuple("?+*{"):
            self.refuse("a repetition of a repetition")
        ways = part.ways**least if least == most else part.ways + most - least
        return Extent(min(ways, MAX_WAYS**2), part.least * least, part.most * most)
