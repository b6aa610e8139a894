"""The default tests, in two processes at once (`make test`): one computes, most of the other one is waiting.

What the computing one says follows the rest. Coverage is measured but for the simulation, which it makes three times
as slow; the bars are met without it. Arguments go to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

REPORTS = Path("build/reports")
COMPUTING = ("tests/house", "tests/unit")
SIMULATION = ("tests/sim",)
WAITING = ("tests/contract", "tests/services", "tests/serve", "tests/ray", "tests/chaos")
_NOTHING_SELECTED = 5
"""What pytest ends with then; only right where an argument such as `-k` asked for it."""


def main(arguments: list[str]) -> int:
    """0 when every process passed; else the status of one that did not."""
    left = {path.name for path in Path("tests").iterdir() if list(path.glob("**/test_*.py"))}
    assert left == {Path(folder).name for folder in (*COMPUTING, *SIMULATION, *WAITING)}, "a folder would not run"
    REPORTS.mkdir(parents=True, exist_ok=True)
    for old in REPORTS.glob(".coverage*"):
        old.unlink()
    started, codes, told = time.monotonic(), list[int](), REPORTS / "computing.log"
    with told.open("wb") as output:

        def compute() -> None:
            codes.append(_run("computing", COMPUTING, arguments, output))
            codes.append(_run("", SIMULATION, arguments, output))

        beside = threading.Thread(target=compute)
        beside.start()
        codes.append(_run("waiting", WAITING, arguments, None))
        print(f"... {', '.join((*COMPUTING, *SIMULATION))}", flush=True)
        beside.join()
    sys.stdout.write(told.read_text(errors="replace"))
    subprocess.run([sys.executable, "-m", "coverage", "combine", "-q", *_data()], check=True)
    print(f"all tests in {time.monotonic() - started:.0f} s", flush=True)
    # A process that could not even be started has no code.
    return verdict(codes, is_narrowed=bool(arguments)) if len(codes) == 3 else 1


def verdict(codes: list[int], *, is_narrowed: bool) -> int:
    """0 when every process passed; else the first status that is none."""
    fine = (0, _NOTHING_SELECTED) if is_narrowed else (0,)
    return next((code for code in codes if code not in fine), 0)


def _run(measured_as: str, folders: tuple[str, ...], arguments: list[str], output: IO[bytes] | None) -> int:
    measure = ["--cov", "--cov-report="] if measured_as else []
    command = ["-m", "pytest", "-m", "not slow", "--durations=15", *measure, *arguments, *folders]
    environ = {**os.environ, "COVERAGE_FILE": str((REPORTS / f".coverage.{measured_as}").absolute())}
    process = subprocess.run([sys.executable, *command], env=environ, stdout=output, stderr=output, check=False)
    return process.returncode


def _data() -> list[str]:
    return [str(path) for path in sorted(REPORTS.glob(".coverage.*"))]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
