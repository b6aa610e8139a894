"""The default tests, in three processes at once (`make test`): one computes, much of the others is waiting.

What two of them say follows the rest. The simulation comes late, and takes what time of the processors the others
leave. Coverage is measured where the bars need it: it makes the simulation three times as slow, and what the tests of
doors run of `fleet/` runs in other processes. Arguments go to pytest.

On a slow machine a limit of time that a test sets, or the product, may pass only because so many processes share two
cores. So when tests of a few files fail beside the others, they run again, alone, and twice. What fails there once has
failed. What passes both times has passed, and is named at the end of the run and in `build/reports/unstable.txt`: it is
to be mended, for a race shows itself in the same way.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

REPORTS = Path("build/reports")
COMPUTING = ("tests/unit",)
HOUSE = ("tests/house",)
SIMULATION = ("tests/sim",)
STORES = ("tests/contract",)
FRONT = ("tests/serve", "tests/chaos")
FLEETS = ("tests/services", "tests/ray")
DOORS = ("tests/doors",)
LANES = {
    "computing": COMPUTING,
    "house": HOUSE,
    "doors": DOORS,
    "simulation": SIMULATION,
    "stores": STORES,
    "front": FRONT,
    "fleets": FLEETS,
}
FIRST = ("fleets", "doors")
TOGETHER = (("computing", "house", "simulation"), ("stores", "front"))
"""Lanes that run at the same time as the first ones; those of one group one after the other."""
WIDE, REAL = "wide", "real"
WIDE_SIMULATION = "wide-simulation"
UNMEASURED = ("house", "doors", "simulation", WIDE, WIDE_SIMULATION, REAL)
REAL_SUITES = (
    "tests/contract/test_log.py",
    "tests/contract/test_log_stateful.py",
    "tests/contract/test_lease.py",
    "tests/contract/test_ledger.py",
    "tests/contract/test_inbox.py",
    "tests/contract/test_feed.py",
    "tests/contract/test_feed_group.py",
    "tests/contract/test_dead_letters.py",
    "tests/contract/test_snapshots.py",
    "tests/contract/test_checkpoints.py",
    "tests/contract/test_blobs.py",
    "tests/contract/test_graph.py",
    "tests/services/test_redis_log.py",
    "tests/services/test_redis_queues.py",
    "tests/services/test_redis_blobs.py",
    "tests/services/test_story_graph.py",
    "tests/services/test_audit.py",
    "tests/chaos",
)
CHOSEN = {
    **LANES,
    WIDE: ("tests", f"--ignore={SIMULATION[0]}"),
    WIDE_SIMULATION: SIMULATION,
    REAL: REAL_SUITES,
}
_MARKS = {WIDE: "wide and not slow", WIDE_SIMULATION: "wide and not slow", REAL: "not slow"}
MOST_AGAIN = 5
"""Files: a fixture that fails takes every test of its module with it."""
TIMES_AGAIN = 2
_FAILED = 1
"""What pytest ends with when tests failed, and nothing else went wrong."""
_NOTHING_SELECTED = 5
"""What pytest ends with then; only right where an argument such as `-k` asked for it."""


def main(arguments: list[str]) -> int:
    """0 when every process passed; else the status of one that did not."""
    left = {path.name for path in Path("tests").iterdir() if list(path.glob("**/test_*.py"))}
    known = {Path(folder).name for folder in itertools.chain(*LANES.values())}
    assert left == known, "a folder would not run"
    for old in REPORTS.glob(".coverage*"):
        old.unlink()
    for lane in LANES:
        shutil.rmtree(_cache(lane), ignore_errors=True)
    started = time.monotonic()
    codes = _run_together(FIRST, TOGETHER, arguments)
    unstable = _try_again(codes, arguments)
    subprocess.run([sys.executable, "-m", "coverage", "combine", "-q", *_data()], check=True)
    print(f"all tests in {time.monotonic() - started:.0f} s", flush=True)
    (REPORTS / "unstable.txt").write_text("".join(f"{test}\n" for test in unstable))
    for test in unstable:
        print(f"UNSTABLE: failed beside others, passed {TIMES_AGAIN} times alone: {test}", flush=True)
    return verdict(list(codes.values()), is_narrowed=bool(arguments)) if codes.keys() == LANES.keys() else 1


def run_unmeasured(lane: str, arguments: list[str], *beside: str) -> int:
    """Lanes without coverage (`make test-wide`, `make test-real`), by the same rule; 0 when their tests passed.

    Args:
        beside: lanes that run at the same time; what they say follows.
    """
    for each in (lane, *beside):
        shutil.rmtree(_cache(each), ignore_errors=True)
    codes = _run_together((lane,), [(each,) for each in beside], arguments)
    for test in _try_again(codes, arguments):
        print(f"UNSTABLE: failed beside others, passed {TIMES_AGAIN} times alone: {test}", flush=True)
    is_whole = codes.keys() == {lane, *beside}
    return verdict(list(codes.values()), is_narrowed=bool(arguments)) if is_whole else 1


def _run_together(first: Sequence[str], apart: Sequence[Sequence[str]], arguments: list[str]) -> dict[str, int]:
    """What pytest ended with by lane; one that could not even be started has no code.

    Args:
        apart: lanes that run meanwhile, those of one group one after the other.
    """
    REPORTS.mkdir(parents=True, exist_ok=True)
    codes = dict[str, int]()

    def run_lanes(group: Sequence[str]) -> None:
        with (REPORTS / f"{group[0]}.log").open("wb") as output:
            for each in group:
                codes[each] = _run(each, arguments, output)

    threads = {group[0]: threading.Thread(target=run_lanes, args=(group,)) for group in apart}
    for thread in threads.values():
        thread.start()
    for each in first:
        codes[each] = _run(each, arguments, None)
    for name, thread in reversed(threads.items()):
        print(f"... {name}", flush=True)
        thread.join()
        sys.stdout.write((REPORTS / f"{name}.log").read_text(errors="replace"))
    return codes


def _try_again(codes: dict[str, int], arguments: list[str]) -> list[str]:
    """The tests that failed beside others and pass alone; a lane of which no others failed has passed."""
    failed = {lane: failed_of(_cache(lane)) for lane, code in codes.items() if code == _FAILED}
    if not are_few(failed):
        return []
    unstable: list[str] = []
    for lane, tests in failed.items():
        print(f"... {lane}, again and alone: {', '.join(tests)}", flush=True)
        more = [] if lane in UNMEASURED else ["--cov-append"]
        again = [_run(lane, [*arguments, *more], None, tests) for _ in range(TIMES_AGAIN)]
        codes[lane] = verdict(again, is_narrowed=False)
        unstable += tests if codes[lane] == 0 else []
    return unstable


def are_few(failed: Mapping[str, Sequence[str]]) -> bool:
    """Whether it is worth while to run them again: every failed lane names its tests, and they lie in few files."""
    files = {test.partition("::")[0] for tests in failed.values() for test in tests}
    return all(failed.values()) and len(files) <= MOST_AGAIN


def failed_of(cache: Path) -> list[str]:
    """What pytest noted there as failed, in the order of the alphabet."""
    noted = cache / "v/cache/lastfailed"
    return sorted(json.loads(noted.read_text())) if noted.exists() else []


def verdict(codes: list[int], *, is_narrowed: bool) -> int:
    """0 when every process passed; else the first status that is none."""
    fine = (0, _NOTHING_SELECTED) if is_narrowed else (0,)
    return next((code for code in codes if code not in fine), 0)


def _run(lane: str, arguments: list[str], output: IO[bytes] | None, tests: Sequence[str] = ()) -> int:
    """What pytest ended with; it ran the folders of the lane, or these tests of it alone."""
    measure = [] if lane in UNMEASURED else ["--cov", "--cov-report="]
    cache = ["-o", f"cache_dir={_cache(lane)}"]
    marks = _MARKS.get(lane, "not slow and not wide")
    command = ["-m", "pytest", "-m", marks, "--durations=15", *measure, *cache, *arguments]
    environ = {**os.environ, "COVERAGE_FILE": str((REPORTS / f".coverage.{lane}").absolute())}
    chosen = tests or CHOSEN[lane]
    process = subprocess.run(
        [sys.executable, *command, *chosen], env=environ, stdout=output, stderr=output, check=False
    )
    return process.returncode


def _cache(lane: str) -> Path:
    return (REPORTS / f"cache.{lane}").absolute()


def _data() -> list[str]:
    return [str(path) for path in sorted(REPORTS.glob(".coverage.*"))]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--wide", *given]:
            raise SystemExit(run_unmeasured(WIDE, given, WIDE_SIMULATION))
        case ["--real", *given]:
            # What needs Ray brings its own stores.
            ignored = [f"--ignore={path}" for path in sorted(Path("tests/chaos").glob("test_ray_*.py"))]
            raise SystemExit(run_unmeasured(REAL, [*ignored, *given]))
        case given:
            raise SystemExit(main(given))
