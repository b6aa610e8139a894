"""What a builder of packs did since it began, by project; in memory alone, so a restart forgets it (AP-99)."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from fleet.ports import PackActivity

__all__ = ["PackTally"]

_TIMED = 512
"""Packs of each project whose time is remembered."""
_PROJECTS = 1000


@dataclass(slots=True)
class _Project:
    queries: int = 0
    hits: int = 0
    times_ms: deque[int] = field(default_factory=lambda: deque[int](maxlen=_TIMED))


class PackTally:
    """Counts packs; of more than a thousand projects those that asked last."""

    def __init__(self, *, since_ms: int) -> None:
        self._since_ms = since_ms
        self._projects: OrderedDict[str, _Project] = OrderedDict()

    def gave(self, project_id: str, *, hit: bool, took_ms: int) -> None:
        """A pack of a story of this project was given."""
        one = self._projects.setdefault(project_id, _Project())
        self._projects.move_to_end(project_id)
        one.queries += 1
        one.hits += hit
        one.times_ms.append(took_ms)
        while len(self._projects) > _PROJECTS:
            self._projects.popitem(last=False)

    def activity(self, projects: frozenset[str] | None) -> PackActivity:
        """The sum over these projects, None for all."""
        chosen = [one for name, one in self._projects.items() if projects is None or name in projects]
        times = sorted(ms for one in chosen for ms in one.times_ms)
        return PackActivity(
            since_ms=self._since_ms,
            queries=sum(one.queries for one in chosen),
            hits=sum(one.hits for one in chosen),
            # The smallest time that 95 of 100 packs did not exceed.
            p95_ms=times[-(-len(times) * 95 // 100) - 1] if times else None,
        )
