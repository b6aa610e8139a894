"""Compression of long sessions: tokens that go and what survives, on generated sessions and on recorded stories.

COMPRESSION_MODEL=PROFILE asks a real model for its words too: an engine of config/models.yaml, such as `local` or
`openai` with its address in the environment. COMPRESSION_SESSIONS says of how many sessions (default 8).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks import compression_words
from benchmarks.figures import Figure
from benchmarks.sessions import LongSession, found_in, generated, recorded
from fleet.context.compress import compress, with_prose

SCRIPTED = (
    "The first way was given up because it was slow. The second one was measured, kept, and reviewed twice. "
    "What is open is named below; nothing else stands in the way."
)
"""What a model says of any session: words of its own, and no fact (CX-53)."""
SIZES = (8_000, 20_000, 50_000, 200_000)
PER_SIZE = 5


async def measure(folder: Path) -> list[Figure]:
    """Share of tokens that went, the least recall of what was planted and never shown to the compressor, and speed."""
    profile = os.environ.get("COMPRESSION_MODEL")
    asked = compression_words.agents(profile) if profile else None
    groups = {f"generated, {size} tokens": [generated(n, tokens=size) for n in range(PER_SIZE)] for size in SIZES}
    groups |= {f"recorded story {name}": [recorded(name)] for name in ("demo", "inflection")}
    figures = [figure for name, sessions in groups.items() for figure in _measured(name, sessions)]
    if profile is None or asked is None:
        return figures
    sessions = sessions_of_words(max(1, int(os.environ.get("COMPRESSION_SESSIONS", "8"))))
    return figures + await compression_words.measure(asked, profile, sessions)


def sessions_of_words(count: int) -> list[LongSession]:
    """So many sessions that a model is asked about: the recorded stories, and generated ones from the shortest on."""
    made = [generated(100 + n, tokens=SIZES[n % 3]) for n in range(max(0, count - 2))]
    return [recorded("demo"), recorded("inflection"), *made][:count]


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
