"""Port: where rows of trajectories go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fleet.kernel.plugin import NoOptions, Plugin
from fleet.report.service.trajectories.rows import TrajectoryRow


@dataclass(frozen=True, slots=True)
class WrittenTable:
    """One table that is complete."""

    rows: int
    size_bytes: int
    sha256: str
    """64 hex digits over its bytes."""


class TrajectorySink(Protocol):
    """Takes rows of all tables, in any mixture; rows of one table keep their order.

    Nothing can be read before `finish`: an export that was broken off leaves nothing that looks like one.
    """

    def add(self, row: TrajectoryRow) -> None:
        """The row is taken. StoreFull when there is no room for it."""
        ...

    def finish(self) -> Mapping[str, WrittenTable]:
        """Every table is complete and can be read, empty ones too; by name. Equal rows give equal bytes."""
        ...

    def abandon(self) -> None:
        """Nothing is left of what was taken; after `finish` it does nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSinkPlugin(Plugin[NoOptions, Path, TrajectorySink]):
    """What an entry point of the group `swe_fleet.export_sinks` leads to; a sink is made from a folder."""
