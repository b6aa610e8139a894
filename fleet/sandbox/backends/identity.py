"""Who a run is on the host: one unprivileged uid per concurrent run when we are root, else ourselves."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.kernel.errors import SandboxUnavailable

FIRST_UID = 61_000
UID_COUNT = 184
"""61000..61183 belong to nobody: the dynamic users of systemd begin at 61184."""
REPOSITORY_GID = FIRST_UID - 1
"""Group of runs that have a staged repository: a group of nobody else, as the users are."""

_LOCKS = Path("/run/swe-fleet/uids")
SHARED_STATE = Path("/var/lib/swe-fleet")
_OWNER = "home"


@dataclass(frozen=True, slots=True)
class Identity:
    """The host uid and gid of a run; `is_dropped` when they are not the supervisor's own."""

    uid: int
    gid: int
    is_dropped: bool


def is_root() -> bool:
    """True when this process may become another user."""
    return os.geteuid() == 0


@contextlib.contextmanager
def lease_identity(locks: Path = _LOCKS, *, first: Sequence[int] = (), only: bool = False) -> Generator[Identity]:
    """An identity that no other run of this machine has until the block ends, also across supervisors.

    Args:
        first: uids that are tried before the others; `only` tries no others.

    Raises:
        SandboxUnavailable: all uids are in use.
    """
    if not is_root():
        if only and os.geteuid() not in first:
            raise SandboxUnavailable(f"this process is user {os.geteuid()}, and none of {list(first)}", missing="uid")
        yield Identity(os.geteuid(), os.getegid(), is_dropped=False)
        return
    every = range(FIRST_UID, FIRST_UID + UID_COUNT)
    locks.mkdir(mode=0o700, parents=True, exist_ok=True)
    preferred = [uid for uid in first if uid in every]
    for uid in preferred if only else dict.fromkeys([*preferred, *every]):
        descriptor = os.open(locks / str(uid), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        try:
            yield Identity(uid, uid, is_dropped=True)
        finally:
            os.close(descriptor)
        return
    raise SandboxUnavailable(f"all {UID_COUNT} sandbox users are busy: wait until a run ends", missing="uid")


def is_reachable(path: Path, *, execute: bool = False) -> bool:
    """True when a user in no group of ours can open the path (and run it): every folder above it lets others pass."""
    try:
        real = path.resolve(strict=True)
        if any(not folder.stat().st_mode & stat.S_IXOTH for folder in real.parents):
            return False
        mode = real.stat().st_mode
    except OSError:
        return False
    bits = stat.S_IROTH | (stat.S_IXOTH if execute or stat.S_ISDIR(mode) else 0)
    return mode & bits == bits


def reachable_state_root(preferred: Path) -> Path:
    """Where a sandbox may keep its files: `preferred`, or a folder of the machine when we are root and it is hidden.

    A root supervisor drops to another user, and that user cannot pass a home directory of mode 0700. A folder of the
    machine says in its file `home` whose it is, so that a person knows what may go when a fleet is gone.
    """
    if not is_root():
        return preferred
    present = preferred.absolute()
    while not present.exists():
        present = present.parent
    if all(folder.stat().st_mode & stat.S_IXOTH for folder in (present.resolve(), *present.resolve().parents)):
        return preferred
    moved = SHARED_STATE / hashlib.sha256(os.fsencode(preferred.absolute())).hexdigest()[:16]
    if not (moved / _OWNER).is_file():
        # Where it cannot be written, the sandbox says so itself when it is built.
        with contextlib.suppress(OSError):
            _make_open(moved)
            (moved / _OWNER).write_bytes(os.fsencode(preferred.absolute()) + b"\n")
    return moved


def _make_open(folder: Path) -> None:
    if not folder.is_dir():
        _make_open(folder.parent)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)


def toolchain_root(state: Path) -> Path:
    """Where toolchains lie: one folder for all fleets of a machine when we are root, else with the sandbox's files.

    They are named after their content and take some 100 MB and seconds of work; nobody but root writes there.
    """
    if is_root():
        shared = SHARED_STATE / "toolchain"
        with contextlib.suppress(OSError):
            _make_open(shared)
            if os.access(shared, os.W_OK) and shared.stat().st_uid == 0 and is_reachable(shared):
                return shared
    return state / "toolchain"


def boot_id() -> str:
    """Names the present boot of this machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]


def process_name(pid: int) -> str:
    """`<pid>-<start ticks>-<boot>`: names one process of this machine for good, also after its pid is used again."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()
    return f"{pid}-{fields[19]}-{boot_id()}"


def is_alive(name: str) -> bool:
    """True while the process of this name lives; a name of another form belongs to nobody alive."""
    pid = name.partition("-")[0]
    try:
        return pid.isdecimal() and process_name(int(pid)) == name
    except OSError:
        return False
