"""Compression of long sessions: tokens that go and what survives, on generated sessions and on recorded stories."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.sessions import LongSession, found_in, generated, recorded
from fleet.context import compress

__all__ = ["measure"]

SIZES = (8_000, 20_000, 50_000, 200_000)
PER_SIZE = 5


async def measure(folder: Path) -> list[Figure]:
    """Share of tokens that went, the least recall of what was planted and never shown to the compressor, and speed."""
    groups = {f"generated, {size} tokens": [generated(n, tokens=size) for n in range(PER_SIZE)] for size in SIZES}
    groups |= {f"recorded story {name}": [recorded(name)] for name in ("demo", "inflection")}
    return [figure for name, sessions in groups.items() for figure in _measured(name, sessions)]


def _measured(name: str, sessions: list[LongSession]) -> list[Figure]:
    started = time.perf_counter()
    results = [compress(session.turns) for session in sessions]
    seconds = time.perf_counter() - started
    ratio = min(result.ratio for result in results)
    recall = min(share for s, r in zip(sessions, results, strict=True) for share in found_in(r.text, s).values())
    before, after = sum(r.tokens_before for r in results), sum(r.tokens_after for r in results)
    return [
        Figure(f"compression, {name}: tokens gone, least", 100 * ratio, "%", note=f"{before} to {after} tokens"),
        Figure(f"compression, {name}: facts that survive, least", 100 * recall, "%", note="recall set of its own"),
        Figure(f"compression, {name}: speed", before / 1000 / seconds, "ktok/s"),
    ]
