"""The recording of the demo replays in another folder, as another user, on another day, under another load."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.sandbox.backends.identity import is_root
from scripts.distribution import NotFetched, fetched
from scripts.examples import SQLPARSE

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65_534
pytestmark = [pytest.mark.timeout(600), pytest.mark.network]


@contextmanager
def busy() -> Iterator[None]:
    """Every processor has something else to do."""
    burning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 2)]
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.wait()


def as_nobody(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What this module does for another user with other settings; for an ordinary user, for itself."""
    interpreter = f"/usr/bin/python3.{sys.version_info.minor}" if is_root() else sys.executable
    who = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if is_root() else {}
    packages = next(p for p in sys.path if p.endswith("site-packages"))
    env = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": f"{packages}:{ROOT}:{home}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "XDG_CACHE_HOME": str(home / "cache"),
        "HOME": str(home),
        "TMPDIR": str(home),
        "TZ": "Pacific/Auckland",
        "LANG": "C",
        "PYTHONHASHSEED": "7",
    }
    return subprocess.run(  # pyright: ignore[reportCallIssue, reportUnknownVariableType]
        [interpreter, *arguments], env=env, cwd=ROOT, capture_output=True, text=True, check=False, **who,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip


@pytest.mark.rule("MB-11", "CN-22", "RC-36", "GL-9")
def test_recording_replays_elsewhere_as_somebody_else_while_the_machine_is_busy(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    try:
        archive = fetched(SQLPARSE)
    except NotFetched as error:
        pytest.skip(f"no package index can be reached from here: {error}")
    # Not below the folder of pytest, which only its own user can enter.
    home = tmp_path_factory.getbasetemp().parents[1] / f"somewhere with a long name {os.getpid()}"
    cache = home / "cache" / "swe-fleet" / "archives"
    cache.mkdir(parents=True)
    try:
        shutil.copy(archive, cache)
        # The first releases of 3.11 need a package that ours was installed without.
        (home / "async_timeout.py").write_text("from asyncio import timeout as timeout\n")
        for path in (home, *home.rglob("*")) if is_root() else ():
            os.chown(path, NOBODY, NOBODY)
        if as_nobody(home, "-c", "import fleet, yaml, redis").returncode != 0:
            pytest.skip("another user can reach no Python of this version with our packages")
        with busy():
            done = as_nobody(home, "-m", "tests.support.library_demo", str(home / "run"))
        assert done.returncode == 0, done.stderr[-4000:]
        facts = json.loads(done.stdout.splitlines()[-1])
    finally:
        shutil.rmtree(home, ignore_errors=True)
    assert facts == {
        "closed": True,
        "tree": "sha256:b2f52b86ecaf805acac3aebe131ca58880b0a0befad89ee78c56f00568528bee",
        "passed": 487,
        "author": "developer-003",
        "parked": "",
    }
