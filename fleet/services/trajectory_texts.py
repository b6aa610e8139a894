"""Texts of a trajectory: read from blobs, and never without redaction (CX-60)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cache, lru_cache
from typing import Any, TypeVar, cast, get_type_hints

from fleet.context import redact_json
from fleet.errors import ArtifactNotFound
from fleet.ids import Digest
from fleet.ports import BlobStore
from fleet.report import JsonText

__all__ = ["TrajectoryTexts"]

T = TypeVar("T")
_SHORT = 100
"""Characters of a text whose redaction is remembered."""


class TrajectoryTexts:
    """Reads blobs and cleans rows. `missing` counts the blobs that nobody has any more.

    Args:
        redact: takes secrets out of a text.
    """

    def __init__(self, blobs: BlobStore, redact: Callable[[str], str]) -> None:
        self._blobs, self._redact_long = blobs, redact
        # Names of fields, ids and kinds come again and again.
        self._redact_short = lru_cache(maxsize=10_000)(redact)
        self.missing = 0

    async def text(self, digest: Digest | None) -> str | None:
        """The blob as text; None when there is none."""
        if digest is None:
            return None
        try:
            return (await self._blobs.get(digest)).decode(errors="replace")
        except ArtifactNotFound:
            self.missing += 1
            return None

    async def value(self, digest: Digest | None) -> Any:
        """The blob as data; its text where it is no JSON, None when there is none."""
        text = await self.text(digest)
        try:
            return None if text is None else json.loads(text)
        except ValueError:
            return text

    def json(self, value: Any) -> JsonText:
        """The value without secrets as JSON: keys sorted, no insignificant space."""
        plain = self._all(redact_json(value))
        return JsonText(json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":")))

    def json_or_none(self, value: Any) -> JsonText | None:
        """As `json`; None stays None."""
        return None if value is None else self.json(value)

    def cleaned(self, row: T) -> T:
        """The row with every secret in its texts replaced; JSON was cleaned when it was made."""
        return cast("T", self._all(row))

    def _redact(self, text: str) -> str:
        return self._redact_short(text) if len(text) <= _SHORT else self._redact_long(text)

    def _all(self, value: Any) -> Any:
        match value:
            case str():
                return self._redact(value)
            case Mapping():
                items = cast("Mapping[str, Any]", value).items()
                return {self._redact(name): self._all(item) for name, item in items}
            case list():
                return [self._all(item) for item in cast("Sequence[Any]", value)]
            case tuple():
                return tuple(self._all(item) for item in cast("Sequence[Any]", value))
            case _ if is_dataclass(value) and not isinstance(value, type):
                return replace(value, **{name: self._all(getattr(value, name)) for name in _text_fields(type(value))})
            case _:
                return value


@cache
def _text_fields(kind: type[Any]) -> tuple[str, ...]:
    hints = get_type_hints(kind)
    return tuple(f.name for f in fields(kind) if hints[f.name] not in (JsonText, JsonText | None, int, bool))
