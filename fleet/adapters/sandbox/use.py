"""What the processes of one sandbox use, sampled while they live, and which limit that is over."""

from __future__ import annotations

from fleet.adapters.sandbox.cgroups import Cgroup
from fleet.adapters.sandbox.limits import Sample, sample_processes
from fleet.tools import Limits, RunReason, Usage

__all__ = ["UseWatch"]

_FULL_SAMPLES = 8


class UseWatch:
    """Peaks of all samples; the cgroup's own counters too where there is one.

    Args:
        cgroup: of this run; None where none can be made.
    """

    def __init__(self, limits: Limits, cgroup: Cgroup | None) -> None:
        self._limits, self._cgroup = limits, cgroup
        self._peak = Sample(0, 0, 0)
        self._full_samples = 0

    def sample(self, first: int) -> RunReason | None:
        """Look at the processes below `first` now; the limit that they are over, or None.

        Being full for a moment is no offence: only so many full samples in a row end a run as `pids_limit`.
        """
        sample = sample_processes(first)
        self._peak = Sample(*(max(pair) for pair in zip(self._peak, sample, strict=True)))
        self._full_samples = self._full_samples + 1 if sample.processes >= self._limits.pids else 0
        if sample.memory_bytes > self._limits.memory_bytes or self.was_oom_killed:
            return "oom_killed"
        return "pids_limit" if self._full_samples >= _FULL_SAMPLES else None

    @property
    def was_oom_killed(self) -> bool:
        """The kernel killed a process for the memory limit of the run's cgroup."""
        return self._cgroup is not None and self._cgroup.oom_kills() > 0

    @property
    def was_full(self) -> bool:
        """The run had as many processes as it may have."""
        refused = self._cgroup.refused_forks() if self._cgroup is not None else 0
        return self._peak.processes >= self._limits.pids or refused > 0

    def usage(self, *, wall_ms: int) -> Usage:
        """What the run used, as its result says it."""
        charged = self._cgroup.peak_memory() if self._cgroup is not None else 0
        return Usage(
            wall_ms=wall_ms,
            cpu_ms=self._peak.cpu_ms,
            max_memory_bytes=max(self._peak.memory_bytes, charged),
            max_pids=self._peak.processes,
        )
