"""Stored bodies of older schemas become bodies of the present one (EV-30)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from fleet.kernel.errors import UnsupportedSchema

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
"""A pure function from a body of schema v to one of schema v + 1; it is kept forever."""

UPCASTERS: Mapping[tuple[str, int], Upcaster] = MappingProxyType({})
"""Upcasters by event type and the schema they start from."""


def upcast(
    body: dict[str, Any],
    *,
    type: str,
    schema: int,
    to: int,
    table: Mapping[tuple[str, int], Upcaster] = UPCASTERS,
) -> dict[str, Any]:
    """The body at schema `to`, through every step between; the given body is left as it is.

    Raises:
        UnsupportedSchema: the body is newer than `to`, or a step between is missing.
    """
    current = dict(body)
    for step in range(schema, to):
        if (type, step) not in table:
            raise UnsupportedSchema(
                f"event type {type!r} has no upcaster from schema {step}: install a version of fleet that has it",
                type=type,
                schema=step,
            )
        current = table[type, step](dict(current))
    if schema > to:
        raise UnsupportedSchema(
            f"event type {type!r} has schema {schema}, this version reads up to {to}: upgrade fleet",
            type=type,
            schema=schema,
        )
    return current
