"""What every store of checkpoints says alike."""

from __future__ import annotations

from fleet.kernel.errors import LogCorrupted, VersionConflict


def not_next(sequence: int, *, last: int) -> VersionConflict:
    """The error for a checkpoint whose number is taken, or is not the next one."""
    return VersionConflict(
        f"checkpoint {sequence} cannot be stored, the last one is {last}: another notary was first; read it and go on",
        expected=sequence - 1,
        actual=last,
    )


def another(sequence: int) -> LogCorrupted:
    """The error for an exported checkpoint whose number another one has."""
    return LogCorrupted(
        f"another checkpoint {sequence} was exported before: run `fleet audit verify` and keep both",
        sequence=sequence,
    )
