"""`python -m benchmarks [NAME...]`: run them, print one table, write build/reports/benchmarks.json."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
from pathlib import Path

from benchmarks import (
    appends,
    compression,
    deliberation,
    engine,
    knowledge,
    lessons,
    pack,
    projection,
    redaction,
    resume,
    routing,
    sandbox,
    sse,
    throughput,
    trees,
)
from benchmarks.figures import Figure, table, write

REPORT = Path("build/reports/benchmarks.json")
BENCHMARKS = {
    "appends": appends.measure,
    "resume": resume.measure,
    "projection": projection.measure,
    "sandbox": sandbox.measure,
    "trees": trees.measure,
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
}
APART = frozenset({"engine"})
"""Only when named: they need what the environment of the others does not have."""


async def measured(names: list[str]) -> list[Figure]:
    """The figures of these benchmarks, one after the other, each in an empty folder."""
    found: list[Figure] = []
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="fleet-bench-") as folder:
            found += await BENCHMARKS[name](Path(folder))
    return found


def main(arguments: list[str]) -> int:
    """0 when all were measured, 2 for a name that is none."""
    unknown = [name for name in arguments if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    figures = asyncio.run(measured(arguments or [name for name in BENCHMARKS if name not in APART]))
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    write(figures, REPORT, machine=machine)
    print(table(figures))
    print(f"written to {REPORT}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
