"""Secrets in text: where exactly they stand, and the text without them, at once or as it comes (CX-60, CX-61, CX-75).

Every rule looks at one line and at nothing around it, but for blocks: private keys, and block scalars of YAML. So what
is found in a text does not depend on where it is cut, as long as no line and no block is cut: `find_spans` is the one
engine, and `RedactingStream` gives it whole lines and whole blocks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from fleet.redaction.blocks import blocks, each_block, next_scalar
from fleet.redaction.high_entropy import has_long_token, random_tokens
from fleet.redaction.secret_names import SECRET_WORDS, line_values, named_values
from fleet.redaction.secret_patterns import KINDS, SECRET_PATTERNS, SecretPattern

MAX_LINE_CHARS = 256 << 10
"""A longer line is looked at in parts."""
_RANK = {kind: rank for rank, kind in enumerate(KINDS)}
_ANCHORS = {a for pattern in SECRET_PATTERNS for a in pattern.anchors} | {"begin ", "private-lines:"}
_MARK = re.compile(r"\[REDACTED:[A-Z_]{1,40}\]")
_EDGE = r"\b"


_SHORT_CHARS = 1000
_LONG_CHARS = 1000
"""What was looked at in vain and is longer is not looked at again from within: time stays linear."""
_HINT = re.compile("|".join([*sorted(re.escape(a.lower()) for a in {*SECRET_WORDS, *_ANCHORS}), r": {1,8}[|>]"]))
"""Of a short text most are passed by with one look."""
_PIECE = re.compile(r'\\\\|\\[nr]|\\"|"')
_AS = {"\\\\": "\\\\", "\\n": " \n", "\\r": " \n", '\\"': "  ", '"': "\n"}
"""Breaks that are written as escapes, and quotes, as line breaks; each is as long as what it stands for."""


class _Operator:
    """The patterns that the operator of this process added to the catalogue; nothing else is kept between calls."""

    patterns: tuple[SecretPattern, ...] = ()


def use_operator_patterns(patterns: Sequence[SecretPattern]) -> None:
    """From here on every redaction of this process takes these out as well, instead of those given before (CX-76)."""
    _Operator.patterns = tuple(patterns)


def operator_patterns() -> tuple[SecretPattern, ...]:
    """Those in use."""
    return _Operator.patterns


class SecretSpan(NamedTuple):
    """One place that holds a secret: `text[start:end]`."""

    start: int
    end: int
    kind: str


class Redaction(NamedTuple):
    """The text without its secrets, and where they stood in the text as it was."""

    text: str
    spans: tuple[SecretSpan, ...]

    @property
    def counts(self) -> Mapping[str, int]:
        """Places by class: what may be told of them (CX-74)."""
        return Counter(span.kind for span in self.spans)


def placeholder(kind: str) -> str:
    """What stands in place of a secret."""
    return f"[REDACTED:{kind}]"


def redact(text: str, *, patterns: Sequence[SecretPattern] = SECRET_PATTERNS) -> Redaction:
    """The text with a placeholder for every secret. Doing it again changes nothing; linear time."""
    spans = find_spans(text, patterns=patterns)
    if not spans:
        return Redaction(text, ())
    pieces, at = list[str](), 0
    for span in spans:
        pieces += [text[at : span.start], placeholder(span.kind)]
        at = span.end
    return Redaction("".join([*pieces, text[at:]]), spans)


def find_spans(text: str, *, patterns: Sequence[SecretPattern] = SECRET_PATTERNS) -> tuple[SecretSpan, ...]:
    """The places that hold a secret, in order and apart from each other.

    Places that overlap are one, under the class that comes first in the catalogue. A placeholder is none.
    """
    is_short = len(text) <= _SHORT_CHARS and patterns is SECRET_PATTERNS
    if is_short and not _Operator.patterns and not _may_hold_any(text):
        return ()
    spans = [SecretSpan(block.start, block.end, kind) for block, kind in blocks(text) if block.is_secret]
    at = 0
    for end in line_ends(text):
        inner = _in_lines(text[at:end] if at or end < len(text) else text, patterns)
        spans += [SecretSpan(s.start + at, s.end + at, s.kind) for s in inner] if at else inner
        at = end
    return _apart(spans, text)


def _may_hold_any(text: str) -> bool:
    return bool(_HINT.search(text.lower())) or has_long_token(text)


def line_ends(text: str) -> list[int]:
    """Where the text may be cut: after lines, and within a line that is too long where hardly a secret is cut."""
    ends, at = list[int](), 0
    while at < len(text):
        if len(text) - at <= MAX_LINE_CHARS:
            at = len(text)
        else:
            at = text.rfind("\n", at, at + MAX_LINE_CHARS) + 1 or safe_cut(text, at)
        ends.append(at)
    return ends


def safe_cut(text: str, at: int) -> int:
    """Where a line that is too long is cut; depends on nothing but its first MAX_LINE_CHARS characters from `at`."""
    end = at + MAX_LINE_CHARS
    for mark in ("\\n", '", ', '","', " ", ","):
        position = text.rfind(mark, end - (16 << 10), end)
        if position >= 0:
            return position + len(mark)
    return end


def _in_lines(text: str, patterns: Sequence[SecretPattern]) -> list[SecretSpan]:
    lowered = _lowered(text)
    spans = list[SecretSpan]()
    for pattern in patterns:
        spans += _matches(pattern, text, lowered if pattern.any_case else text)
    for pattern in _Operator.patterns:
        spans += operator_spans(text, pattern)
    spans += [SecretSpan(v.start, v.end, v.kind) for v in named_values(text, lowered)]
    spans += [SecretSpan(start, end, "HIGH_ENTROPY") for start, end in random_tokens(text)]
    spans += _in_strings(text, lowered)
    return spans


def _lowered(text: str) -> str:
    """The text in lower case, character by character: what one of them becomes does not hang on the others."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(low if len(low := char.lower()) == 1 else char for char in text)


def _in_strings(text: str, lowered: str) -> Iterable[SecretSpan]:
    """Values on the lines of a string, of JSON or of a program, whose breaks are written as escapes (CX-70)."""
    escape = text.find("\\n")
    while escape >= 0:
        at, end = text.rfind("\n", 0, escape) + 1, text.find("\n", escape)
        end = len(text) if end < 0 else end
        view = _PIECE.sub(lambda piece: _AS[piece[0]], text[at:end])
        for value in line_values(view, lowered[at:end]):
            yield SecretSpan(at + value.start, at + value.end, value.kind)
        for block in each_block(next_scalar, view):
            if block.is_secret:
                yield SecretSpan(at + block.start, at + block.end, "KEY_VALUE")
        escape = text.find("\\n", end)


def _matches(pattern: SecretPattern, text: str, searched: str) -> Iterable[SecretSpan]:
    for anchor in pattern.anchors:
        at = searched.find(anchor)
        while at >= 0:
            match = pattern.expression.match(text, at)
            after = at + len(anchor)
            if match is not None:
                start, end = match.span("secret" if "secret" in pattern.expression.groupindex else 0)
                if pattern.check is None or pattern.check(text[start:end]):
                    yield SecretSpan(start, end, pattern.kind)
                    after = max(after, end)
                elif end - at > _LONG_CHARS:
                    after = end
            at = searched.find(anchor, after)


def operator_spans(text: str, pattern: SecretPattern) -> list[SecretSpan]:
    """The places of a pattern without anchors: within a line, and apart from every placeholder."""
    # Most texts hold none, and one look at the whole is faster than a look at each line.
    if not pattern.expression.search(text):
        return []
    spans, at = list[SecretSpan](), 0
    group = "secret" if "secret" in pattern.expression.groupindex else 0
    # A word may begin or end where a placeholder came in: beside one, an edge of a word tells nothing.
    reach = 1 if _EDGE in pattern.expression.pattern.lower() else 0
    for line in text.split("\n"):
        marks = [(mark.start() - reach, mark.end() + reach) for mark in _MARK.finditer(line)]
        for match in pattern.expression.finditer(line):
            start, end = match.span(group)
            if start < end and not any(a < match.end() and match.start() < b for a, b in marks):
                spans.append(SecretSpan(at + start, at + end, pattern.kind))
        at += len(line) + 1
    return spans


def _apart(spans: list[SecretSpan], text: str) -> tuple[SecretSpan, ...]:
    apart = list[SecretSpan]()
    for span in sorted(spans, key=lambda s: (s.start, -s.end)):
        if apart and span.start < apart[-1].end:
            last = apart[-1]
            kind = min(last.kind, span.kind, key=lambda k: _RANK.get(k, len(_RANK)))
            apart[-1] = SecretSpan(last.start, max(last.end, span.end), kind)
        else:
            apart.append(span)
    return tuple(s for s in apart if s.start < s.end and not _MARK.fullmatch(text, s.start, s.end))


class RedactingStream:
    """Gives out what goes in without secrets, line by line. Joined it is `redact` of the whole, however it was cut.

    Held back are a line that has not ended, and a block that may go on, 64 KiB of it at most. Not thread-safe.
    """

    def __init__(self, *, patterns: Sequence[SecretPattern] = SECRET_PATTERNS) -> None:
        self._patterns = patterns
        self._held = ""

    def feed(self, text: str) -> str:
        """What is certain now; often nothing."""
        self._held += text
        if "\n" not in text and len(self._held) <= MAX_LINE_CHARS:
            return ""
        return self._release(self._certain())

    def flush(self) -> str:
        """The rest: the stream is over."""
        return self._release(len(self._held))

    def _certain(self) -> int:
        end = self._held.rfind("\n") + 1
        # What follows the last line break may be a line that is too long to wait for.
        while len(self._held) - end > MAX_LINE_CHARS:
            end = safe_cut(self._held, end)
        # The last one first: holding it back may cut one before it, which then is held too.
        for block, _ in sorted(blocks(self._held), reverse=True):
            if block.is_open or block.end > end:
                end = min(end, self._held.rfind("\n", 0, block.told_at) + 1)
        return end

    def _release(self, end: int) -> str:
        ready, self._held = self._held[:end], self._held[end:]
        return redact(ready, patterns=self._patterns).text if ready else ""
