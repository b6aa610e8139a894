"""The wish that a run ends, and why."""

from __future__ import annotations

from collections.abc import Callable

from fleet.policy.runs.spec import RunReason


class Stop:
    """A request to end a run; the first cause stays."""

    def __init__(self) -> None:
        self.cause: RunReason | None = None
        self.is_urgent = False
        """No grace: the command is killed at once."""
        self.listener: Callable[[], None] | None = None

    def request(self, cause: RunReason) -> None:
        """The run ends with `cause`, unless it was asked to end before."""
        if self.cause is None:
            self.cause = cause
            self._tell()

    def hurry(self, cause: RunReason) -> None:
        """The run ends at once; a cause that was there stays."""
        self.cause, self.is_urgent = self.cause or cause, True
        self._tell()

    def _tell(self) -> None:
        if self.listener is not None:
            self.listener()
