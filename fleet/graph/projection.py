"""Which projection of the log readers see, and how a new one takes its place (GR-7, GR-32)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from fleet.graph.schema import PROJECTION_VERSION


class Spare(StrEnum):
    """What the place beside the active projection holds."""

    EMPTY = "empty"
    BUILDING = "building"
    """The wanted projection, as far as it is built."""
    DIRTY = "dirty"
    """What is left of a projection that nobody reads any more."""


class Comparison(StrEnum):
    """What the digests said when the active projection took its place."""

    FIRST = "first"
    """There was none before it."""
    EQUAL = "equal"
    DIFFERENT = "different"
    IMPOSSIBLE = "impossible"
    """The two never stood at the same versions of the same streams, as after a log that went back."""


@dataclass(frozen=True, slots=True)
class ProjectionState:
    """The one pointer. Numbers only grow; two places are enough, since only neighbours exist at the same time.

    `version` is that of the rules which the active projection was built by, `spare_version` that of the other place.
    """

    active: int = 1
    wanted: int = 1
    spare: Spare = Spare.EMPTY
    version: int = PROJECTION_VERSION
    spare_version: int = PROJECTION_VERSION
    comparison: Comparison = Comparison.FIRST

    @property
    def is_rebuild_wanted(self) -> bool:
        """Whether another projection is to take the place of the active one."""
        return self.wanted != self.active

    def takes(self, number: int) -> bool:
        """Whether changes may be applied to the projection of this number."""
        return number == self.active or (number == self.wanted and self.spare is Spare.BUILDING)

    def asked(self) -> ProjectionState:
        """A rebuild is wanted; asking again asks for nothing more."""
        return replace(self, wanted=self.active + 1)

    def begun(self, version: int) -> ProjectionState:
        """The wanted projection is built beside the active one, by the rules of this version."""
        assert self.is_rebuild_wanted
        assert self.spare is Spare.EMPTY
        return replace(self, spare=Spare.BUILDING, spare_version=version)

    def abandoned(self) -> ProjectionState:
        """What was built so far is of no use; the rebuild starts anew."""
        assert self.spare is Spare.BUILDING
        return replace(self, spare=Spare.DIRTY)

    def switched(self, comparison: Comparison) -> ProjectionState:
        """Readers see what was built; what they saw before is to be dropped."""
        assert self.spare is Spare.BUILDING
        return replace(
            self,
            active=self.wanted,
            spare=Spare.DIRTY,
            version=self.spare_version,
            spare_version=self.version,
            comparison=comparison,
        )

    def cleared(self) -> ProjectionState:
        """The place beside the active projection is empty."""
        assert self.spare is Spare.DIRTY
        return replace(self, spare=Spare.EMPTY)
