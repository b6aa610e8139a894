"""Find secrets in source text, for the count of `security.secrets_found` (RC-67, CX-74).

This is the narrow form of CX-62..CX-70 for code, where a false alarm blocks a story: KEY_VALUE takes quoted values
alone, and leaves out placeholders and plain words. Only classes are named, never the secret.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["find_secrets"]

_PATTERNS: Sequence[tuple[str, re.Pattern[str]]] = (
    (
        "PRIVATE_KEY",
        re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----|\bAGE-SECRET-KEY-1[A-Z0-9]{20,}"),
    ),
    ("AWS", re.compile(r"\b(?:AKIA|ASIA|AGPA|AROA)[A-Z0-9]{16}\b")),
    ("GITHUB", re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_[A-Za-z0-9_]{22,}")),
    ("GITLAB", re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}")),
    (
        "SLACK",
        re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}|\bxapp-[A-Za-z0-9-]{10,}|hooks\.slack\.com/services/[A-Z0-9]"),
    ),
    (
        "PROVIDER",
        re.compile(
            r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{20,}|\bhf_[A-Za-z0-9]{30,}|\bAIza[A-Za-z0-9_-]{35}|\bnpm_[A-Za-z0-9]{36}"
            r"|\bpypi-[A-Za-z0-9_-]{50,}|\bdop_v1_[a-f0-9]{64}|\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"
            r"|\b[rs]k_live_[A-Za-z0-9]{16,}"
        ),
    ),
    ("URL_CREDENTIALS", re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@'\"{}<$]{1,100}:[^\s/@'\"{}<$]{3,100}@[\w.-]")),
)
_KEY_VALUE = re.compile(
    r"(?i)(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential"
    r"|connection[_-]?string)[\w-]{0,20}[\"']?\s{0,4}(?:=>|[:=])\s{0,4}[rbuf]{0,2}([\"'])([^\"'\n]{6,200})\1"
)
_PLACEHOLDER = re.compile(r"(?i)[<{$%(*\[]|\.\.\.|^x+$|example|placeholder|dummy|your[_-]|redacted|test|fake")
_WEAK = frozenset({"changeme", "password", "letmein", "hunter2", "qwerty", "iloveyou", "welcome"})


def find_secrets(text: str) -> list[str]:
    """The class of every secret found, in order of appearance; empty when there is none.

    A place counts once, under the first class that matches it. Linear time.
    """
    found: list[tuple[int, str]] = []
    covered: list[tuple[int, int]] = []
    for name, pattern in _PATTERNS:
        for match in pattern.finditer(text):
            covered.append(match.span())
            found.append((match.start(), name))
    for match in _KEY_VALUE.finditer(text):
        start, end = match.span(2)
        if _is_secret_value(match[2]) and not any(a < end and start < b for a, b in covered):
            found.append((start, "KEY_VALUE"))
    return [name for _, name in sorted(found)]


def _is_secret_value(value: str) -> bool:
    if value.lower() in _WEAK:
        return True
    # A word such as "bearer" or "access_token" is the name of something; a password has digits or is no word at all.
    return not _PLACEHOLDER.search(value) and " " not in value and any(c.isdigit() for c in value)
