"""How many secrets were taken out of which field: what whoever sent them is told (CX-74)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

_MARK = re.compile(r"\[REDACTED:([A-Z_]{1,40})\]")
_RECORDED_MARK = re.compile(_MARK.pattern.encode())


@dataclass(frozen=True, slots=True)
class RedactedField:
    """A field by its JSON pointer, a class, and how many places of it were taken out; never the secret."""

    field: str
    kind: str
    count: int


def redacted_kinds(record: bytes) -> Counter[str]:
    """How many places of a record were taken out, by class."""
    return Counter(kind.decode() for kind in _RECORDED_MARK.findall(record))


def redacted_fields(before: Any, after: Any) -> tuple[RedactedField, ...]:
    """What `redact_json` took out of a value: `after` is what it made of `before`. Names are those of `after`."""
    return tuple(_compare(before, after, ""))


def _compare(before: Any, after: Any, at: str) -> Iterator[RedactedField]:
    match before, after:
        case str(), str():
            yield from _more(before, after, at)
        case Mapping(), Mapping():
            old, new = cast("Mapping[Any, Any]", before), cast("Mapping[Any, Any]", after)
            for (name, value), (plain_name, plain) in zip(old.items(), new.items(), strict=True):
                field = f"{at}/{str(plain_name).replace('~', '~0').replace('/', '~1')}"
                if isinstance(name, str):
                    yield from _more(name, str(plain_name), field)
                yield from _compare(value, plain, field)
        case list() | tuple(), list():
            rows = zip(cast("Sequence[Any]", before), cast("list[Any]", after), strict=True)
            for number, (value, plain) in enumerate(rows):
                yield from _compare(value, plain, f"{at}/{number}")
        case _:
            return


def _more(before: str, after: str, at: str) -> Iterator[RedactedField]:
    if before == after:
        return
    # A secret may have stood around a placeholder that was there before.
    counts = Counter(_MARK.findall(after)) - Counter(_MARK.findall(before))
    for kind, count in sorted(counts.items()):
        yield RedactedField(at or "/", kind, count)
