"""The exact command line of a container run (docs/design/sandbox.md, section 9)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fleet.kernel.errors import InvalidInput
from fleet.policy.runs.spec import Limits
from fleet.policy.secret_refs import SECRETS_FOLDER
from fleet.sandbox.backends.bubblewrap.launch import FIXED_ENV
from fleet.sandbox.backends.bubblewrap.limits import RAM_FOLDERS
from fleet.sandbox.backends.identity import Identity
from fleet.sandbox.backends.toolchain import Toolchain

EngineName = Literal["podman", "docker"]

SKELETON = "localhost/swe-fleet-skeleton"
"""Name of the image: empty mount points alone. What programs there are comes from the host's /usr and the toolchain."""
ENTER = "/fleet/inside/enter.py"
PYTHON = "/toolchain/bin/python"
FILTER = "/fleet/filter"
STDIN = "/fleet/stdin"
LINK = "/fleet/link"
_OPEN_FILES = 4096
_ROOM = 64
_SECRETS_BYTES = 8 << 20
_DEADLINE_SLACK_S = 15
_HIDDEN = (
    "/sys",
    "/proc/kallsyms",
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/interrupts",
    "/proc/key-users",
    "/proc/scsi",
)


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the engine said of itself, and what follows for the command line."""

    name: EngineName
    version: str
    is_rootless: bool
    controllers: frozenset[str] = frozenset({"memory", "pids", "cpu"})
    """What the engine limits by cgroups, as far as no probe found otherwise."""


@dataclass(frozen=True, slots=True)
class ContainerFolder:
    """Host paths of one run."""

    workspace: Path
    etc: Path
    inside: Path
    filter: Path
    seccomp_profile: Path
    pid_file: Path
    link: Path
    """The socket of `Link`."""
    inputs: Path | None = None
    repo: Path | None = None
    stdin: Path | None = None


def container_args(
    facts: EngineFacts,
    folder: ContainerFolder,
    toolchain: Toolchain,
    *,
    limits: Limits,
    who: Identity,
    name: str,
    labels: Mapping[str, str],
    image: str,
    has_secrets: bool = False,
    must_hide: bool = True,
) -> list[str]:
    """The arguments behind the name of the engine; the command itself is told to `enter.py` on its standard input.

    Args:
        must_hide: whether a container ends at once where what tells of the kernel cannot be hidden in it.

    Raises:
        InvalidInput: a host path that the option `--mount` cannot carry.
    """
    args = [*_runtime(facts), "run", "--interactive", "--name", name, "--log-driver", "none", "--pull", "never"]
    args += ["--stop-signal", "SIGKILL"]  # whoever stops it from outside: its PID 1 heeds nothing else
    args += [a for key, value in labels.items() for a in ("--label", f"{key}={value}")]
    args += ["--network", "none", "--ipc", "private", "--hostname", "sandbox", "--read-only", "--workdir", "/"]
    args += ["--cap-drop", "all", "--security-opt", "no-new-privileges", "--security-opt", "label=disable"]
    args += ["--security-opt", f"seccomp={folder.seccomp_profile}"]
    args += _user(facts, who)
    args += _limits(facts, limits)
    args += _tmpfs(has_secrets=has_secrets)
    if facts.name == "podman":
        args += ["--pidfile", str(folder.pid_file), "--no-hosts", "--passwd=false", "--read-only-tmpfs=false"]
        args += ["--security-opt", f"mask={':'.join(_HIDDEN)}"]
    args += [a for source, target in _binds(folder, toolchain) for a in ("--mount", _bind(facts, source, target))]
    args += ["--mount", _bind(facts, folder.workspace, "/workspace", is_writable=True)]
    # docker's command line has no such mask, so there the launcher hides the same paths itself.
    hidden = [] if facts.name == "podman" else ["must" if must_hide else "may", *_HIDDEN]
    return [*args, "--entrypoint", "", image, PYTHON, "-IS", ENTER, FILTER, LINK, *hidden]


def command_env(facts: EngineFacts, toolchain: Toolchain, env: Mapping[str, str]) -> dict[str, str]:
    """The variables of the command: the fixed ones, those of the toolchain, those of the request."""
    return {**FIXED_ENV, "SANDBOX": facts.name, "PATH": toolchain.path, **dict(toolchain.env), **env}


def enter_request(
    argv: Sequence[str], env: Mapping[str, str], files: Mapping[str, str], *, cwd: str, has_stdin: bool, limits: Limits
) -> dict[str, Any]:
    """The line for `enter.py`; it ends everything itself some seconds after the supervisor should have (RC-27)."""
    return {
        "argv": list(argv),
        "env": dict(env),
        "files": dict(files),
        "cwd": cwd,
        "stdin": STDIN if has_stdin else None,
        "deadline_s": limits.overall_s + limits.grace_s + _DEADLINE_SLACK_S,
    }


def _runtime(facts: EngineFacts) -> list[str]:
    # crun refuses hybrid cgroup hierarchies (docs/design/sandbox.md, section 9).
    return ["--runtime", "runc"] if facts.name == "podman" else []


def _user(facts: EngineFacts, who: Identity) -> list[str]:
    if facts.name == "podman" and facts.is_rootless:
        return ["--userns", "keep-id:uid=1000,gid=1000", "--user", "1000:1000"]
    return ["--user", f"{who.uid}:{who.gid}"]


def _limits(facts: EngineFacts, limits: Limits) -> list[str]:
    pids = limits.pids + 1  # PID 1 is ours
    processes = pids + _ROOM
    args = ["--ulimit", f"nofile={_OPEN_FILES}:{_OPEN_FILES}", "--ulimit", f"nproc={processes}:{processes}"]
    args += ["--ulimit", "core=0:0", "--ulimit", f"fsize={limits.file_bytes}:{limits.file_bytes}"]
    args += ["--shm-size", str(RAM_FOLDERS["/dev/shm"])]
    memory = str(limits.memory_bytes)
    flags = {
        "memory": ["--memory", memory, "--memory-swap", memory],
        "pids": ["--pids-limit", str(pids)],
        "cpu": ["--cpus", f"{min(limits.cpu_millis / 1000, os.cpu_count() or 1):g}"],
    }
    args += [a for name, given in flags.items() if name in facts.controllers for a in given]
    return args


def _tmpfs(*, has_secrets: bool) -> list[str]:
    args: list[str] = []
    for path, size in RAM_FOLDERS.items():
        if path != "/dev/shm":
            args += ["--tmpfs", f"{path}:rw,exec,nosuid,nodev,size={size},mode=1777"]
    secrets = f"{SECRETS_FOLDER}:rw,noexec,nosuid,nodev,size={_SECRETS_BYTES},mode=1777"
    return args + (["--tmpfs", secrets] if has_secrets else [])


def _binds(folder: ContainerFolder, toolchain: Toolchain) -> list[tuple[Path, str]]:
    optional = ((folder.inputs, "/inputs"), (folder.repo, "/repo.git"), (folder.stdin, STDIN))
    return [
        (Path("/usr"), "/usr"),
        (folder.etc, "/etc"),
        (folder.inside, "/fleet/inside"),
        (folder.filter, FILTER),
        (folder.link, LINK),
        *toolchain.binds,
        *((path, target) for path, target in optional if path),
    ]


def _bind(facts: EngineFacts, source: Path, target: str, *, is_writable: bool = False) -> str:
    for path in (str(source), target):
        if any(sign in path for sign in ',"\n\r'):
            raise InvalidInput(
                f"{path!r} cannot be mounted: its name holds a comma, a quote or a line break",
                field="mounts",
                path=path,
            )
    # docker has no such options: the launcher inside sets them for the workspace.
    options = [",nosuid,nodev" if facts.name == "podman" else "", "" if is_writable else ",readonly"]
    return f"type=bind,source={source},target={target}{''.join(options)}"
