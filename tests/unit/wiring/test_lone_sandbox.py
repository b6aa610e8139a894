"""The sandbox of one command leaves no folder behind, whatever ended the commands before it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

from fleet.config.settings import FleetSettings
from fleet.sandbox.memory import MemorySandboxBackend
from fleet.trees.memory import MemoryBlobStore
from fleet.wiring.sandbox.lone_sandbox import open_lone_sandbox

HELD = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print(1, flush=True)
input()
"""


def nothing(*_: object) -> NoReturn:
    raise AssertionError("nothing is run here")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


async def test_folders_of_killed_commands_are_swept_and_those_in_use_or_of_others_are_not(
    temporary: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name in ("fleet-exec-killed", "fleet-exec-held", "fleet-exec-new", "other"):
        (temporary / name).mkdir()
        (temporary / name / "copy").write_text("of a workspace")
        if name != "fleet-exec-new":
            os.utime(temporary / name, (1, 1))
    (temporary / "fleet-exec-link").symlink_to(temporary / "other")
    os.utime(temporary / "fleet-exec-link", (1, 1), follow_symlinks=False)
    held = subprocess.Popen(
        [sys.executable, "-c", HELD, str(temporary / "fleet-exec-held")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert held.stdout is not None
    held.stdout.readline()
    settings = FleetSettings(home=tmp_path_factory.mktemp("home"))
    try:
        async with open_lone_sandbox(settings, backend=MemorySandboxBackend(nothing, MemoryBlobStore())):
            (mine,) = [p for p in temporary.glob("fleet-exec-*") if p.name.count("-") == 2 and len(p.name) == 19]
            os.utime(mine, (1, 1))
            async with open_lone_sandbox(settings, backend=MemorySandboxBackend(nothing, MemoryBlobStore())):
                assert mine.is_dir()
    finally:
        held.communicate(b"\n")

    left = {path.name for path in temporary.iterdir()}
    assert left == {"fleet-exec-held", "fleet-exec-new", "fleet-exec-link", "other"}
    assert (temporary / "other" / "copy").exists()
