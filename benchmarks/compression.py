"""Compression of long sessions: tokens that go and what survives, on generated sessions and on recorded stories."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.sessions import LongSession, found_in, generated, recorded
from fleet.context import compress, with_prose

__all__ = ["measure"]

SCRIPTED = (
    "The first way was given up because it was slow. The second one was measured, kept, and reviewed twice. "
    "What is open is named below; nothing else stands in the way."
)
"""What a model says of any session: words of its own, and no fact (CX-53)."""
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
    told = [with_prose(r, s.turns, SCRIPTED) for s, r in zip(sessions, results, strict=True)]
    used = [(one, session) for one, session in zip(told, sessions, strict=True) if one is not None]
    kept = min((share for one, session in used for share in found_in(one.text, session).values()), default=0.0)
    words = f"with the words of a scripted model in {len(used)} of {len(results)} summaries"
    before, after = sum(r.tokens_before for r in results), sum(r.tokens_after for r in results)
    return [
        Figure(f"compression, {name}: tokens gone, least", 100 * ratio, "%", note=f"{before} to {after} tokens"),
        Figure(f"compression, {name}: facts that survive, least", 100 * recall, "%", note="recall set of its own"),
        Figure(f"compression, {name}: facts that survive beside a model's words, least", 100 * kept, "%", note=words),
        Figure(f"compression, {name}: speed", before / 1000 / seconds, "ktok/s"),
    ]
