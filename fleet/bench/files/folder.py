"""Where a benchmark keeps what it found: rows as they are finished, the replies of the model, the picks as Parquet."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fleet.bench.row import BenchRow
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import InvalidInput

MAX_FILE_BYTES = 16 << 20
MAX_FOLDER_BYTES = 256 << 20


class BenchFolder:
    """A folder that one benchmark owns; opening it again with the same header continues it.

    Raises:
        InvalidInput: the folder belongs to a benchmark with another header, or a row of it is damaged.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any]) -> None:
        self._folder = folder
        self._path = folder / "rows.jsonl"
        self.rows: list[BenchRow] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._check_header(header)
            self._read()
        except OSError as error:
            raise InvalidInput(f"{folder} cannot be used as the folder of a benchmark: {error}", field="out") from error

    @property
    def replies(self) -> Path:
        """Folder of recorded replies; `recorded:` of it replays the benchmark."""
        return self._folder / "replies"

    def _check_header(self, header: Mapping[str, Any]) -> None:
        path = self._folder / "bench.json"
        wanted = json.loads(canonical_json(dict(header)))
        if not path.exists():
            path.write_text(json.dumps(wanted, indent=1, sort_keys=True) + "\n")
            return
        try:
            found = json.loads(path.read_bytes())
        except ValueError as error:
            raise InvalidInput(f"{path} is damaged: {error}; choose another --out", field="out") from error
        if found != wanted:
            other = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
            raise InvalidInput(
                f"{self._folder} belongs to another benchmark (different: {', '.join(other)}); choose another --out",
                field="out",
                different=other,
            )

    def _read(self) -> None:
        if not self._path.exists():
            return
        data = self._path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            # A kill in the middle of a write: that row was never finished.
            os.truncate(self._path, len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                self.rows.append(BenchRow.model_validate_json(line))
            except ValidationError as error:
                raise InvalidInput(
                    f"{self._path} line {number} is no row of a benchmark; choose another --out",
                    field="out",
                    line=number,
                ) from error

    def append(self, row: BenchRow) -> None:
        """The row is on disk."""
        with self._path.open("ab") as stream:
            stream.write(canonical_json(row.model_dump(mode="json")) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.rows.append(row)

    @property
    def parquet(self) -> Path:
        """Where the rows lie as Parquet."""
        return self._folder / "picks.parquet"

    def write_parquet(self) -> Path:
        """`picks.parquet` holds all rows, typed."""
        # By name: it has no types, and 100 MB of it are loaded only for this.
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
        path = self.parquet
        part = path.with_suffix(".part")
        table = arrow.Table.from_pylist([_record(r) for r in self.rows], schema=_schema(arrow))
        parquet.write_table(table, part)
        part.replace(path)
        return path


def _record(row: BenchRow) -> dict[str, Any]:
    values = row.model_dump(mode="json")
    values["stages"] = [{"stage": k, "tokens": v} for k, v in row.stages.items()]
    values["picks"] = [{"rule": k, "digest": v.digest, "passed": v.passed} for k, v in row.picks.items()]
    return values


def _schema(arrow: Any) -> Any:
    text, number, flag = arrow.string(), arrow.int64(), arrow.bool_()
    stage = arrow.struct([("stage", text), ("tokens", number)])
    pick = arrow.struct([("rule", text), ("digest", text), ("passed", flag)])
    types = {"seed": number, "passed": flag, "visible_passed": flag, "stages": arrow.list_(stage)}
    types |= {"picks": arrow.list_(pick)}
    texts = {"task_id", "arm", "digest", "solution", "decided_in"}
    return arrow.schema([(n, types.get(n, text if n in texts else number)) for n in BenchRow.model_fields])


def read_folder(folder: Path) -> Mapping[str, bytes]:
    """The files of a repository task by path, without `.git` and caches; symbolic links are left out.

    Raises:
        InvalidInput: it is no folder, or too large.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder", field="repository")
    found: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_symlink() or not path.is_file() or {".git", "__pycache__", ".pytest_cache"} & {*parts}:
            continue
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InvalidInput(f"{path} is larger than {MAX_FILE_BYTES >> 20} MB", field="repository")
        found["/".join(parts)] = path.read_bytes()
    if _size(list(found.values())) > MAX_FOLDER_BYTES:
        raise InvalidInput(f"{folder} holds more than {MAX_FOLDER_BYTES >> 20} MB", field="repository")
    return found


def _size(files: Sequence[bytes]) -> int:
    return sum(len(data) for data in files)
