"""How an answer tells what was taken out of the request, or out of what it shows (CX-74)."""

from __future__ import annotations

from collections.abc import Mapping

REDACTIONS_HEADER = "X-Fleet-Redactions"
"""Places by class; absent where nothing was taken out."""


def shown_counts(counts: Mapping[str, int]) -> str:
    """`AWS=1, KEY_VALUE=2`: classes and counts, never the secret."""
    return ", ".join(f"{kind}={count}" for kind, count in sorted(counts.items()))
