# ruff: noqa: PTH123, PTH208, PTH108
# Raw descriptors and system calls are what is probed.
"""Probes that run inside a sandbox and say on standard output, as one JSON object, which containment checks hold.

Argument: a JSON object `{token, environment, secret_path, decoy_port, decoy_socket, pids, file_bytes}`.
Exits with 7 (check 00). Standard library alone.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_READ_ONLY = (
    *("/", "/etc", "/usr", "/usr/bin", "/usr/local", "/usr/lib", "/bin", "/lib", "/sbin", "/opt", "/boot", "/root"),
    *("/home", "/var", "/var/lib", "/var/log", "/srv", "/mnt", "/media", "/sys", "/sys/fs/cgroup", "/sys/kernel"),
    *("/proc", "/proc/sys", "/dev", "/fleet/inside", "/toolchain"),
)
_ABSENT = (
    *("/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock", "/run/dbus/system_bus_socket"),
    *("/tmp/ray", "/root/.ssh", "/var/run/secrets/kubernetes.io/serviceaccount/token", "/etc/shadow"),
    "/proc/1/root/etc/shadow",
)
_KERNEL_WRITES = (
    *("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/printk", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger"),
    *("/proc/sys/kernel/modprobe", "/proc/sys/fs/binfmt_misc/register", "/sys/kernel/uevent_helper"),
    "/sys/fs/cgroup/cgroup.procs",
)
_KERNEL_READS = (
    *("/proc/kcore", "/proc/kmsg", "/proc/kallsyms", "/proc/keys", "/proc/cmdline", "/proc/config.gz"),
    "/proc/interrupts",
)
_FAMILIES = {"VSOCK": 40, "ALG": 38, "PACKET": 17, "KEY": 15, "CAN": 29, "BLUETOOTH": 31, "TIPC": 30, "XDP": 44}
_NEW_NAMESPACES = {"user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "net": 0x40000000, "ipc": 0x8000000}


def _opens(path: str, flags: int) -> bool:
    try:
        os.close(os.open(path, flags))
    except OSError:
        return False
    return True


def _reads(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return bool(file.read(1))
    except OSError:
        return False


def check_controls(_: Mapping[str, Any]) -> str:
    with open("/workspace/.preflight", "w") as file:
        file.write("x")
    os.unlink("/workspace/.preflight")
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), 2).close()
    return ""


def check_read_only(_: Mapping[str, Any]) -> str:
    made = [d for d in _READ_ONLY if _opens(f"{d}/.preflight", os.O_CREAT | os.O_WRONLY)]
    return f"could write to {' '.join(made)}" if made else ""


def check_absent(given: Mapping[str, Any]) -> str:
    seen = [p for p in (*_ABSENT, given["secret_path"]) if os.path.lexists(p)]
    return f"sees {' '.join(seen)}" if seen else ""


def check_environment(given: Mapping[str, Any]) -> str:
    foreign = set(given["environment"])
    leaks: list[str] = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                entries = file.read().split(b"\0")
        except OSError:
            continue
        hashes = {hashlib.sha256(given["token"].encode() + e).hexdigest()[:16] for e in entries if e}
        if hashes & foreign or (pid == "1" and hashes):
            leaks.append(pid)
    return f"environment of the supervisor in process {' '.join(leaks)}" if leaks else ""


def check_kernel_files(_: Mapping[str, Any]) -> str:
    bad = [p for p in _KERNEL_WRITES if _opens(p, os.O_WRONLY)] + [p for p in _KERNEL_READS if _reads(p)]
    return f"could open {' '.join(bad)}" if bad else ""


def check_privileges(_: Mapping[str, Any]) -> str:
    with open("/proc/self/status") as file:
        status = {k: v.strip() for k, _, v in (line.partition(":") for line in file)}
    wrong = [name for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if int(status[name], 16)]
    wrong += [name for name, value in (("NoNewPrivs", "1"), ("Seccomp", "2")) if status.get(name) != value]
    if os.getuid() == 0:
        wrong.append("uid")
    return f"privileges are left: {' '.join(wrong)}" if wrong else ""


def check_namespaces(_: Mapping[str, Any]) -> str:
    made = [name for name, flag in _NEW_NAMESPACES.items() if _libc.unshare(flag) == 0]
    return f"could make namespaces: {' '.join(made)}" if made else ""


def check_sockets(_: Mapping[str, Any]) -> str:
    made: list[str] = []
    for name, family in _FAMILIES.items():
        descriptor = _libc.socket(family, 2, 0)
        if descriptor >= 0 or ctypes.get_errno() != errno.EAFNOSUPPORT:
            made.append(name)
    return f"socket families answered: {' '.join(made)}" if made else ""


def check_decoys(given: Mapping[str, Any]) -> str:
    reached: list[str] = []
    for address in ("127.0.0.1", "127.1.2.3"):
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((address, given["decoy_port"])) == 0:
                reached.append(address)
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex("\0" + given["decoy_socket"]) == 0:
            reached.append("abstract unix socket")
    return f"reached the host at {', '.join(reached)}" if reached else ""


def check_egress(_: Mapping[str, Any]) -> str:
    with socket.socket() as probe:
        probe.settimeout(1)
        code = probe.connect_ex(("192.0.2.1", 80))
    return (
        "" if code in (errno.ENETUNREACH, errno.EHOSTUNREACH) else f"connect outside gave {errno.errorcode.get(code)}"
    )


def check_processes(given: Mapping[str, Any]) -> str:
    children: list[int] = []
    limit = given["pids"] + 8
    try:
        while len(children) < limit:
            pid = os.fork()
            if pid == 0:
                signal.pause()
            children.append(pid)
    except OSError:
        pass
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return f"could fork {len(children)} times under a limit of {given['pids']}" if len(children) >= limit else ""


def check_file_size(given: Mapping[str, Any]) -> str:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open("/workspace/.preflight", "wb") as file:
        try:
            os.pwrite(file.fileno(), b"x", given["file_bytes"])
        except OSError as error:
            return "" if error.errno == errno.EFBIG else f"a large file gave {error}"
        finally:
            os.unlink("/workspace/.preflight")
    return f"could write beyond {given['file_bytes']} bytes"


def check_open_files(_: Mapping[str, Any]) -> str:
    held: list[int] = []
    try:
        while len(held) < 5000:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        if error.errno != errno.EMFILE:
            return f"descriptors ended with {error}"
    finally:
        for descriptor in held:
            os.close(descriptor)
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):
        return "core files are allowed"
    return "" if 4000 < len(held) < 4097 else f"could open {len(held)} files under a limit of 4096"


def leave_daemon(_: Mapping[str, Any]) -> str:
    """A process that outlives its parents, ignores what it can and stops itself: it is looked for afterwards."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    return ""


CHECKS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "00": check_controls,
    "01": check_read_only,
    "02": check_absent,
    "13": check_environment,
    "16": check_kernel_files,
    "17": check_privileges,
    "21": check_namespaces,
    "25": check_sockets,
    "27": check_decoys,
    "egress": check_egress,
    "12": check_file_size,
    "33": check_open_files,
    "30": check_processes,
    "36": leave_daemon,
}


def main() -> int:
    given = json.loads(sys.argv[1])
    answers: dict[str, str] = {}
    for check, probe in CHECKS.items():
        try:
            answers[check] = probe(given)
        except Exception as error:  # a probe that breaks is a check that does not hold
            answers[check] = f"the probe broke: {error!r}"
    sys.stdout.write(json.dumps(answers))
    return 7


if __name__ == "__main__":
    sys.exit(main())
