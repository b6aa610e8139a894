"""The default tests in two processes at once, with coverage (`make test`): most of the second one is waiting.

The output of the first process follows that of the second. Arguments go to both.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

REPORTS = Path("build/reports")
COMPUTING = ("tests/house", "tests/unit", "tests/sim")
WAITING = ("tests/contract", "tests/services", "tests/serve", "tests/ray", "tests/chaos")
_FINE = (0, 5)
"""All passed; nothing was selected, which an argument such as `-k` may cause."""


def main(arguments: list[str]) -> int:
    """0 when both processes passed; else the status of one that did not."""
    left = {path.name for path in Path("tests").iterdir() if path.is_dir() and list(path.glob("**/test_*.py"))}
    assert left == {Path(folder).name for folder in (*COMPUTING, *WAITING)}, "a folder of tests would not run"
    REPORTS.mkdir(parents=True, exist_ok=True)
    for old in REPORTS.glob(".coverage*"):
        old.unlink()
    started = time.monotonic()
    told = REPORTS / "computing.log"
    with told.open("wb") as output:
        computing = _start("computing", COMPUTING, arguments, stdout=output)
        waiting = _start("waiting", WAITING, arguments, stdout=None).wait()
        print(f"... {', '.join(COMPUTING)}", flush=True)
        status = computing.wait()
    sys.stdout.write(told.read_text(errors="replace"))
    subprocess.run([sys.executable, "-m", "coverage", "combine", "-q", *_data()], check=True)
    print(f"both in {time.monotonic() - started:.0f} s", flush=True)
    return next((code for code in (waiting, status) if code not in _FINE), 0)


def _start(name: str, folders: tuple[str, ...], arguments: list[str], *, stdout: object) -> subprocess.Popen[bytes]:
    command = ["-m", "pytest", "-m", "not slow", "--durations=15", "--cov", "--cov-report=", *arguments, *folders]
    environ = {**os.environ, "COVERAGE_FILE": str((REPORTS / f".coverage.{name}").absolute())}
    return subprocess.Popen([sys.executable, *command], env=environ, stdout=stdout, stderr=subprocess.STDOUT)  # type: ignore[call-overload]  # pyright: ignore


def _data() -> list[str]:
    return [str(path) for path in sorted(REPORTS.glob(".coverage.*"))]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
