"""What every kind of database gives back, within the limits of RT-60."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from pydantic import JsonValue

from fleet.policy.commands.sql import ClassifiedStatement
from fleet.policy.rules.calls import ToolCall

STATEMENT_S = 30.0
"""Seconds that one statement may take."""
MAX_ROWS = 1_000
MAX_BYTES = 512 << 10
"""Bytes of all rows as JSON."""
_EXACT = 2**53


class Rejected(Exception):  # noqa: N818 - a finding for the tool to word, never seen outside of it
    """The database carried nothing out; `reason` is a word of ours, the message that of the server."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(slots=True)
class Rows:
    """Rows as they come in, until there are too many."""

    columns: tuple[str, ...] = ()
    rows: list[str] = field(default_factory=list[str])
    """Each as JSON."""
    status: str = ""
    """The server's own word for what was done."""
    is_cut: bool = False
    size: int = 0

    def add(self, values: Sequence[object]) -> bool:
        """Keep the row; False once rows or bytes are at their limit, and then it is not kept."""
        row = json.dumps([as_json_value(value) for value in values], ensure_ascii=False)
        if len(self.rows) >= MAX_ROWS or self.size + len(row.encode("utf-8", "replace")) + 1 > MAX_BYTES:
            self.is_cut = True
            return False
        self.rows.append(row)
        self.size += len(row.encode("utf-8", "replace")) + 1
        return True


class Database(Protocol):
    """One kind of database. Statements have been classified before they come here."""

    def classify(self, call: ToolCall) -> ClassifiedStatement:
        """The class of what the call wants to have carried out."""
        ...

    async def read(self, url: str, call: ToolCall) -> Rows:
        """What the statement finds; whatever it changed is undone.

        Raises Rejected when the database refuses it, ToolFailed when it cannot be reached, ToolTimeout.
        """
        ...

    async def write(self, url: str, call: ToolCall) -> Rows:
        """The statement was carried out, whole or not at all. Raises like `read`; ToolTimeout says nothing about it."""
        ...


def as_json_value(value: object) -> JsonValue:
    """The value as exact JSON: numbers that JSON readers round, and all other types, become text."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if abs(value) < _EXACT else str(value)
        case bytes() | bytearray():
            data = bytes(value)
            try:
                return data.decode()
            except UnicodeDecodeError:
                return f"\\x{data.hex()}"
        case dict():
            return {str(as_json_value(k)): as_json_value(v) for k, v in cast(dict[object, object], value).items()}
        case list() | tuple() | set() | frozenset():
            return [as_json_value(item) for item in cast(Sequence[object], value)]
        case _:
            return str(value)
