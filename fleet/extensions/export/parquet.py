"""Trajectories as Parquet files: one for each table, typed from its row type, with a manifest beside them."""

from __future__ import annotations

import hashlib
import importlib
import json
import types
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from fleet.kernel.errors import InvalidInput, StoreFull
from fleet.kernel.plugin import NoOptions
from fleet.report.service.trajectories.port import ExportSinkPlugin, WrittenTable
from fleet.report.service.trajectories.rows import TRAJECTORY_SCHEMA, TRAJECTORY_TABLES, JsonText, TrajectoryRow

MANIFEST = "manifest.json"
_GROUP_ROWS = 2_000
_GROUP_CHARS = 8 << 20
"""A row group is written when one of these is reached: that much is held in memory for each table, and no more."""
_TABLE_OF = {kind: name for name, kind in TRAJECTORY_TABLES.items()}


class _Table:
    """One file that grows by row groups; its bytes depend on its rows alone."""

    def __init__(self, arrow: Any, parquet: Any, path: Path, name: str) -> None:
        self._arrow, self.path, self._part = arrow, path, path.with_name(f"{path.name}.part")
        facts = {"fleet.schema": TRAJECTORY_SCHEMA, "fleet.table": name}
        self._schema = _schema(arrow, TRAJECTORY_TABLES[name]).with_metadata(facts)
        self._writer = parquet.ParquetWriter(self._part, self._schema, compression="zstd")
        self._held: list[dict[str, Any]] = []
        self._chars = self.rows = 0

    def add(self, row: TrajectoryRow) -> None:
        self._held.append(asdict(row))
        self._chars += sum(len(value) for value in self._held[-1].values() if isinstance(value, str))
        self.rows += 1
        if len(self._held) >= _GROUP_ROWS or self._chars >= _GROUP_CHARS:
            self.flush()

    def flush(self) -> None:
        if self._held:
            self._writer.write_table(self._arrow.Table.from_pylist(self._held, schema=self._schema))
        self._held, self._chars = [], 0

    def close(self) -> None:
        self._writer.close()

    def publish(self) -> WrittenTable:
        self._part.replace(self.path)
        digest = hashlib.sha256()
        with self.path.open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
        return WrittenTable(self.rows, self.path.stat().st_size, digest.hexdigest())

    def drop(self) -> None:
        self._part.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


class ParquetTrajectorySink:
    """Implements the port TrajectorySink with `<table>.parquet` and `manifest.json` in a folder.

    Args:
        folder: is made, or empty.

    Raises:
        InvalidInput: the folder holds something already, or cannot be made; nothing is overwritten.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._is_ours = folder, _made(folder)
        # By name: it has no types, and 100 MB of it are loaded only for this.
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
        self._tables: dict[str, _Table] = {}
        self._is_finished = False
        with self._room():
            for name in TRAJECTORY_TABLES:
                self._tables[name] = _Table(arrow, parquet, folder / f"{name}.parquet", name)

    def add(self, row: TrajectoryRow) -> None:
        """The row is taken; with a whole row group it is on disk."""
        with self._room():
            self._tables[_TABLE_OF[type(row)]].add(row)

    def finish(self) -> Mapping[str, WrittenTable]:
        """The files have their names, and the manifest says what is in them."""
        with self._room():
            for table in self._tables.values():
                table.flush()
                table.close()
            written = {name: table.publish() for name, table in self._tables.items()}
            listed = {f"{name}.parquet": asdict(table) for name, table in written.items()}
            document = {"schema": TRAJECTORY_SCHEMA, "tables": listed}
            (self._folder / MANIFEST).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
        self._is_finished = True
        return written

    def abandon(self) -> None:
        """The folder is as it was."""
        if self._is_finished:
            return
        for table in self._tables.values():
            with suppress(OSError):
                table.close()
            table.drop()
        (self._folder / MANIFEST).unlink(missing_ok=True)
        if self._is_ours:
            with suppress(OSError):
                self._folder.rmdir()

    @contextmanager
    def _room(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise StoreFull(
                f"{self._folder} cannot be written to: {error.strerror or error}; nothing of the export is kept",
                path=str(self._folder),
            ) from error


def _made(folder: Path) -> bool:
    """Whether the folder was made just now. Raises InvalidInput unless it is empty."""
    try:
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        is_empty = not any(folder.iterdir())
    except OSError as error:
        raise InvalidInput(
            f"{folder} cannot be made: {error.strerror}; name a new or empty folder with --parquet", field="parquet"
        ) from error
    if not is_empty:
        raise InvalidInput(
            f"{folder} holds files already, and nothing is overwritten: name a new or empty folder with --parquet",
            field="parquet",
            value=str(folder),
        )
    return is_new


def _schema(arrow: Any, kind: type[Any]) -> Any:
    return arrow.schema([_field(arrow, name, hint) for name, hint in _columns(kind).items()])


def _columns(kind: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _field(arrow: Any, name: str, hint: Any) -> Any:
    is_nullable = get_origin(hint) in (Union, types.UnionType)
    if is_nullable:
        (hint,) = (part for part in get_args(hint) if part is not types.NoneType)
    return arrow.field(name, _type(arrow, hint), nullable=is_nullable)


def _type(arrow: Any, hint: Any) -> Any:
    if get_origin(hint) is tuple:
        return arrow.list_(_type(arrow, get_args(hint)[0]))
    if is_dataclass(hint):
        assert isinstance(hint, type)
        return arrow.struct([_field(arrow, name, part) for name, part in _columns(hint).items()])
    plain = {str: arrow.string(), JsonText: arrow.string(), int: arrow.int64(), bool: arrow.bool_()}
    return plain[hint]


def _sink(options: NoOptions, folder: Path) -> ParquetTrajectorySink:
    return ParquetTrajectorySink(folder)


PLUGIN = ExportSinkPlugin(name="parquet", options=NoOptions, make=_sink)
