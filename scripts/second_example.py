"""The second example: a well-known library from its source distribution, as a git repository with one commit.

The archive is fetched by the ordinary package client, pinned by its digest.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import demo

NAME, VERSION = "inflection", "0.5.1"
SHA256 = "1a29730d366e996aaacffb2f1f1cb9593dc38e2ddd30c91250c6dde09ea9b417"


def fetch(folder: Path) -> Path:
    """The source distribution below `folder`; CalledProcessError when no package index can be reached."""
    folder.mkdir(parents=True, exist_ok=True)
    # The package client runs an archive's build to read its metadata; with a hash it refuses any other archive first.
    pinned = folder / "pinned.txt"
    pinned.write_text(f"{NAME}=={VERSION} --hash=sha256:{SHA256}\n")
    command = [_python_with_pip(), "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    command += ["--require-hashes", "--dest", str(folder), "--requirement", str(pinned)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return folder / f"{NAME}-{VERSION}.tar.gz"


def _python_with_pip() -> str:
    if importlib.util.find_spec("pip") is not None:
        return sys.executable
    return str(Path(sys.base_prefix) / "bin" / "python3")


def repository(folder: Path) -> Path:
    """A git repository made from the distribution, with the same commit id on every machine."""
    archive = fetch(folder / "download")
    with tarfile.open(archive) as bundle:
        bundle.extractall(folder, filter="data")
    repo = folder / "repo"
    shutil.rmtree(repo, ignore_errors=True)
    (folder / f"{NAME}-{VERSION}").rename(repo)
    for path in sorted(repo.rglob("*")):
        if path.is_file():
            path.chmod(0o644)
    for cache in list(repo.rglob("__pycache__")):
        shutil.rmtree(cache)
    demo.git(repo, "init", "-q", "-b", "main")
    demo.git(repo, "add", "-A", "-f")
    demo.git(repo, "commit", "-q", "-m", f"{NAME} {VERSION}")
    return repo


if __name__ == "__main__":
    print(repository(Path(sys.argv[1])))
