"""The system-call filter in the form that container engines read (OCI and Docker JSON), from the table of `seccomp`.

libseccomp knows only comparisons that are joined by "and" over *different* arguments, on 64 bits; so "any of these
bits" becomes one rule per bit, and a number that the kernel cuts to 32 bits is compared under a mask. Calls that an
old libseccomp does not know are left out by the engine in silence: that is why the launcher inside puts the BPF form
on top of this one.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from fleet.sandbox.backends.bubblewrap.seccomp import CHECKED, DENIED, UNANSWERED, filter_bytes

_LOW = 0xFFFFFFFF
_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_NAMESPACE_BITS = tuple(1 << n for n in range(32) if 0x7E020000 & 1 << n)
_NEW_TIME = 0x80
_SETID_BITS = (0o4000, 0o2000)
_CREATE_BITS = (0x40, 0x400000)
_MODE_AT = {
    **dict.fromkeys(("chmod", "fchmod", "creat", "mkdir", "mknod"), 1),
    **dict.fromkeys(("fchmodat", "fchmodat2", "mkdirat", "mknodat"), 2),
}
"""Call -> which of its arguments is the mode."""
_HIDING = frozenset({"unshare", "mount"})

_Argument = dict[str, int | str]


def oci_profile(machine: str, *, lets_hide: bool = False) -> dict[str, Any]:
    """The profile for `--security-opt seccomp=FILE`; SandboxUnavailable for a machine type without a table.

    Args:
        lets_hide: the launcher inside has paths to hide before it puts the whole filter on top of this one.
    """
    filter_bytes(machine)  # refuses unknown machine types
    column = tuple(_ARCHITECTURES).index(machine)
    open_calls = _HIDING if lets_hide else frozenset[str]()
    rules = [_rule([n for n, row in DENIED.items() if row[column] is not None and n not in open_calls], errno.EPERM)]
    rules.append(_rule([n for n, row in UNANSWERED.items() if row[column] is not None], errno.ENOSYS))
    for name, row in CHECKED.items():
        if row[column] is not None and name not in open_calls:
            rules += [_rule([name], code, args) for code, args in _refusals(name)]
    return {"defaultAction": "SCMP_ACT_ALLOW", "architectures": [_ARCHITECTURES[machine]], "syscalls": rules}


def _rule(names: list[str], code: int, args: tuple[_Argument, ...] = ()) -> dict[str, Any]:
    return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": code, "args": list(args)}


def _refusals(name: str) -> Iterator[tuple[int, tuple[_Argument, ...]]]:
    """Error number and arguments of every rule that refuses this call."""
    match name:
        case "clone" | "unshare":
            bits = (*_NAMESPACE_BITS, *((_NEW_TIME,) if name == "unshare" else ()))
            yield from ((errno.EPERM, (_masked(0, bit, bit),)) for bit in bits)
        case "socket":
            yield from ((errno.EAFNOSUPPORT, args) for args in _foreign_sockets())
        case "socketpair":
            yield errno.EAFNOSUPPORT, (_compared(0, "SCMP_CMP_NE", 1),)
        case "ioctl":
            yield from ((errno.EPERM, (_masked(1, _LOW, number),)) for number in (0x5412, 0x541C))
        case "personality":
            yield from ((errno.EPERM, (args,)) for args in _mixed_bits(0))
        case "open" | "openat":
            at = 1 if name == "open" else 2
            for create in _CREATE_BITS:
                for bit in _SETID_BITS:
                    yield errno.EPERM, (_masked(at, create, create), _masked(at + 1, bit, bit))
        case _:
            yield from ((errno.EPERM, (_masked(_MODE_AT[name], bit, bit),)) for bit in _SETID_BITS)


def _foreign_sockets() -> Iterator[tuple[_Argument, ...]]:
    """All families but AF_UNIX, AF_INET, AF_INET6, and AF_NETLINK with another protocol than 0."""
    yield from ((_compared(0, "SCMP_CMP_EQ", family),) for family in range(16) if family not in (1, 2, 10))
    yield (_compared(0, "SCMP_CMP_GT", 16),)
    yield _compared(0, "SCMP_CMP_EQ", 16), _compared(2, "SCMP_CMP_NE", 0)


def _mixed_bits(index: int) -> Iterator[_Argument]:
    """Together true unless the low half is 0 or 0xffffffff: then a bit is set somewhere whose neighbour is not."""
    for n in range(32):
        bit, neighbour = 1 << n, 1 << (n + 1) % 32
        yield _masked(index, bit | neighbour, bit)


def _masked(index: int, mask: int, value: int) -> _Argument:
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def _compared(index: int, op: str, value: int) -> _Argument:
    return {"index": index, "value": value, "valueTwo": 0, "op": op}
