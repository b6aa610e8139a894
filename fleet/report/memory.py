"""In-memory twin of the port TrajectorySink."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from fleet.report.service.trajectories.port import WrittenTable
from fleet.report.service.trajectories.rows import TRAJECTORY_TABLES, TrajectoryRow


class MemoryTrajectorySink:
    """Rows kept as long as the object. Implements the port TrajectorySink."""

    def __init__(self) -> None:
        self._taken: list[TrajectoryRow] = []
        self.rows: dict[str, list[TrajectoryRow]] = {}
        """By table, once it is finished."""

    def add(self, row: TrajectoryRow) -> None:
        """The row is taken."""
        self._taken.append(row)

    def finish(self) -> Mapping[str, WrittenTable]:
        """Every table is complete."""
        self.rows = {name: [r for r in self._taken if type(r) is kind] for name, kind in TRAJECTORY_TABLES.items()}
        return {name: _written(rows) for name, rows in self.rows.items()}

    def abandon(self) -> None:
        """Nothing is left of what was taken."""
        self._taken.clear()


def _written(rows: list[TrajectoryRow]) -> WrittenTable:
    data = "\n".join(map(repr, rows)).encode()
    return WrittenTable(len(rows), len(data), hashlib.sha256(data).hexdigest())
