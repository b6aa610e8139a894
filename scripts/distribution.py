"""A library from the package index as a git repository with one commit, the same on every machine.

The archive is fetched by the ordinary package client, which knows the index that the user has configured. It is pinned
by its digest and kept in the user's cache, so that it is fetched once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

_WHO = {"NAME": "Ada Example", "EMAIL": "ada@example.org", "DATE": "2026-01-05T09:00:00+00:00"}
_FETCH_S = 120


class Distribution(NamedTuple):
    """A source distribution that nobody can exchange for another one."""

    name: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        """Name of the archive."""
        return f"{self.name}-{self.version}.tar.gz"


class NotFetched(Exception):
    """The archive is not in the cache, and the package index gave none; the message says what the client said."""


def git(repo: Path, *arguments: str) -> str:
    """What git prints; the user's own configuration has no part in it."""
    who = {f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in _WHO.items()}
    plain = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-C", str(repo), "-c", "core.autocrlf=false", *arguments]
    return subprocess.run(
        command, env={**os.environ, **who, **plain}, check=True, capture_output=True, text=True
    ).stdout


def committed(repo: Path, message: str) -> Path:
    """The folder as a git repository whose one commit has the same id on every machine."""
    git(repo, "init", "-q", "-b", "main")
    git(repo, "add", "-A", "-f")
    git(repo, "commit", "-q", "-m", message)
    return repo


def cache_folder() -> Path:
    """Where archives are kept for this user."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "swe-fleet" / "archives"


def fetched(wanted: Distribution, folder: Path | None = None) -> Path:
    """The archive in the cache; from the package index where it is not there yet.

    Raises:
        NotFetched: no index can be reached, or it has no file with this digest.
    """
    cache = folder or cache_folder()
    archive = cache / wanted.file
    if archive.is_file() and _sha256(archive) == wanted.sha256:
        return archive
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as part:
        # A file from elsewhere has its place only once it is whole.
        _download(wanted, Path(part)).replace(archive)
    return archive


def _download(wanted: Distribution, folder: Path) -> Path:
    # The package client runs an archive's build to read its metadata; with a hash it refuses any other archive first.
    pinned = folder / "pinned.txt"
    pinned.write_text(f"{wanted.name}=={wanted.version} --hash=sha256:{wanted.sha256}\n")
    python = sys.executable if importlib.util.find_spec("pip") is not None else f"{sys.base_prefix}/bin/python3"
    command = [python, "-m", "pip", "--no-input", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    command += ["--retries", "1", "--timeout", "20", "--require-hashes", "--dest", str(folder)]
    if python == sys.executable and importlib.util.find_spec("hatchling") is not None:
        # What builds most libraries is in this environment already, at a locked version.
        command.append("--no-build-isolation")
    command += ["--requirement", str(pinned)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_FETCH_S)
    except subprocess.CalledProcessError as error:
        said = [line for line in str(error.stderr).splitlines() if line.strip()]
        raise NotFetched(said[-1] if said else f"pip ended with {error.returncode}") from error
    except subprocess.TimeoutExpired as error:
        raise NotFetched(f"pip did not end within {_FETCH_S} s") from error
    archive = folder / wanted.file
    if not archive.is_file() or _sha256(archive) != wanted.sha256:
        raise NotFetched(f"the package client left no {wanted.file} with the pinned digest")
    return archive


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def library_repository(archive: Path, wanted: Distribution, repo: Path) -> Path:
    """The files of the archive as a repository at `repo`, which is made anew."""
    shutil.rmtree(repo, ignore_errors=True)
    repo.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=repo.parent) as part, tarfile.open(archive) as bundle:
        # Early releases of 3.11 have no filters; the archive is known by its digest.
        if hasattr(tarfile, "data_filter"):
            bundle.extractall(part, filter="data")
        else:
            bundle.extractall(part)
        (Path(part) / f"{wanted.name}-{wanted.version}").rename(repo)
    for path in sorted(repo.rglob("*")):
        if path.is_file():
            path.chmod(0o644)
    for cache in list(repo.rglob("__pycache__")):
        shutil.rmtree(cache)
    return committed(repo, f"{wanted.name} {wanted.version}")
