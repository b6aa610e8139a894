"""Which process is meant: a pid alone is reused, a pid with its start time and boot is not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

_PROC = Path("/proc")
_LISTEN = "0A"


class ProcessIdentity(BaseModel):
    """One process of one boot of this machine; two processes never share it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    """The kernel's number, reused after death."""
    started_ticks: int
    """Clock ticks between boot and the start of the process (field 22 of /proc/PID/stat)."""
    boot_id: str
    """The kernel's random id of this boot."""

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """The identity of a live process; None when there is none, or only a zombie."""
        started = _started_ticks(pid)
        return None if started is None else cls(pid=pid, started_ticks=started, boot_id=_boot_id())

    @classmethod
    def of_self(cls) -> ProcessIdentity:
        """The identity of the calling process."""
        found = cls.of(os.getpid())
        assert found is not None, "/proc knows every live process"
        return found

    @property
    def is_alive(self) -> bool:
        """True while exactly this process lives."""
        return ProcessIdentity.of(self.pid) == self

    def send(self, number: signal.Signals) -> bool:
        """The signal is sent if exactly this process still lives; False when it does not."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            # The handle is taken first, the identity checked second: the pid cannot be reused in between.
            if not self.is_alive:
                return False
            signal.pidfd_send_signal(handle, number)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)

    def end(self, *, grace_s: float) -> bool:
        """Exactly this process is gone: SIGTERM, then SIGKILL after `grace_s`; True when it had to be signalled."""
        if not self.send(signal.SIGTERM):
            return False
        if not self.wait_gone(grace_s):
            self.send(signal.SIGKILL)
            self.wait_gone(5.0)
        return True

    def wait_gone(self, within_s: float) -> bool:
        """True when this process is gone, looked at until `within_s` have passed; a zombie counts as gone."""
        deadline = time.monotonic() + within_s
        while self.is_alive:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


def _boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def _started_ticks(pid: int) -> int | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name stands in parentheses and may hold spaces and parentheses itself: count from the last one.
    state, *rest = text.rpartition(")")[2].split()
    return None if state in {"Z", "X"} else int(rest[18])


def descendants(pid: int) -> list[ProcessIdentity]:
    """All live processes below this one, parents before children."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and (parent := _parent(int(entry.name))) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for above in found:
        found.extend(children.get(above, []))
    identities = (ProcessIdentity.of(one) for one in found[1:])
    return [identity for identity in identities if identity is not None]


def end_all(processes: Iterable[ProcessIdentity], *, grace_s: float) -> int:
    """None of these processes lives: SIGTERM to all, SIGKILL to those left after `grace_s`; returns how many lived."""
    living = [process for process in processes if process.send(signal.SIGTERM)]
    deadline = time.monotonic() + grace_s
    for process in living:
        if not process.wait_gone(max(0.0, deadline - time.monotonic())):
            process.send(signal.SIGKILL)
            process.wait_gone(5.0)
    return len(living)


def _parent(pid: int) -> int | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[1])


def listening_ports(pid: int) -> frozenset[int]:
    """TCP ports on which this process listens (IPv4 and IPv6); empty when it is gone or not ours to see."""
    try:
        links = [str(fd.readlink()) for fd in (_PROC / str(pid) / "fd").iterdir() if fd.is_symlink()]
        tables = [(_PROC / str(pid) / "net" / name).read_text() for name in ("tcp", "tcp6")]
    except OSError:
        return frozenset()
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return frozenset(int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _LISTEN and row[9] in inodes)
