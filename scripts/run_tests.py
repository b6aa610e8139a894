"""The default tests and the slow checks, five processes at once (`make test`), for most of them wait a lot.

A lane is a few folders of tests, or a check such as the types. Whoever is free takes the next one; the longest come
first, so that both cores have work to the end. What a lane says is printed when it has ended, and stays in
`build/reports/LANE.log`. Arguments go to pytest. With `--coverage` the lanes that the bars of `coverage_gate.py` need
are traced: that doubles what their processors do, so `make test` leaves it out, and the nightly `make coverage` has it.

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
import time
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO, NamedTuple

REPORTS = Path("build/reports")
CHECKS = ("types", "rules", "docs")
"""Lanes that are targets of the Makefile."""
PROGRAMS = tuple(f"tests/unit/{folder}" for folder in ("cli", "cluster", "models", "sandbox"))
"""Unit tests that start processes and servers: a third of the time of all unit tests."""
SESSIONS = tuple(f"tests/unit/{folder}" for folder in ("actors", "engineering", "owner", "story", "wiring"))
"""Unit tests that work through whole sessions and stories: half of the time of those that start nothing."""
STORIES = tuple(
    f"tests/services/test_{name}.py" for name in ("team_story", "session_story", "library_demo", "deployed_story")
)
"""Whole stories: half of the time of all services."""
LANES = {
    "ray": ("tests/ray",),
    "stores": ("tests/contract",),
    "services": ("tests/services", *(f"--ignore={file}" for file in STORIES)),
    "stories": STORIES,
    "computing": ("tests/unit", *(f"--ignore={folder}" for folder in (*PROGRAMS, *SESSIONS))),
    "sessions": SESSIONS,
    "programs": PROGRAMS,
    "front": ("tests/serve", "tests/chaos"),
    "doors": ("tests/doors",),
    "simulation": ("tests/sim",),
    "house": ("tests/house",),
}
"""Folders by lane, in the order in which they are taken: those that wait for a whole fleet early, and not at once."""
AT_ONCE = 5
"""Processes: tests wait so often that two cores are busy with five, and a fleet still starts within its limits."""
AT_ONCE_TRACED = 4
"""The same where coverage is measured, which doubles what they compute."""
FAST = ("computing", "sessions", "programs", "house")
WIDES = (WIDE, WIDE_FLEETS, WIDE_SIMULATION) = ("wide", "wide-fleets", "wide-simulation")
REAL = "real"
MEASURED = frozenset({"ray", "stores", "services", "stories", "computing", "sessions", "programs", "front", "doors"})
"""Lanes that the bars of coverage need: the others run the product in other processes, or run it over and over."""
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
    "tests/chaos/test_graph_down.py",
    "tests/chaos/test_graph_poison.py",
    "tests/chaos/test_graph_races.py",
    "tests/chaos/test_owner_cut_off.py",
    "tests/chaos/test_run_races.py",
)
"""Files with tests of the stores; of these, `tests/conftest.py` leaves those that reach no server that was given."""
CHOSEN = {
    **LANES,
    WIDE: ("tests", "--ignore=tests/sim", "--ignore=tests/ray", "--ignore=tests/chaos"),
    WIDE_FLEETS: ("tests/ray", "tests/chaos"),
    WIDE_SIMULATION: ("tests/sim",),
    REAL: REAL_SUITES,
}
_MARKS = {**dict.fromkeys(WIDES, "wide and not slow"), REAL: "not slow"}
MOST_AGAIN = 5
"""Files: a fixture that fails takes every test of its module with it."""
TIMES_AGAIN = 2
_FAILED = 1
"""What pytest ends with when tests failed, and nothing else went wrong."""
_NOTHING_SELECTED = 5
"""What pytest ends with then; only right where an argument such as `-k` asked for it."""


def main(arguments: list[str], *, is_traced: bool = False) -> int:
    """0 when every process passed; else the status of one that did not.

    Args:
        is_traced: coverage is measured, and combined into `.coverage`.
    """
    left = {path.name for path in Path("tests").iterdir() if list(path.glob("**/test_*.py"))}
    known = {Path(folder).parts[1] for folder in itertools.chain(*LANES.values()) if not folder.startswith("-")}
    assert left == known, "a folder would not run"
    for old in REPORTS.glob(".coverage*"):
        old.unlink()
    traced = MEASURED if is_traced else frozenset[str]()
    code, unstable = _run_lanes([*CHECKS, *LANES], Run(arguments, traced))
    (REPORTS / "unstable.txt").write_text("".join(f"{test}\n" for test in unstable))
    if is_traced:
        subprocess.run([sys.executable, "-m", "coverage", "combine", "-q", *_data()], check=True)
    return code


def run_apart(
    lanes: Sequence[str], arguments: list[str], environs: Mapping[str, Mapping[str, str]] | None = None
) -> int:
    """Lanes for other commands (`make test-fast`, `test-wide`, `test-real`), by the same rule; 0 when they passed.

    Args:
        environs: what the processes of a lane find in their environment, besides that of this one.
    """
    return _run_lanes(lanes, Run(arguments, environs=environs or {}))[0]


class Run(NamedTuple):
    """What holds for every process of a run."""

    arguments: list[str]
    traced: Set[str] = frozenset()
    environs: Mapping[str, Mapping[str, str]] = {}


def _run_lanes(lanes: Sequence[str], run: Run) -> tuple[int, list[str]]:
    """The status of them all, and the tests that failed beside others and passed alone."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    for lane in lanes:
        shutil.rmtree(_cache(lane), ignore_errors=True)
    started = time.monotonic()
    codes = _run_together(lanes, run)
    unstable = _try_again(codes, run)
    print(f"all of it in {time.monotonic() - started:.0f} s", flush=True)
    for lane in (lane for lane in lanes if verdict([codes[lane]], is_narrowed=bool(run.arguments))):
        print(f"FAILED: {lane}, see {REPORTS / lane}.log", flush=True)
    for test in unstable:
        print(f"UNSTABLE: failed beside others, passed {TIMES_AGAIN} times alone: {test}", flush=True)
    return verdict([codes[lane] for lane in lanes], is_narrowed=bool(run.arguments)), unstable


def _run_together(lanes: Sequence[str], run: Run) -> dict[str, int]:
    """What each lane ended with; so many run at the same time, in the order given."""
    codes = dict[str, int]()
    with ThreadPoolExecutor(AT_ONCE_TRACED if run.traced else AT_ONCE) as pool:
        ends = {pool.submit(_run_logged, lane, run): lane for lane in lanes}
        for end in as_completed(ends):
            lane = ends[end]
            codes[lane], seconds = end.result()
            text = (REPORTS / f"{lane}.log").read_text(errors="replace")
            _tell(f"... {lane} took {seconds:.0f} s\n{text}")
    return codes


def _run_logged(lane: str, run: Run) -> tuple[int, float]:
    """What it ended with and the seconds it took; what it said is in its log."""
    started = time.monotonic()
    _tell(f"... {lane} begins")
    with (REPORTS / f"{lane}.log").open("wb") as output:
        code = _run_check(lane, output) if lane in CHECKS else _run_tests(lane, run, output)
    return code, time.monotonic() - started


def _tell(text: str) -> None:
    """One write: threads tell at the same time."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _try_again(codes: dict[str, int], run: Run) -> list[str]:
    """The tests that failed beside others and pass alone; a lane of which no others failed has passed."""
    failed = {lane: failed_of(_cache(lane)) for lane, code in codes.items() if code == _FAILED and lane not in CHECKS}
    if not are_few(failed):
        return []
    unstable: list[str] = []
    for lane, tests in failed.items():
        print(f"... {lane}, again and alone: {', '.join(tests)}", flush=True)
        more = ["--cov-append"] if lane in run.traced else []
        alone = run._replace(arguments=[*run.arguments, *more])
        again = [_run_tests(lane, alone, None, tests) for _ in range(TIMES_AGAIN)]
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


def _run_check(target: str, output: IO[bytes]) -> int:
    return subprocess.run(
        ["make", "--no-print-directory", target], stdout=output, stderr=output, check=False
    ).returncode


def _run_tests(lane: str, run: Run, output: IO[bytes] | None, tests: Sequence[str] = ()) -> int:
    """What pytest ended with; it ran the folders of the lane, or these tests of it alone."""
    measure = ["--cov", "--cov-report="] if lane in run.traced else []
    cache = ["-o", f"cache_dir={_cache(lane)}"]
    marks = _MARKS.get(lane, "not slow and not wide")
    command = ["-m", "pytest", "-m", marks, "--durations=15", *measure, *cache, *run.arguments]
    data = {"COVERAGE_FILE": str((REPORTS / f".coverage.{lane}").absolute())}
    environ = {**os.environ, **data, **run.environs.get(lane, {})}
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
        case ["--coverage", *given]:
            raise SystemExit(main(given, is_traced=True))
        case ["--fast", *given]:
            raise SystemExit(run_apart(FAST, given))
        case ["--wide", *given]:
            raise SystemExit(run_apart(WIDES, given))
        case given:
            raise SystemExit(main(given))
