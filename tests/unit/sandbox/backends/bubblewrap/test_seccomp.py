"""The filter, run instruction by instruction on a small BPF machine, for both architectures."""

from __future__ import annotations

import errno
import platform
import struct

import pytest

from fleet.kernel.errors import SandboxUnavailable
from fleet.sandbox.backends.bubblewrap.seccomp import CHECKED, DENIED, UNANSWERED, UNCOUNTED, filter_bytes, host_filter

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL = "allow", "kill"
EPERM, ENOSYS, EAFNOSUPPORT = errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT


def answer(machine: str, number: int, *args: int, arch: int | None = None, counts_memory: bool = True) -> object:
    """What the filter says: ALLOW, KILL, or an errno."""
    data = struct.pack("<II", number, arch or AUDIT[machine]) + bytes(8)
    data += b"".join(struct.pack("<Q", a) for a in (*args, *(0,) * (6 - len(args))))
    raw = filter_bytes(machine, counts_memory=counts_memory)
    program = [struct.unpack_from("<HBBI", raw, at) for at in range(0, len(raw), 8)]
    at, accumulator = 0, 0
    while True:
        op, yes, no, value = program[at]
        at += 1
        if op == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif op == 0x06:
            return {0x7FFF0000: ALLOW, 0x80000000: KILL}.get(value, value & 0xFFFF)
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[op]
            at += yes if holds else no


def numbers(machine: str) -> dict[str, int]:
    column = ("x86_64", "aarch64").index(machine)
    rows = {**DENIED, **UNANSWERED, **{name: row[:2] for name, row in CHECKED.items()}}
    return {name: row[column] for name, row in rows.items() if row[column] is not None}  # type: ignore[misc]


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.rule("RC-31")
def test_filter_refuses_every_listed_call(machine: str) -> None:
    known = numbers(machine)

    assert {name: answer(machine, known[name]) for name in DENIED if name in known} == {
        name: EPERM for name in DENIED if name in known
    }
    assert {answer(machine, known[name]) for name in UNANSWERED} == {ENOSYS}


@pytest.mark.rule("RC-30", "RC-31")
def test_memory_of_no_process_is_refused_where_nothing_counts_it(machine: str) -> None:
    column = ("x86_64", "aarch64").index(machine)
    for numbers_of in UNCOUNTED.values():
        number = numbers_of[column]
        assert number is not None
        assert answer(machine, number) == ALLOW
        assert answer(machine, number, counts_memory=False) == ENOSYS
    assert answer(machine, numbers(machine)["ptrace"], counts_memory=False) == EPERM


def test_filter_allows_calls_it_does_not_know(machine: str) -> None:
    listed = set(numbers(machine).values())

    assert {answer(machine, n) for n in range(500) if n not in listed} == {ALLOW}


def test_filter_kills_another_architecture(machine: str) -> None:
    assert answer(machine, 0, arch=0x40000003) == KILL


def test_filter_answers_x32_numbers_with_enosys() -> None:
    assert answer("x86_64", 0x40000000 + 39) == ENOSYS


@pytest.mark.parametrize(
    ("call", "args", "expected"),
    [
        ("clone", (0x11,), ALLOW),
        ("clone", (0x3D0F00,), ALLOW),
        ("clone", (0x10000011,), EPERM),
        ("clone", (0x20011,), EPERM),
        ("unshare", (0x400,), ALLOW),
        ("unshare", (0x80,), EPERM),
        ("socket", (1, 1), ALLOW),
        ("socket", (2, 1), ALLOW),
        ("socket", (10, 2), ALLOW),
        ("socket", (16, 3, 0), ALLOW),
        ("socket", (16, 3, 9), EAFNOSUPPORT),
        ("socket", (40, 1), EAFNOSUPPORT),
        ("socketpair", (1,), ALLOW),
        ("socketpair", (2,), EAFNOSUPPORT),
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), EPERM),
        ("ioctl", (0, 0x541C), EPERM),
        ("ioctl", (0, 0xF_0000_5412), EPERM),
        ("personality", (0,), ALLOW),
        ("personality", (0xFFFFFFFF,), ALLOW),
        ("personality", (0x40000,), EPERM),
        ("fchmod", (3, 0o755), ALLOW),
        ("fchmod", (3, 0o4755), EPERM),
        ("fchmodat", (3, 0, 0o2755), EPERM),
        ("fchmodat2", (3, 0, 0o2755), EPERM),
        ("mkdirat", (3, 0, 0o755), ALLOW),
        ("mkdirat", (3, 0, 0o2755), EPERM),
        ("mknodat", (3, 0, 0o104755), EPERM),
        ("openat", (3, 0, 0, 0o4755), ALLOW),
        ("openat", (3, 0, 0x41, 0o644), ALLOW),
        ("openat", (3, 0, 0x41, 0o4755), EPERM),
        ("openat", (3, 0, 0x410000, 0o4755), EPERM),
    ],
)
def test_filter_decides_by_argument(machine: str, call: str, args: tuple[int, ...], expected: object) -> None:
    assert answer(machine, numbers(machine)[call], *args) == expected


@pytest.mark.parametrize(
    ("call", "args"),
    [
        ("open", (0, 0x40, 0o4755)),
        ("creat", (0, 0o4755)),
        ("chmod", (0, 0o2755)),
        ("mkdir", (0, 0o2755)),
        ("mknod", (0, 0o4000)),
    ],
)
def test_filter_refuses_set_id_bits_in_the_old_calls(call: str, args: tuple[int, ...]) -> None:
    assert answer("x86_64", numbers("x86_64")[call], *args) == EPERM


def test_filter_of_an_unknown_machine_is_refused() -> None:
    with pytest.raises(SandboxUnavailable, match="riscv64"):
        filter_bytes("riscv64")


def test_filter_of_this_machine_is_one_of_the_two() -> None:
    assert host_filter() == filter_bytes(platform.machine())
