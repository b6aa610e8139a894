"""Digests and canonical JSON: one form of bytes for one value (GL-13)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, cast

import orjson
from pydantic import BaseModel

from fleet.kernel.ids import Digest

_LEAVES = frozenset([str, int, bool, type(None)])
"""Types, not subclasses, that are their own plain form: most of what there is in a value."""
_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
"""The form itself. `orjson` gives the same bytes for all that it takes, in a tenth of the time."""


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with keys sorted by code point, no insignificant space and no floats (GL-13).

    Raises:
        TypeError: the value holds a float or something that JSON has no form for.
    """
    return encode_plain(_plain(value))


def encode_plain(value: Any) -> bytes:
    """As `canonical_json`, of what is known to hold built-in types alone, text as keys, and no floats."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        # It takes no integer over 64 bits and no value deeper than 254; what is no Unicode fails here as well.
        return _ENCODER.encode(value).encode()


def _plain(value: Any) -> Any:
    kind = value.__class__
    if kind in _LEAVES:
        return value
    if kind is dict:
        return {str(k): v if type(v) in _LEAVES else _plain(v) for k, v in cast("dict[Any, Any]", value).items()}
    if kind is list or kind is tuple:
        return [v if type(v) in _LEAVES else _plain(v) for v in cast("Sequence[Any]", value)]
    return _plain_of_subclass(value)


def _plain_of_subclass(value: Any) -> Any:
    match value:
        case BaseModel():
            return _plain(value.model_dump(mode="json", by_alias=True))
        case int():
            return int(value)
        case str():
            return str(value)
        case dict():
            return _plain(dict(cast("dict[Any, Any]", value)))
        case list() | tuple():
            return _plain(list(cast("Sequence[Any]", value)))
        case _:
            raise TypeError(
                f"canonical JSON has no form for {type(value).__name__}: use a decimal string or an integer"
            )


def digest_of(data: bytes) -> Digest:
    """`sha256:<64 hex>` over the bytes as stored."""
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def digest_of_json(value: Any) -> Digest:
    """Digest of the canonical JSON of a structured value."""
    return digest_of(canonical_json(value))


def canonical_value(value: Any) -> Any:
    """The value in what canonical JSON has a form for: floats as text, models as mappings."""
    if type(value) in _LEAVES:
        return value
    match value:
        case float():
            return repr(value)
        case dict():
            return {str(k): canonical_value(v) for k, v in cast("dict[Any, Any]", value).items()}
        case list() | tuple():
            return [canonical_value(v) for v in value]  # pyright: ignore[reportUnknownVariableType]
        case None | bool() | int() | str():
            return value
        case _:
            return canonical_value(value.model_dump(mode="json")) if hasattr(value, "model_dump") else str(value)
