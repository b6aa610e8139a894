"""The system-call filter as BPF bytes, built by hand from one table for both architectures.

A deny-list: builds and tests need a wide surface, and the network is already gone by namespace.

Source: docs/design/sandbox.md, section 4.
"""

from __future__ import annotations

import errno
import functools
import platform
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from fleet.kernel.errors import SandboxUnavailable

_X86, _ARM = "x86_64", "aarch64"
_AUDIT_ARCH = {_X86: 0xC000003E, _ARM: 0xC00000B7}

DENIED: dict[str, tuple[int | None, int | None]] = {
    # other processes
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    # mounts and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    # the machine
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    "_sysctl": (156, None),
    "vhangup": (153, 58),
    "nfsservctl": (180, 42),
    # kernel surface
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "lookup_dcookie": (212, 18),
    "syslog": (103, 116),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "open_by_handle_at": (304, 265),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "vmsplice": (278, 75),
    "memfd_secret": (447, 447),
}
"""Call -> its number on x86_64 and aarch64 (None: it does not exist there); answered with EPERM."""

UNANSWERED: dict[str, tuple[int | None, int | None]] = {
    "clone3": (435, 435),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "openat2": (437, 437),
}
"""Answered with ENOSYS, so that runtimes fall back: a filter cannot read what their arguments point to."""

UNCOUNTED: dict[str, tuple[int | None, int | None]] = {
    "memfd_create": (319, 279),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
}
"""Memory that belongs to no process: a watchdog does not see it. Answered with ENOSYS where no cgroup counts it."""

_NAMESPACES = 0x7E020000
_NEW_TIME = 0x80
_SETID_BITS = 0o6000
_CREATES = 0x40 | 0x400000  # O_CREAT, __O_TMPFILE: the same numbers on both architectures


@dataclass
class _Program:
    """Instructions whose jumps go forward to named labels."""

    code: list[tuple[int, str | int, str | int, int]] = field(
        default_factory=list[tuple[int, str | int, str | int, int]]
    )
    labels: dict[str, int] = field(default_factory=dict[str, int])

    def label(self, name: str) -> None:
        self.labels[name] = len(self.code)

    def load(self, offset: int) -> None:
        self.code.append((0x20, 0, 0, offset))

    def load_arg(self, index: int) -> None:
        self.load(16 + 8 * index)  # the low half: little-endian on both architectures

    def jump(self, op: int, value: int, yes: str | int, no: str | int) -> None:
        self.code.append((op, yes, no, value))

    def equal(self, value: int, yes: str | int, no: str | int = 0) -> None:
        self.jump(0x15, value, yes, no)

    def any_bit(self, bits: int, yes: str | int, no: str | int = 0) -> None:
        self.jump(0x45, bits, yes, no)

    def answer(self, value: int) -> None:
        self.code.append((0x06, 0, 0, value))

    def assemble(self) -> bytes:
        def distance(target: str | int, at: int) -> int:
            steps = target if isinstance(target, int) else self.labels[target] - at - 1
            assert 0 <= steps < 256, (target, at, steps)
            return steps

        return b"".join(
            struct.pack("<HBBI", op, distance(yes, i), distance(no, i), value)
            for i, (op, yes, no, value) in enumerate(self.code)
        )


def _flags(forbidden: int) -> Callable[[_Program], None]:
    def check(p: _Program) -> None:
        p.load_arg(0)
        p.any_bit(forbidden, "eperm", "allow")

    return check


def _mode(index: int) -> Callable[[_Program], None]:
    def check(p: _Program) -> None:
        p.load_arg(index)
        p.any_bit(_SETID_BITS, "eperm", "allow")

    return check


def _open(flags: int) -> Callable[[_Program], None]:
    def check(p: _Program) -> None:
        p.load_arg(flags)
        p.any_bit(_CREATES, 0, "allow")
        p.load_arg(flags + 1)
        p.any_bit(_SETID_BITS, "eperm", "allow")

    return check


def _socket(p: _Program) -> None:
    p.load_arg(0)
    for family in (1, 2, 10):  # AF_UNIX, AF_INET, AF_INET6
        p.equal(family, "allow")
    p.equal(16, 0, "eafnosupport")  # AF_NETLINK, for getifaddrs: protocol 0 alone
    p.load_arg(2)
    p.equal(0, "allow", "eafnosupport")


def _socketpair(p: _Program) -> None:
    p.load_arg(0)
    p.equal(1, "allow", "eafnosupport")


def _ioctl(p: _Program) -> None:
    p.load_arg(1)
    p.equal(0x5412, "eperm")  # TIOCSTI
    p.equal(0x541C, "eperm", "allow")  # TIOCLINUX


def _personality(p: _Program) -> None:
    p.load_arg(0)
    p.equal(0, "allow")
    p.equal(0xFFFFFFFF, "allow", "eperm")


CHECKED: dict[str, tuple[int | None, int | None, Callable[[_Program], None]]] = {
    "clone": (56, 220, _flags(_NAMESPACES)),
    "unshare": (272, 97, _flags(_NAMESPACES | _NEW_TIME)),
    "socket": (41, 198, _socket),
    "socketpair": (53, 199, _socketpair),
    "ioctl": (16, 29, _ioctl),
    "personality": (135, 92, _personality),
    "chmod": (90, None, _mode(1)),
    "fchmod": (91, 52, _mode(1)),
    "fchmodat": (268, 53, _mode(2)),
    "fchmodat2": (452, 452, _mode(2)),
    "creat": (85, None, _mode(1)),
    "mkdir": (83, None, _mode(1)),
    "mkdirat": (258, 34, _mode(2)),
    "mknod": (133, None, _mode(1)),
    "mknodat": (259, 33, _mode(2)),
    "open": (2, None, _open(1)),
    "openat": (257, 56, _open(2)),
}
"""Calls that are allowed or refused by an argument that a filter can read."""


@functools.cache
def filter_bytes(machine: str, *, counts_memory: bool = True) -> bytes:
    """The filter for `x86_64` or `aarch64` as an array of `struct sock_filter`.

    Args:
        counts_memory: a cgroup counts all memory; without one the calls of `UNCOUNTED` are refused.

    Raises:
        SandboxUnavailable: another machine type; nothing ever runs without a filter.
    """
    if machine not in _AUDIT_ARCH:
        raise SandboxUnavailable(
            f"there is no system-call filter for machine type {machine!r}: use a container backend",
            missing="seccomp",
            machine=machine,
        )
    column = (_X86, _ARM).index(machine)
    program = _Program()
    program.load(4)
    program.equal(_AUDIT_ARCH[machine], 0, "kill")
    program.load(0)
    if machine == _X86:
        program.jump(0x35, 0x40000000, "enosys", 0)  # x32 numbers
    _table(program, DENIED, column, "eperm")
    _table(program, UNANSWERED if counts_memory else {**UNANSWERED, **UNCOUNTED}, column, "enosys")
    checked = {name: row for name, row in CHECKED.items() if row[column] is not None}
    for name, row in checked.items():
        program.equal(_number(row[column]), name)
    program.jump(0x15, 0, "allow", "allow")
    for name, row in checked.items():
        program.label(name)
        row[2](program)
    for name, value in _ANSWERS.items():
        program.label(name)
        program.answer(value)
    return program.assemble()


_ANSWERS = {
    "allow": 0x7FFF0000,
    "kill": 0x80000000,
    "eperm": 0x00050000 | errno.EPERM,
    "enosys": 0x00050000 | errno.ENOSYS,
    "eafnosupport": 0x00050000 | errno.EAFNOSUPPORT,
}


def _table(program: _Program, rows: dict[str, tuple[int | None, int | None]], column: int, answer: str) -> None:
    for row in rows.values():
        if row[column] is not None:
            program.equal(_number(row[column]), answer)


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


def host_filter(*, counts_memory: bool = True) -> bytes:
    """The filter of the machine we run on (see `filter_bytes`); SandboxUnavailable when there is none for it."""
    return filter_bytes(platform.machine(), counts_memory=counts_memory)
