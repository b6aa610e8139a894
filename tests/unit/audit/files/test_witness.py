"""The folder of exported checkpoints as files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fleet.audit.checkpoint import Leaf, SignedCheckpoint, sign_checkpoint
from fleet.audit.files.witness import CheckpointFolder, FolderWitness
from fleet.events.envelope import Head
from fleet.kernel.errors import InvalidInput, LogCorrupted, StoreUnavailable
from fleet.kernel.ids import StreamId
from tests.support.audit import SIGNER

ONE = StreamId("story:st-one")


def signed(sequence: int, version: int = 5) -> SignedCheckpoint:
    leaves = [Leaf(stream=ONE, version=version, hash="a" * 64)]
    return sign_checkpoint(leaves, sequence=sequence, previous=None, time_ms=1, key=SIGNER.key, sign=SIGNER.sign)


@pytest.mark.rule("EV-9")
async def test_copy_is_one_file_that_nobody_writes_again_and_one_line(tmp_path: Path) -> None:
    lines: list[str] = []
    folder = CheckpointFolder(tmp_path / "out", announce=lines.append)
    await folder.write(signed(1), sequence=1)
    await folder.write(signed(1), sequence=1)

    (path,) = (tmp_path / "out").iterdir()
    assert (path.name, stat.S_IMODE(path.stat().st_mode)) == ("1.json", 0o444)
    assert SignedCheckpoint.parse(path.read_bytes()) == signed(1)
    assert lines == [f"checkpoint 1: 1 streams, {signed(1).digest}"]


async def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    for name in ("01.json", "x.json", "loss-1.note", ".2.json.tmp"):
        (tmp_path / name).write_text("{}")
    folder = CheckpointFolder(tmp_path)
    assert (await folder.sequences(), await folder.losses()) == ([], [])


async def test_folder_that_cannot_be_used_is_a_missing_service(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="folder of exported checkpoints cannot keep 1.json"):
        await CheckpointFolder(tmp_path / "file" / "below").write(signed(1), sequence=1)


@pytest.mark.rule("EV-19")
async def test_witness_reads_a_settled_folder_once(tmp_path: Path) -> None:
    folder, witness = CheckpointFolder(tmp_path), FolderWitness(tmp_path)
    await folder.write(signed(1), sequence=1)
    os.utime(tmp_path, ns=(10**18, 10**18))
    assert await witness.attested(ONE) == Head(5, "a" * 64)
    # What stands in the file now is only seen when the folder changes.
    (tmp_path / "1.json").chmod(0o600)
    (tmp_path / "1.json").write_text("{")
    os.utime(tmp_path, ns=(10**18, 10**18))
    assert await witness.attested(ONE) == Head(5, "a" * 64)
    await folder.write(signed(2, version=6), sequence=2)
    assert await witness.attested(ONE) == Head(6, "a" * 64)


@pytest.mark.rule("EV-19")
async def test_witness_that_cannot_read_the_newest_copy_says_so(tmp_path: Path) -> None:
    (tmp_path / "3.json").write_text("{")
    with pytest.raises(LogCorrupted, match="newest exported checkpoint 3 cannot be read"):
        await FolderWitness(tmp_path).attested(ONE)
    with pytest.raises(InvalidInput):
        await CheckpointFolder(tmp_path).read(3)
