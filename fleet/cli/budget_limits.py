"""Limits as people write them on the command line."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from fleet.errors import InvalidInput

__all__ = ["given_limits", "parse_limits"]

_MICROUSD = 1_000_000


def parse_limits(text: str) -> dict[str, int]:
    """The limits of `tokens=N,cost_usd=N,...`.

    Raises:
        InvalidInput: a part has not this form.
    """
    found: dict[str, int] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, value = part.partition("=")
        name = name.strip()
        try:
            found |= {"cost_microusd": _microusd(value)} if name == "cost_usd" else {name: int(value)}
        except ValueError:
            raise InvalidInput(
                f"{part!r} is no limit: write tokens=200000 or cost_usd=1.50", field="budget", value=part
            ) from None
    return found


def _microusd(text: str) -> int:
    """US dollars as 1e-6 USD; ValueError when it is no number from 0."""
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        raise ValueError(text) from None
    if not value.is_finite() or value < 0:
        raise ValueError(text)
    return int(value * _MICROUSD)


def given_limits(*, cost_usd: str | None, **limits: int | None) -> dict[str, int | None]:
    """The options that were given; InvalidInput when the money is no number from 0."""
    found = {name: value for name, value in limits.items() if value is not None}
    return {**found, **(parse_limits(f"cost_usd={cost_usd}") if cost_usd is not None else {})}
