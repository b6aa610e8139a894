"""Redaction: MB/s of the whole catalogue on code, logs and JSON, next to one bare pattern over the same text."""

from __future__ import annotations

import json
import re
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.figures import Figure
from fleet.redaction.redact import RedactingStream, redact

MIB = 1 << 20
SECRET = "ghp_" + "a1B2c3D4e5" * 4
_BARE = re.compile(
    r"gh[pousr]_[A-Za-z0-9]{36,}|AKIA[A-Z0-9]{16}|xox[abeoprs]-[A-Za-z0-9-]{10,}|sk-[A-Za-z0-9_-]{20,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----|(?i:password|secret|token|api_key)[\"']?\s*[:=]\s*[\"'][^\"']{6,}"
)
"""What a simple scanner does: a few forms in one expression, no check and no exception."""


async def measure(folder: Path) -> list[Figure]:
    """Speed on three kinds of text, each of a mebibyte, and of a stream in pieces of four kibibytes."""
    found = list[Figure]()
    for name, text in _texts().items():
        bare = _speed(lambda text=text: _BARE.sub("[REDACTED]", text), text)
        ours = _speed(lambda text=text: redact(text), text)
        found.append(Figure(f"redaction of {name}", ours, "MB/s", "one bare pattern", bare))
    text = _texts()["a log"]
    whole = _speed(lambda: redact(text), text)
    found.append(
        Figure("redaction of a stream in 4 KiB pieces", _speed(lambda: _streamed(text), text), "MB/s", "whole", whole)
    )
    return found


def _streamed(text: str) -> None:
    stream = RedactingStream()
    for at in range(0, len(text), 4096):
        stream.feed(text[at : at + 4096])
    stream.flush()


def _texts() -> dict[str, str]:
    root = Path(sysconfig.get_paths()["stdlib"])
    code = "".join(path.read_text(errors="replace") for path in sorted(root.glob("*.py"))[:80])[:MIB]
    line = "2026-01-02T03:04:05Z INFO [worker-{n}] request /api/stories/st-{n} took {n} ms, token ok\n"
    log = "".join(line.format(n=n) for n in range(15_000))[:MIB]
    planted = "".join(f"{log[at : at + 20_000]}\nexport TOKEN={SECRET}\n" for at in range(0, MIB, 20_000))[:MIB]
    rows = [{"path": f"src/m{n}.py", "text": "def f(x):\n    return x + 1\n", "size": n} for n in range(14_000)]
    return {
        "source code": code,
        "a log": log,
        "a log with secrets": planted,
        "one line of JSON": json.dumps(rows)[:MIB],
    }


def _speed(work: Callable[[], object], text: str) -> float:
    """Megabytes a second of processor time, the best of three."""
    times = list[float]()
    for _ in range(3):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return len(text.encode()) / 1e6 / min(times)
