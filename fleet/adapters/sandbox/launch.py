"""The exact launch line of a sandbox (docs/design/sandbox.md, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fleet.adapters.sandbox.limits import RAM_FOLDERS
from fleet.adapters.sandbox.stage import Stage
from fleet.adapters.sandbox.toolchain import Toolchain

__all__ = ["FIXED_ENV", "Layout", "bubblewrap_args"]

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
    args += ["--bind", str(layout.workspace), "/workspace", "--remount-ro", "/"]
    args += ["--chdir", str(PurePosixPath("/workspace", layout.cwd)), "--clearenv"]
    values = {**FIXED_ENV, "PATH": toolchain.path, **dict(toolchain.env), **env}
    return args + [a for name, value in values.items() for a in ("--setenv", name, value)]


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
