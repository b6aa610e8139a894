"""The contract of TrajectorySink, on every adapter; and what is so of Parquet files alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from fleet.extensions.export.parquet import MANIFEST, ParquetTrajectorySink
from fleet.kernel.errors import InvalidInput, StoreFull
from fleet.report.memory import MemoryTrajectorySink
from fleet.report.service.trajectories.port import TrajectorySink
from fleet.report.service.trajectories.rows import (
    TRAJECTORY_SCHEMA,
    TRAJECTORY_TABLES,
    BallotRow,
    EventRow,
    EvidenceRow,
    GateOutcome,
    JsonText,
    MessageRow,
    ToolAsked,
    TrajectoryRow,
    VoteOn,
)

Read = Callable[[], Mapping[str, list[dict[str, Any]]]]


def tables(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of every file, as Arrow gives them back."""
    import pyarrow.parquet as parquet

    return {name: parquet.read_table(folder / f"{name}.parquet").to_pylist() for name in TRAJECTORY_TABLES}


@pytest.fixture(params=["memory", "parquet"])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[TrajectorySink, Read]:
    if request.param == "memory":
        held = MemoryTrajectorySink()
        # Arrow knows lists and no tuples.
        return held, lambda: json.loads(json.dumps({n: [asdict(r) for r in rows] for n, rows in held.rows.items()}))
    return ParquetTrajectorySink(tmp_path / "out"), lambda: tables(tmp_path / "out")


def event(version: int, *, text: str = "{}") -> EventRow:
    return EventRow(
        story_id="st-one", version=version, ts_ms=5, type="T", schema=1, actor="user:ana", body=JsonText(text)
    )


ROWS: tuple[TrajectoryRow, ...] = (
    event(1, text='{"text":"\u00fc \U0001f600"}'),
    MessageRow(
        story_id="st-one",
        step_id="s",
        position=0,
        role="assistant",
        content=None,
        is_reply=True,
        is_used=True,
        tool_uses=(ToolAsked("1", "fs_read", '{"path":"a"}'),),
    ),
    EvidenceRow(
        story_id="st-one",
        council_id="co-one1",
        version=3,
        candidate_id="cd-aaa1",
        round=0,
        tree=None,
        gates=(GateOutcome("build", True, None), GateOutcome("lint", False, "rn-one1")),
        gates_ok=False,
        trusted_passed=1,
        trusted_total=2,
        cluster_id="c",
        cluster_size=1,
        lint_errors=0,
        diff_lines=-1 + 2**40,
    ),
    BallotRow(
        story_id="st-one",
        council_id="co-one1",
        version=4,
        round=0,
        voter="qa-001",
        attempt=1,
        is_counted=True,
        refused_for=None,
        votes=(VoteOn("cd-aaa1", "approve"),),
        ranking=("cd-aaa1",),
        reasons=JsonText('{"cd-aaa1":"fine"}'),
        tokens=7,
    ),
    event(2),
)


def test_rows_come_back_typed_in_their_order_and_tables_without_rows_exist(sink: tuple[TrajectorySink, Read]) -> None:
    taken, read = sink
    for row in ROWS:
        taken.add(row)
    written = taken.finish()
    found = read()
    assert set(found) == set(written) == set(TRAJECTORY_TABLES)
    assert [row["version"] for row in found["events"]] == [1, 2]
    assert found["events"][0] == asdict(ROWS[0])
    assert found["messages"] == json.loads(json.dumps([asdict(ROWS[1])]))
    assert found["evidence"] == json.loads(json.dumps([asdict(ROWS[2])]))
    assert found["ballots"] == json.loads(json.dumps([asdict(ROWS[3])]))
    assert found["stories"] == []
    assert {name: table.rows for name, table in written.items() if table.rows} == {
        "events": 2,
        "messages": 1,
        "evidence": 1,
        "ballots": 1,
    }
    taken.abandon()
    assert read() == found


def test_equal_rows_give_equal_bytes_also_over_many_row_groups(tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    seen: list[dict[str, bytes]] = []
    for name in ("a", "b"):
        sink = ParquetTrajectorySink(tmp_path / name)
        for number in range(5000):
            sink.add(event(number, text=f'{{"n":{number}}}'))
        sink.finish()
        seen.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert seen[0] == seen[1]
    assert set(seen[0]) == {*(f"{name}.parquet" for name in TRAJECTORY_TABLES), MANIFEST}
    file = parquet.ParquetFile(tmp_path / "a" / "events.parquet")
    assert (file.metadata.num_rows, file.num_row_groups) == (5000, 3)
    assert file.schema_arrow.metadata[b"fleet.schema"].decode() == TRAJECTORY_SCHEMA


def test_large_texts_are_written_before_there_are_many_rows(tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    sink = ParquetTrajectorySink(tmp_path / "out")
    for number in range(4):
        sink.add(event(number, text="x" * (5 << 20)))
    sink.finish()
    assert parquet.ParquetFile(tmp_path / "out" / "events.parquet").num_row_groups == 2


def test_manifest_names_the_schema_and_the_digest_of_every_file(tmp_path: Path) -> None:
    from hashlib import sha256

    sink = ParquetTrajectorySink(tmp_path / "out")
    sink.add(event(1))
    sink.finish()
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest["schema"] == TRAJECTORY_SCHEMA
    for name, said in manifest["tables"].items():
        data = (tmp_path / "out" / name).read_bytes()
        assert (said["sha256"], said["size_bytes"]) == (sha256(data).hexdigest(), len(data))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InvalidInput, match="nothing is overwritten"):
        ParquetTrajectorySink(tmp_path)
    with pytest.raises(InvalidInput, match="cannot be made"):
        ParquetTrajectorySink(tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_export_that_is_broken_off_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        sink = ParquetTrajectorySink(tmp_path / name)
        sink.add(event(1))
        sink.abandon()
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    assert list((tmp_path / "empty").iterdir()) == []


def test_folder_that_vanishes_is_told_and_nothing_is_half_written(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    sink = ParquetTrajectorySink(folder)
    sink.add(event(1))
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    with pytest.raises(StoreFull, match="cannot be written to"):
        sink.finish()
    sink.abandon()
    assert list(tmp_path.iterdir()) == []
