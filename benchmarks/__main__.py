"""`python -m benchmarks [NAME...]`: run them, print one table, write build/reports/benchmarks.json.

`--points N` has the curve of `throughput` begin with N points and end there.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from benchmarks import (
    appends,
    compression,
    deliberation,
    engine,
    engineers,
    folders,
    knowledge,
    lessons,
    pack,
    projection,
    redaction,
    resume,
    routing,
    sandbox,
    served,
    sse,
    throughput,
    trees,
)
from benchmarks.figures import Figure, table, write

REPORT = Path("build/reports/benchmarks.json")
Measure = Callable[[Path], Awaitable[list[Figure]]]
BENCHMARKS: dict[str, Measure] = {
    "appends": appends.measure,
    "resume": resume.measure,
    "projection": projection.measure,
    "sandbox": sandbox.measure,
    "trees": trees.measure,
    "folders": folders.measure,
    "engineers": engineers.measure,
    "routing": routing.measure,
    "redaction": redaction.measure,
    "compression": compression.measure,
    "knowledge": knowledge.measure,
    "lessons": lessons.measure,
    "pack": pack.measure,
    "deliberation": deliberation.measure,
    "sse": sse.measure,
    "throughput": throughput.measure,
    "engine": engine.measure,
    "served": served.measure,
}
APART = frozenset({"engine", "served"})
"""Only when named: they need what the environment of the others does not have."""


async def measured(names: list[str], benchmarks: Mapping[str, Measure]) -> list[Figure]:
    """The figures of these benchmarks, one after the other, each in an empty folder."""
    found: list[Figure] = []
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="fleet-bench-") as folder:
            found += await benchmarks[name](Path(folder))
    return found


def main(arguments: list[str]) -> int:
    """0 when all were measured, 2 for a name that is none, or a number of points that the curve does not have."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure, and write build/reports/benchmarks.json.")
    most = len(throughput.POINTS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--points", type=int, default=most, metavar="N", help=f"of throughput: 1 to {most}")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if not 1 <= given.points <= most:
        parser.error(f"--points is {given.points}, and the curve of throughput has 1 to {most}")
    benchmarks = BENCHMARKS | {"throughput": partial(throughput.measure, points=given.points)}
    names = given.names or [name for name in BENCHMARKS if name not in APART]
    figures = asyncio.run(measured(names, benchmarks))
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    write(figures, REPORT, machine=machine)
    print(table(figures))
    print(f"written to {REPORT}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
