"""The exact launch line of a sandbox (docs/design/sandbox.md, section 3)."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fleet.policy.runs.spec import Limits
from fleet.policy.secret_refs import SECRETS_FOLDER
from fleet.sandbox.backends.bubblewrap.cgroups import Cgroup
from fleet.sandbox.backends.bubblewrap.limits import RAM_FOLDERS
from fleet.sandbox.backends.bubblewrap.memory_files import memory_file, sealed_file
from fleet.sandbox.backends.identity import Identity
from fleet.sandbox.backends.toolchain import Toolchain
from fleet.sandbox.folders.stage import Stage
from fleet.sandbox.port import LogSink

FIXED_ENV: dict[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/home/agent",
    "USER": "agent",
    "LOGNAME": "agent",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
    "TMPDIR": "/tmp",
    "TERM": "dumb",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_NOSYSTEM": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "SANDBOX": "bwrap",
}

_ISOLATION = (
    *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup", "--unshare-net"),
    *("--disable-userns", "--uid", "1000", "--gid", "1000", "--hostname", "sandbox"),
    *("--die-with-parent", "--new-session", "--cap-drop", "ALL"),
)
_HIDDEN_FOLDERS = ("/proc/acpi", "/proc/scsi")
_HIDDEN_FILES = tuple(
    f"/proc/{name}" for name in ("kallsyms", "cmdline", "config.gz", "interrupts", "keys", "key-users")
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Host paths of one run."""

    workspace: Path
    inputs: Path | None = None
    repo: Path | None = None
    overlay: tuple[Path, Path] | None = None
    """`workspace` is the upper layer: what lies below it, and a folder for overlayfs beside it."""
    binds: tuple[tuple[Path, str], ...] = ()
    """Further read-only binds: host path, path inside."""
    cwd: str = "."
    """Folder below /workspace in which the command starts."""


def bubblewrap_args(stage: Stage, toolchain: Toolchain, layout: Layout, env: Mapping[str, str]) -> list[str]:
    """The options for `--args`, without the descriptors of filter, info, status and block."""
    args = [*_ISOLATION, "--ro-bind", "/usr", "/usr"]
    args += _system_links()
    args += ["--ro-bind", str(stage.etc), "/etc", "--proc", "/proc", "--dev", "/dev"]
    args += [a for p in _HIDDEN_FOLDERS if Path(p).exists() for a in ("--ro-bind", str(stage.empty), p)]
    args += [a for p in _HIDDEN_FILES if Path(p).exists() for a in ("--ro-bind", "/dev/null", p)]
    args += [*_tmpfs("/dev/shm", "1777"), "--remount-ro", "/dev"]
    args += [*_tmpfs("/tmp", "1777"), "--dir", "/var", "--symlink", "../tmp", "/var/tmp", *_tmpfs("/run", "0755")]
    args += _tmpfs("/home/agent", "0700")
    binds = [(stage.inside, "/fleet/inside"), *toolchain.binds]
    binds += [(path, target) for path, target in ((layout.inputs, "/inputs"), (layout.repo, "/repo.git")) if path]
    binds += layout.binds
    args += [a for source, target in binds for a in ("--ro-bind", str(source), target)]
    args += [*_workspace(layout), "--remount-ro", "/"]
    args += ["--chdir", str(PurePosixPath("/workspace", layout.cwd)), "--clearenv"]
    values = {**FIXED_ENV, "PATH": toolchain.path, **dict(toolchain.env), **env}
    return args + [a for name, value in values.items() for a in ("--setenv", name, value)]


def _workspace(layout: Layout) -> list[str]:
    if layout.overlay is None:
        return ["--bind", str(layout.workspace), "/workspace"]
    lower, work = layout.overlay
    return ["--overlay-src", str(lower), "--overlay", str(layout.workspace), str(work), "/workspace"]


def _system_links() -> list[str]:
    args: list[str] = []
    for name in ("bin", "sbin", "lib", "lib32", "libx32", "lib64"):
        path = Path("/", name)
        if path.is_symlink():
            args += ["--symlink", str(path.readlink()).lstrip("/"), str(path)]
        elif path.is_dir():
            args += ["--ro-bind", str(path), str(path)]
    return args


def _tmpfs(path: str, mode: str) -> list[str]:
    return ["--size", str(RAM_FOLDERS[path]), "--perms", mode, "--tmpfs", path]


_SECRETS_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start: options for `--args`, the command, the filter, who it is, and the name shown in `ps`."""

    bwrap: Path
    name: str
    options: Sequence[str]
    argv: Sequence[str]
    seccomp: bytes
    identity: Identity
    limits: Limits
    disk_usage: Callable[[], int]
    """Bytes in the workspace; called in a thread."""
    prefix: Sequence[str] = ()
    """Runs inside, under the rlimits, before the command, and executes it in its own place: argv of a launcher."""
    inherited: Sequence[int] = ()
    """Descriptors of ours that are open inside under the same numbers; the launcher closes them."""
    stdin: bytes = b""
    """What the command reads."""
    stdin_pipe: int | None = None
    """Instead: the end of a pipe that the command reads while it runs; closed by its maker."""
    secret_env: Sequence[tuple[str, str]] = ()
    """Variables that no argument list shows."""
    secret_files: Sequence[tuple[str, bytes]] = ()
    """Path below SECRETS_FOLDER and content: in memory alone, mode 0400."""
    forms: Collection[str] = ()
    """Text that is taken out of everything that is printed."""
    log: LogSink | None = None
    cgroup: Cgroup | None = None
    """Made for this run; attached here, removed by its maker."""
    groups: tuple[int, ...] = ()
    """Further groups of whoever starts the sandbox, where that is another user than we."""


def stdin_of(stack: contextlib.ExitStack, launch: Launch) -> int:
    """The descriptor that the command reads from; its file is closed with the stack, a pipe by its maker."""
    if launch.stdin_pipe is not None:
        return launch.stdin_pipe
    return sealed_file(stack, launch.stdin) if launch.stdin else subprocess.DEVNULL


def secret_options(stack: contextlib.ExitStack, launch: Launch) -> tuple[list[str], list[int]]:
    """Options that put the run's secrets in place, and the descriptors of their contents, closed with the stack."""
    options = [a for name, value in launch.secret_env for a in ("--setenv", name, value)]
    descriptors: list[int] = []
    if launch.secret_files:
        options += ["--size", str(_SECRETS_BYTES), "--perms", "0500", "--tmpfs", SECRETS_FOLDER]
        for path, content in launch.secret_files:
            descriptors.append(memory_file(stack, content))
            options += ["--perms", "0400", "--file", str(descriptors[-1]), path]
        options += ["--remount-ro", SECRETS_FOLDER]
    return options, descriptors
