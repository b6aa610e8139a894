"""A curve of throughput over what was added, and the place where adding more stops to pay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_PAYS = 0.5
"""What was added pays while at least this part of it is gained."""


@dataclass(frozen=True, slots=True)
class Point:
    """Stories a minute with so many council shards and replicas of each role, and how far each part was used."""

    shards: int
    replicas: int
    per_min: float
    use: Mapping[str, float]
    """Of each part that may hold the stories back, from 0 to 1."""
    own: float = 1.0
    """Of the time in which cores were at work: for this run, and not for other programs of the machine."""

    @property
    def limit(self) -> str:
        """The part that was used most."""
        return max(self.use, key=lambda name: self.use[name])

    @property
    def told(self) -> str:
        """How far each part was used, the most used first."""
        parts = sorted(self.use.items(), key=lambda part: -part[1])
        return ", ".join(f"{name} {share:.0%}" for name, share in parts) + f"; {self.own:.0%} of the work was ours"

    def grew_from(self, other: Point) -> float:
        """How many times as much of one thing there is as at the other point; 1 when they differ in both or none."""
        if self.shards == other.shards:
            return max(1.0, self.replicas / other.replicas)
        return max(1.0, self.shards / other.shards) if self.replicas == other.replicas else 1.0


@dataclass(frozen=True, slots=True)
class Bend:
    """The first point that gained less than half of what was added to the one before it on its line."""

    before: Point
    at: Point

    @property
    def added(self) -> float:
        """How many times as many shards, or replicas."""
        return self.at.grew_from(self.before)

    @property
    def gained(self) -> float:
        """How many times as many stories a minute."""
        return self.at.per_min / self.before.per_min

    @property
    def told(self) -> str:
        """What was added, what it brought, and what held the stories back."""
        what = "replicas" if self.at.shards == self.before.shards else "shards"
        return (
            f"{self.added:g} times the {what} gave {self.gained:.2f} times the stories: held back by {self.at.limit} "
            f"({self.at.told})"
        )


def bend(points: Sequence[Point]) -> Bend | None:
    """The bend of the curve, in the order in which the points were measured; None when everything added still paid."""
    for number, at in enumerate(points):
        smaller = [other for other in points[:number] if at.grew_from(other) > 1]
        nearest = min(smaller, key=at.grew_from, default=None)
        if nearest is not None and at.per_min / nearest.per_min - 1 < _PAYS * (at.grew_from(nearest) - 1):
            return Bend(nearest, at)
    return None
