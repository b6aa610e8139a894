"""What every event payload is: a frozen model with a type, a schema, an origin and a group."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from fleet.events.values import EventGroup, Origin


def is_absent(value: object) -> bool:
    """Whether a field is None.

    As `exclude_if` of a field that came later it leaves the digests of older states as they are.
    """
    return value is None


def is_empty(value: object) -> bool:
    """Whether a collection holds nothing; as `is_absent` for one that came later."""
    return not value


class Value(BaseModel):
    """A part of a payload. Frozen; unknown fields are refused."""

    # Built at first use: a process that meets ten of the hundred types does not pay for all.
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)


class Payload(Value):
    """One event type; its fields are named as in the catalogue (EV-100..EV-256).

    `name_digest` fields hold digests; `from` and `origin` of the catalogue are `from_` and `origin_` in Python where
    they would clash. Fields that are None are left out of the stored body.
    """

    type: ClassVar[str]
    """The name under which logs store the event. Each class writes it out, so that no rename of a class changes it."""
    schema_version: ClassVar[int] = 1
    """Raised by one for a rename or a change of unit or meaning, together with an upcaster (EV-30)."""
    origin: ClassVar[Origin]
    """The service whose result is recorded."""
    other_origins: ClassVar[tuple[Origin, ...]] = ()
    """Further services that record this type; `encode` then takes the one that did."""
    group: ClassVar[EventGroup]
    """The group of the event stream (AP-101)."""
