"""Count secrets in source text, for `security.secrets_found` (RC-67, CX-74).

This is the narrow form of the catalogue for code, where a false alarm blocks a story: KEY_VALUE takes quoted values
alone, and leaves out placeholders and plain words. Only classes are named, never the secret.
"""

from __future__ import annotations

import re

from fleet.redaction.redact import SecretSpan, find_spans
from fleet.redaction.secret_patterns import KINDS

_COUNTED = frozenset(["PRIVATE_KEY", "URL_CREDENTIALS", "AWS", "GITHUB", "GITLAB", "SLACK", "PROVIDER", "JWT"])
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
    spans = [span for span in find_spans(text) if _is_counted(span.kind) and not _is_query(text, span)]
    covered = [(span.start, span.end) for span in spans]
    for match in _KEY_VALUE.finditer(text):
        start, end = match.span(2)
        if _is_secret_value(match[2]) and not any(a < end and start < b for a, b in covered):
            spans.append(SecretSpan(start, end, "KEY_VALUE"))
    return [span.kind for span in sorted(spans)]


def _is_counted(kind: str) -> bool:
    # What is not of the catalogue is a form that the operator named.
    return kind in _COUNTED or kind not in KINDS


def _is_query(text: str, span: SecretSpan) -> bool:
    return span.kind == "URL_CREDENTIALS" and not text.startswith("://", span.start - 3)


def _is_secret_value(value: str) -> bool:
    if value.lower() in _WEAK:
        return True
    # A word such as "bearer" or "access_token" is the name of something; a password has digits or is no word at all.
    return not _PLACEHOLDER.search(value) and " " not in value and any(c.isdigit() for c in value)
