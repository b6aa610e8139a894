"""Whether a value that stands beside the name of a secret is one: placeholders, words and code are none (CX-72)."""

from __future__ import annotations

import re

WEAK_VALUES = frozenset(
    ["changeme", "change-me", "changeit", "letmein", "hunter2", "qwerty", "iloveyou", "welcome", "passw0rd", "p@ssw0rd"]
)
"""Well-known weak values are secrets (CX-72)."""

_LOOKED_AT = 400
_PLACEHOLDER = re.compile(
    r"(?i)^(?:\*+|x+|\.+|-+|_+|n/?a|none|null|nil|undefined|true|false|yes|no|on|off|unset|empty|todo|tbd)$"
    r"|\$\{|\$\(|\$[a-z_]|\$\d|%[sdr(]|%\w+%|\{[^}]*\}|\{\{|<[^>]*>|\.\.\.|\*{3}|…"
    r"|example|placeholder|dummy|(?:^|[^a-z])(?:your|my|some|insert|replace|enter)[_ -]|redacted|x{6}|:x:\d"
)
_WORD_LIST = (
    "string str text bytes number integer int bool boolean object array any unknown optional required hidden masked "
    "secret password passwd pwd token key value name user username login default test bearer basic oauth"
)
WORDS = frozenset(_WORD_LIST.split())
"""Words that stand where a value may: of types, and for the value itself."""
_PROSE = re.compile(
    r"(?i)(?:^|\s)(?:the|a|an|of|for|to|is|are|your|or|and|in|with|must|not|be|as|on|this|that)(?=\s|$)"
)
_KEYWORD = re.compile(r"(?i)passw|pwd|secret|token|api.?key|credential|access.?key|private.?key|passphrase")
_CODE = re.compile(r"[()\[\]{}|<>]|::|->|\w\.\w+\(|^(?:new|await|not|lambda|self|this)\b|^&\w|^@")
_IDENTIFIER = re.compile(r"[A-Za-z_][\w]*(?:\.[A-Za-z_]\w*)*\Z")
_TYPE = re.compile(r"(?i)(?:u?int|float|bytes|utf|sha|char|blake|md|base|cp|latin|iso|v|f|i|u|x)[-_]?\d{1,4}\Z")
_NUMBER = re.compile(r"[-+]?(?:0x)?[\d_.,:eE+-]+\Z")
_CHANGE = re.compile(r"(?<=[A-Za-z])[0-9]|(?<=[0-9])[A-Za-z]")
_LETTER, _DIGIT, _SPECIAL = re.compile(r"[^\W\d_]"), re.compile(r"\d"), re.compile(r"[!@#$^~?%*&]")
_WORDY = re.compile(r"[a-z]+(?:[_.-][a-z]+)*[_-]?\d{0,2}\Z|[A-Z]+(?:_[A-Z]+)*_?\d{0,2}\Z")


def is_placeholder(value: str) -> bool:
    """Whether the value stands for one that somebody puts in, or was taken out already."""
    return "[REDACTED:" in value or bool(_PLACEHOLDER.search(value, 0, _LOOKED_AT))


def looks_random(value: str) -> bool:
    """Whether a key with a known prefix is a real one: two digits and six different characters at least."""
    return len(_DIGIT.findall(value)) >= 2 and len(set(value)) >= 6 and not is_placeholder(value)


def is_quoted_secret(value: str, *, is_strong: bool, is_field: bool) -> bool:
    """Whether a value in quotes is a secret.

    Args:
        is_strong: its name can hardly be the name of anything else, as `password`.
        is_field: its name is in quotes too, as in JSON.
    """
    value = value.strip()
    if value.lower() in WEAK_VALUES:
        return True
    if not value or is_placeholder(value) or _reads_as_words(value):
        return False
    if is_strong and is_field:
        return not _NUMBER.match(value) or len(value) >= 4
    has_space = any(c.isspace() for c in value)
    if len(value) < (6 if is_strong else 8) or not _LETTER.search(value) or (has_space and not is_strong):
        return False
    if _DIGIT.search(value):
        return not _WORDY.match(value) or is_strong
    return is_strong and not has_space and bool(_SPECIAL.search(value[:-1]))


def _reads_as_words(value: str) -> bool:
    if value.lower() in WORDS or value[-1] in ":?" or _TYPE.match(value):
        return True
    if _IDENTIFIER.match(value) and not _DIGIT.search(value) and ("_" in value or "." in value):
        return True
    return bool(_PROSE.search(value) or (_KEYWORD.search(value) and not _DIGIT.search(value)) or "(" in value)


def is_bare_secret(value: str, *, is_assigned: bool) -> bool:
    """Whether a value without quotes is a secret; expressions and types of programs are none.

    Args:
        is_assigned: by its place it is a value and not an expression, as in `NAME=value` or in a query.
    """
    if value.lower() in WEAK_VALUES:
        return True
    if is_placeholder(value) or _CODE.search(value) or value.lower() in WORDS or _TYPE.match(value):
        return False
    if _NUMBER.match(value) or not _LETTER.search(value) or value[0] in "/.~":
        return False
    if not _DIGIT.search(value):
        return is_assigned and len(value) >= 6 and bool(_SPECIAL.search(value[:-1]))
    if is_assigned:
        return len(value) >= 4
    changes, is_name = len(_CHANGE.findall(value)), bool(_IDENTIFIER.match(value))
    if changes >= (3 if is_name else 2) and len(value) >= 8:
        return True
    return not is_name and len(value) >= 6 and bool(re.search(r"[!@#$^~?]", value))
