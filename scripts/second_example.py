"""The second example: a well-known library from its source distribution, as a git repository with one commit.

The archive is fetched by the ordinary package client and checked against its digest; nothing of it is run here.
"""

from __future__ import annotations

import hashlib
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
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    subprocess.run(
        [*command, "--dest", str(folder), f"{NAME}=={VERSION}"], check=True, capture_output=True, text=True, timeout=120
    )
    archive = folder / f"{NAME}-{VERSION}.tar.gz"
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{archive.name} has digest {found}, expected {SHA256}")
    return archive


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
