"""The read-only programs of a run: Python with pytest, coverage, ruff, ast-grep at /toolchain, or the user's own.

A root supervisor drops to a user who cannot pass a 0700 home, where a pyenv interpreter lives: then
the system's Python of the same version serves, else a copy of our own installation.

Source: docs/design/sandbox.md, section 2.
"""

from __future__ import annotations

import compileall
import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import py_compile
import re
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import InvalidInput, SandboxUnavailable
from fleet.kernel.ids import Digest
from fleet.sandbox.backends.identity import is_reachable
from fleet.sandbox.folders.stage import make_readable

TOOLS = ("pytest", "coverage", "ruff", "ast-grep-cli")
_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MODULES = ("pytest", "coverage")
_NOT_USED = {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "tkinter"}
_RESERVED = (
    "/proc",
    "/sys",
    "/dev",
    "/etc",
    "/workspace",
    "/inputs",
    "/fleet",
    "/repo.git",
    "/toolchain",
    "/toolchains",
)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python installation: where it lies on this machine, and the prefix under which it was built to run."""

    source: Path
    prefix: Path

    @property
    def executable(self) -> Path:
        """The path inside the sandbox."""
        return self.prefix / "bin" / f"python{_VERSION}"


@dataclass(frozen=True, slots=True)
class Toolchain:
    """What a run sees: read-only binds (host path, path inside), PATH, variables; the digest of its description."""

    binds: tuple[tuple[Path, str], ...]
    path: str
    env: tuple[tuple[str, str], ...]
    digest: Digest


def build_python(root: Path, *, is_dropped: bool) -> Toolchain:
    """The toolchain `python` lies below `root`; it is built once per content and then found again.

    Raises:
        SandboxUnavailable: one of TOOLS is not installed beside us.
    """
    interpreter = choose_interpreter(root, is_dropped=is_dropped)
    packages = installed(TOOLS)
    description = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "prefix": str(interpreter.prefix),
        "packages": sorted(f"{name}=={one.version}" for name, one in packages.items()),
        "layout": 2,
    }
    digest = digest_of_json(description)
    target = root / digest.hex[:24]
    if not target.is_dir():
        _build_once(target, interpreter, list(packages.values()))
    binds = ((target, "/toolchain"), *_interpreter_bind(interpreter))
    return Toolchain(binds, f"/toolchain/bin:{_SYSTEM_PATH}", (), digest)


def choose_interpreter(
    root: Path, *, is_dropped: bool, own: Path | None = None, system: Path = Path("/usr")
) -> Interpreter:
    """A Python of our own version that the runs can execute: ours, the system's, or a copy of ours below `root`."""
    prefix = Path(own or sys.base_prefix).resolve()
    if not is_dropped or is_reachable(prefix / "bin" / f"python{_VERSION}", execute=True):
        return Interpreter(prefix, prefix)
    library = system / "lib" / f"python{_VERSION}"
    complete = all((library / name).is_dir() for name in ("unittest", "xml", "sqlite3"))
    if complete and is_reachable(system / "bin" / f"python{_VERSION}", execute=True):
        return Interpreter(system, system)
    copy = root / f"base-{digest_of_json([str(prefix), sys.version]).hex[:16]}"
    if not copy.is_dir():
        _copy_installation(prefix, copy)
    return Interpreter(copy, prefix)


def _copy_installation(prefix: Path, target: Path) -> None:
    def unneeded(parent: str, names: list[str]) -> set[str]:
        drop = {n for n in names if n in ("site-packages", "test", "idlelib", "turtledemo", "ensurepip")}
        return drop | {n for n in names if n.endswith(".a") or (parent == str(prefix / "bin") and "python" not in n)}

    with scratch(target) as folder:
        for part in ("bin", "lib"):
            shutil.copytree(prefix / part, folder / part, symlinks=True, ignore=unneeded)
        make_readable(folder)


def _interpreter_bind(interpreter: Interpreter) -> tuple[tuple[Path, str], ...]:
    if interpreter.prefix.is_relative_to("/usr"):
        return ()
    return ((interpreter.source, str(interpreter.prefix)),)


def _build_once(target: Path, interpreter: Interpreter, packages: Sequence[importlib.metadata.Distribution]) -> None:
    with scratch(target) as folder:
        site = folder / "lib" / f"python{_VERSION}" / "site-packages"
        site.mkdir(parents=True)
        (folder / "bin").mkdir()
        for name in ("python", "python3", f"python{_VERSION}"):
            (folder / "bin" / name).symlink_to(interpreter.executable)
        for distribution in packages:
            _copy_distribution(distribution, site, folder / "bin")
        for name in _MODULES:
            script = folder / "bin" / name
            script.write_text(_SCRIPT.format(module=name), encoding="ascii")
            script.chmod(0o755)
        configuration = f"home = {interpreter.prefix}/bin\ninclude-system-site-packages = false\nversion = {_VERSION}\n"
        (folder / "pyvenv.cfg").write_text(configuration, encoding="utf-8")
        inside = f"/toolchain/lib/python{_VERSION}/site-packages"
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(site, quiet=2, stripdir=str(site), prependdir=inside, invalidation_mode=mode)
        _collect_compiled(folder, site, Path(inside))
        _collect_library(folder, interpreter)
        make_readable(folder)


def _collect_compiled(folder: Path, site: Path, inside: Path) -> None:
    """The compiled modules of our tools once more where a run that reads none of its workspace's looks for them."""
    for file in site.rglob(f"__pycache__/*.{sys.implementation.cache_tag}.pyc"):
        target = _below_cache(folder, inside / file.parent.parent.relative_to(site)) / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(file)


def _collect_library(folder: Path, interpreter: Interpreter) -> None:
    """The compiled standard library, as Python checks it against its source: without it each run compiles anew."""
    library, inside = (p / "lib" / f"python{_VERSION}" for p in (interpreter.source, interpreter.prefix))
    for parent, folders, names in os.walk(library):
        folders[:] = sorted(set(folders) - _NOT_USED)
        for source in (Path(parent) / name for name in names if name.endswith(".py")):
            target = _below_cache(folder, inside / source.parent.relative_to(library))
            target.mkdir(parents=True, exist_ok=True)
            compiled = Path(importlib.util.cache_from_source(str(source)))
            copy = target / compiled.name
            if _is_current(compiled, source):
                shutil.copyfile(compiled, copy)
                continue
            with contextlib.suppress(OSError, py_compile.PyCompileError):
                where = str(inside / source.relative_to(library))
                mode = py_compile.PycInvalidationMode.TIMESTAMP
                py_compile.compile(str(source), str(copy), where, doraise=True, quiet=2, invalidation_mode=mode)


def _below_cache(folder: Path, inside: Path) -> Path:
    return folder / "pycache" / inside.relative_to("/")


def _is_current(compiled: Path, source: Path) -> bool:
    """Whether Python would take the compiled module for the source, by its time and size."""
    try:
        head, stat = compiled.read_bytes()[:16], source.stat()
    except OSError:
        return False
    written = struct.pack("<III", 0, int(stat.st_mtime) & 0xFFFFFFFF, stat.st_size & 0xFFFFFFFF)
    return head == importlib.util.MAGIC_NUMBER + written


_SCRIPT = """#!/toolchain/bin/python
import runpy

runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""


class scratch:
    """A folder beside `target` that takes its name at the end, whole or not at all; a faster builder wins."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __enter__(self) -> Path:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._path = Path(tempfile.mkdtemp(dir=self._target.parent, prefix=".new-"))
        return self._path

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._path.chmod(0o755)
                self._path.rename(self._target)
        except OSError:
            if not self._target.is_dir():
                raise
        finally:
            shutil.rmtree(self._path, ignore_errors=True)


def installed(names: Sequence[str]) -> dict[str, importlib.metadata.Distribution]:
    """The installed distributions of these names and of all they need, extras left out."""
    packages: dict[str, importlib.metadata.Distribution] = {}
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in packages:
            continue
        try:
            packages[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            if name in names:
                raise SandboxUnavailable(
                    f"the toolchain needs {name}, which is not installed: run `pip install {name}`", missing=name
                ) from None
            continue  # needed on other systems or versions only
        waiting.extend(_needed(packages[name].requires or []))
    return packages


def _needed(requirements: Sequence[str]) -> Iterator[str]:
    for requirement in requirements:
        match = re.match(r"[A-Za-z0-9._-]+", requirement)
        if match and "extra ==" not in requirement:
            yield match.group()


def _copy_distribution(distribution: importlib.metadata.Distribution, site: Path, programs: Path) -> None:
    for file in distribution.files or ():
        source = Path(str(file.locate()))
        if "__pycache__" in file.parts or not source.is_file():
            continue
        if file.parts[0] != "..":
            target = site.joinpath(*file.parts)
        elif source.parent.name == "bin" and _is_program(source):
            target = programs / source.name
        else:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def _is_program(file: Path) -> bool:
    with file.open("rb") as content:
        return content.read(4) == b"\x7fELF"


def user_environment(text: str, *, python: Toolchain, is_dropped: bool) -> Toolchain:
    """The user's own virtual environment at its own path, with its base interpreter; our tools stay behind it on PATH.

    Args:
        text: absolute path of the environment, the part after `env:`.

    Raises:
        InvalidInput: no environment is there, or its path is one that the sandbox uses itself.
        SandboxUnavailable: the user that runs are cannot reach it.
    """
    path = Path(os.path.normpath(text))
    python_inside = path / "bin" / "python"
    reserved = str(path) in ("/", "/usr", "/tmp", "/home") or any(path.is_relative_to(r) for r in _RESERVED)
    if not path.is_absolute() or reserved or not python_inside.exists():
        raise InvalidInput(
            f"{text!r} is no Python environment: give the absolute path of a folder with bin/python",
            field="toolchain",
            value=text,
        )
    base = python_inside.resolve().parent.parent
    for part in (path, python_inside):
        if is_dropped and not is_reachable(part, execute=True):
            raise SandboxUnavailable(
                f"the sandbox user cannot reach {part.resolve()}: put the environment (and its interpreter) outside "
                "folders that only their owner may enter, or start the fleet as the owner",
                missing="toolchain",
                path=str(part),
            )
    folders = sorted(p.name for p in path.glob("lib/python*/site-packages/*.dist-info"))
    digest = digest_of_json({"environment": str(path), "base": str(base), "packages": folders, "tools": python.digest})
    prefixes = [p for p in dict.fromkeys((base, path)) if not p.is_relative_to("/usr")]
    binds = dict.fromkeys((*python.binds, *((p, str(p)) for p in prefixes)))
    return Toolchain(tuple(binds), f"{path}/bin:{python.path}", (("VIRTUAL_ENV", str(path)),), digest)
