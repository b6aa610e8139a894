"""The containment checks of the tool sandbox by their permanent ids, and which tests claim them.

A test claims checks with `@pytest.mark.check("00", ...)`. As a plugin of pytest (`-p tests.support.containment`) this
module writes a test's checks into its JUnit record, so that a run as another user can be read check by check.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.sandbox_probes import PROBES

PROPERTY = "check"

CHECKS: Mapping[str, str] = {
    "00": "exit codes pass, kill -9 gives 137, the workspace is writable, loopback works inside",
    "01": "no file can be made in any folder of the system",
    "02": "canary, keys, tokens and sockets of the host are absent",
    "03": "/tmp is private, /var/tmp too",
    "04": "files made in the workspace never belong to uid 0 on the host",
    "05": "setuid and setgid bits are refused",
    "06": "a link in the workspace to a host file leads nowhere",
    "07": "hard links to system files are refused",
    "08": "nothing can be mounted, remounted or unmounted",
    "09": "no device can be made, /dev holds only harmless ones",
    "10": "every memory-backed folder has a size",
    "11": "the workspace has a size; over it the run ends as disk_limit",
    "12": "one file has a size",
    "13": "the environment of the supervisor is nowhere inside",
    "14": "processes of the host are not seen, no command line shows a host path",
    "15": "only descriptors 0 to 2 arrive",
    "16": "kernel files cannot be written, and those that tell of the host not read",
    "17": "no uid 0, no capability, no new privileges, a seccomp filter",
    "18": "the workspace is nosuid",
    "19": "own IPC and UTS namespaces",
    "20": "no controlling terminal, TIOCSTI is refused",
    "21": "no namespace can be made or entered",
    "22": "mount calls old and new, pivot_root and chroot are refused",
    "23": "ptrace, keyrings, bpf, io_uring and the rest of the kernel surface are refused",
    "24": "calls of other architectures are killed or unknown",
    "25": "only unix and internet sockets can be made; no VSOCK",
    "26": "no interface but lo, no route",
    "27": "services on the host's loopback are out of reach",
    "28": "unix sockets of the host, abstract and by path, are out of reach",
    "29": "no name is resolved, and that is found out at once",
    "30": "fork and thread loops stop at the limit; a full sandbox starves no other",
    "31": "memory over the limit is oom_killed, and the supervisor lives",
    "32": "memory-backed files count as memory",
    "33": "descriptors are limited, no core files",
    "34": "endless output is capped and ends the run",
    "35": "a child that holds the output does not hold the run",
    "36": "nothing outlives a timeout, however it hides",
    "37": "the sandbox dies with its supervisor",
    "38": "stopped programs are still timed out",
    "39": "standard input is at its end when none is given",
    "40": "no zombies are left",
    "41": "exit, signal, timeout and out of memory are told apart",
    "42": "hostile output arrives byte by byte",
    "43": "hostile names and depths are walked, recorded and deleted",
    "44": "only listed variables arrive, and loader and proxy variables are refused",
    "S1": "large commands and inputs, missing programs and folders have distinct typed results",
    "S2": "paths that leave the workspace by their text are refused",
    "S3": "a folder that is swapped for a link while it is read leads nowhere",
    "S4": "pipes, folders, links, sparse and growing files are refused or capped",
    "S5": "nothing is written over or through a link",
    "S6": "only regular files are exported, with plain modes, capped in number and bytes",
    "S7": "imported archives cannot leave their folder",
    "S8": "a patch cannot write outside",
    "S9": "tasks do not see each other and leave nothing",
    "S10": "secrets are taken out of all that is printed before it is kept",
    "S11": "the egress proxy lets pass the listed hosts alone, by their checked address",
    "S12": "a program that ignores the proxy reaches nothing",
    "S13": "the processor quota holds, and other runs still start",
    "S14": "fifty runs cancelled at once leave nothing",
    "S15": "a flood of lines is cut, and the record counts what was dropped",
    "S16": "a cancel right after the start leaves nothing",
    "S17": "what a supervisor leaves that dies right after a start is swept",
    "S18": "a run lives on when the thread that asked for it ends",
    "S19": "every way to end has exactly one reason, and keeps partial output",
    "S20": "a sweep collects what is stale, leaves what lives, and may be repeated",
    "S21": "hostile settings, hooks and attributes of a repository have no effect on the supervisor",
    "S22": "a repository nested in a worktree has no effect on the supervisor",
    "S23": "worktree, include, alias, submodule and LFS tricks have no effect on the supervisor",
    "S24": "files that tools load by themselves are data to the supervisor",
    "S25": "hostile artifacts are no evidence, and nothing else",
    "S26": "control sequences are kept raw and rendered plain",
    "S27": "the sandbox holds for any argument list",
    "S28": "impossible requests are refused before anything is started",
    "O1": "no program makes a whiteout in the folder of a session",
    "O2": "no program sets an attribute that overlayfs reads",
    "O3": "links that a command left lead neither reader nor writer of the folder out",
    "O4": "files of a session belong to its story's user, and a base is never written",
    "O5": "the table of mounts names neither story nor session",
    "O6": "a file of another user cannot be copied up, so a base belongs to the story's user",
}

NOT_APPLICABLE: Mapping[str, str] = {
    "S7": "the product imports no archive: trees come as blobs and repositories as objects; a test of the house finds "
    "any code outside of the sandbox that would extract one",
}


def probe_params() -> list[object]:
    """Every probe as a parameter of a test, with the check that it is."""
    return [pytest.param(name, marks=pytest.mark.check(name.partition(" ")[0])) for name in PROBES]


def claims(files: Sequence[Path]) -> dict[str, list[str]]:
    """Check -> `file:line` of every test that claims it, read from the syntax trees without importing a test."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in files:
        for check, line in claims_in(path.read_text(encoding="utf-8")):
            found[check].append(f"{path.name}:{line}")
    return dict(found)


def claims_in(source: str) -> Iterator[tuple[str, int]]:
    """Every (check, line) in a `...mark.check("00", ...)` of this module; a use of `probe_params` claims the probes."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name == "probe_params":
            yield from ((probe.partition(" ")[0], node.lineno) for probe in PROBES)
        elif name.endswith("mark.check"):
            yield from ((ast.literal_eval(argument), node.lineno) for argument in node.args)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Hook of pytest: see the module."""
    for item in items:
        for mark in item.iter_markers("check"):
            item.user_properties.extend((PROPERTY, check) for check in mark.args)
