"""The preflight: what the sandbox really holds on this machine, found by trying.

Source: docs/design/sandbox.md, sections 11 and 12.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import socket
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from fleet.policy.runs.spec import Limits, RunResult
from fleet.sandbox.backends.bubblewrap.launch import FIXED_ENV
from fleet.sandbox.backends.bubblewrap.limits import MECHANISMS
from fleet.sandbox.port import SandboxHealth

PROBE_LIMITS = Limits(overall_s=20, idle_s=20, memory_bytes=256 << 20, pids=32, disk_bytes=16 << 20, file_bytes=1 << 20)
LIMITS_PROBE_LIMITS = Limits(
    overall_s=20, idle_s=20, memory_bytes=64 << 20, pids=32, disk_bytes=16 << 20, cpu_millis=300
)
"""Of the run that uses more processor time and more memory than it may."""
_SLACK_MS = 150

_ITEMS = {
    "00": "controls",
    "01": "read_only_system",
    "02": "hidden_host_files",
    "13": "hidden_environment",
    "16": "kernel_files",
    "17": "privileges",
    "21": "namespaces",
    "25": "socket_families",
    "27": "hidden_host_services",
    "egress": "egress_denied",
    "12": "file_size",
    "30": "pids",
    "33": "open_files",
    "36": "kill_all",
}

_LIMIT_ITEMS = {"31": "memory", "cpu": "cpu"}

_MENDS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("setting up uid map", "RTM_NEWADDR", "loopback:"),
        "AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns=1): give this bubblewrap an "
        "AppArmor profile with `userns,`, or install the system's package bubblewrap, which has one",
    ),
    (
        ("No permissions to create", "Creating new namespace failed", "Operation not permitted"),
        "user namespaces are refused: set sysctl kernel.unprivileged_userns_clone=1 and user.max_user_namespaces above "
        "0; "
        "inside a container use a seccomp profile that permits user namespaces, or run the fleet outside of it",
    ),
    (
        ("No space left on device", "max_user_namespaces"),
        "user namespaces are used up or off: raise sysctl user.max_user_namespaces",
    ),
    (
        ("proc",),
        "the container masks /proc: start it with an unmasked /proc, or use another backend; never bind the host's",
    ),
    (("prlimit",), "/usr/bin/prlimit is missing: install the system's package util-linux"),
)
_MEND_BY_CHECK = {
    "00": "the sandbox breaks ordinary programs: see the probe's message; is the disk of the state root full?",
    "02": "a file of the host is visible: report it, and use another backend until then",
    "31": "the memory limit does not hold: the kernel killed nothing, and the watchdog saw nothing in /proc",
    "30": "the process limit does not hold: the kernel must count processes per user namespace (Linux 5.14 or newer)",
}
_MEND_DEFAULT = "the kernel or its configuration does not isolate this: use another backend on this machine"


class Probe(NamedTuple):
    """One prepared probe: the argument of the script inside, and the token in the command lines of its processes."""

    argument: str
    token: str


@contextlib.contextmanager
def prepared_probe() -> Generator[Probe]:
    """Decoys and a canary stand on the host until the block ends."""
    token = secrets.token_hex(16)
    with (
        tempfile.NamedTemporaryFile(prefix="fleet-canary-") as canary,
        socket.create_server(("127.0.0.1", 0)) as decoy,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        canary.write(token.encode())
        canary.flush()
        abstract.bind(f"\0fleet-decoy-{token}")
        abstract.listen()
        given: dict[str, Any] = {
            "token": token,
            "environment": _environment_hashes(token),
            "secret_path": canary.name,
            "decoy_port": decoy.getsockname()[1],
            "decoy_socket": f"fleet-decoy-{token}",
            "pids": PROBE_LIMITS.pids,
            "file_bytes": PROBE_LIMITS.file_bytes,
        }
        yield Probe(json.dumps(given), token)


def _environment_hashes(token: str) -> list[str]:
    """Our own environment, salted and hashed: the probe looks for it inside, and no command line shows it."""
    entries = Path("/proc/self/environ").read_bytes().split(b"\0")
    foreign = [e for e in entries if e and e.partition(b"=")[0].decode(errors="replace") not in FIXED_ENV]
    return [hashlib.sha256(token.encode() + e).hexdigest()[:16] for e in foreign]


def processes_named(token: str) -> list[int]:
    """Pids whose command line holds the token."""
    numbers: list[int] = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                if token.encode() in (folder / "cmdline").read_bytes():
                    numbers.append(int(folder.name))
    return numbers


def found_limits(result: RunResult) -> dict[str, str]:
    """What the run showed that used more memory and processor time than it may: check -> problem, empty when it holds.

    Without a cgroup processor time is not limited from moment to moment, so only cgroups are asked for that.
    """
    report = {"31": "" if result.reason == "oom_killed" else f"the run ended as {result.reason} instead of oom_killed"}
    if result.limits.get("cpu") != "cgroup":
        return report | {"cpu": ""}
    try:
        used: dict[str, int] = json.loads(result.stdout.text)
        allowed = used["wall_ms"] * LIMITS_PROBE_LIMITS.cpu_millis // 1000 + _SLACK_MS
        problem = f"used {used['cpu_ms']} ms of {allowed}" if used["cpu_ms"] > allowed else ""
    except (ValueError, KeyError):
        problem = "the probe did not run"
    return report | {"cpu": problem}


def limits_that_failed(report: Mapping[str, str]) -> frozenset[Literal["memory", "pids", "cpu"]]:
    """The limits of `found_limits` that did not hold."""
    failed: dict[str, Literal["memory", "pids", "cpu"]] = {"31": "memory", "cpu": "cpu"}
    return frozenset(failed[check] for check, problem in report.items() if problem)


def health_from(
    output: str,
    exit_code: int | None,
    stderr: str,
    survivors: int,
    limits: Mapping[str, str] = MappingProxyType({}),
    enforced: Mapping[str, str] = MECHANISMS,
) -> SandboxHealth:
    """What the probes' reports mean: `down` when there is none, `degraded` when a check does not hold.

    Args:
        limits: what `found_limits` says, of a backend that runs that probe.
        enforced: limit -> mechanism.
    """
    try:
        report: dict[str, str] = json.loads(output)
    except ValueError:
        return health_without_sandbox(stderr or f"the probe ended with {exit_code} and no report")
    if exit_code != 7:
        report["00"] = f"exit code {exit_code} instead of 7"
    report |= limits
    if survivors:
        report["36"] = f"{survivors} processes outlived their run"
    failed = {check: problem for check, problem in report.items() if problem}
    missing = sorted(set(_ITEMS) - set(report))
    failed.update(dict.fromkeys(missing, "the probe did not run"))
    return SandboxHealth(
        status="degraded" if failed else "ok",
        backend="bubblewrap",
        enforced=dict(enforced),
        unmet=tuple(
            f"{(_ITEMS | _LIMIT_ITEMS).get(check, check)} (check {check}): {problem}"
            for check, problem in failed.items()
        ),
        mend=tuple(_MEND_BY_CHECK.get(check, _MEND_DEFAULT) for check in failed),
    )


def health_without_sandbox(complaint: str) -> SandboxHealth:
    """The health of a machine on which no sandbox can be built."""
    return SandboxHealth(
        status="down", backend="bubblewrap", unmet=(f"sandbox: {complaint}",), mend=(mend_for(complaint),)
    )


def mend_for(complaint: str) -> str:
    """What to do about a complaint of bubblewrap."""
    for signs, mend in _MENDS:
        if any(sign in complaint for sign in signs):
            return mend
    return "see the message of bubblewrap; `fleet sandbox check` runs the probes again"
