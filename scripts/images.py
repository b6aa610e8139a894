"""Build, scan and push the images of a cluster with podman or docker (`make images`, `make scan`, `make push`).

Built is the last commit and nothing else of this folder. Base images are named by digest: PYTHON_IMAGE (slim, with
Python 3.11 to 3.13) for the head, TOOLBOX_IMAGE (Debian 12 or newer) for the toolbox; vLLM goes on top of the head.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BASES: Mapping[str, str | None] = {"head": "PYTHON_IMAGE", "gpu": None, "toolbox": "TOOLBOX_IMAGE"}
"""Image -> the variable of its base; None is made on top of the head."""
ENGINES = ("podman", "docker")
_DIGEST = re.compile(r"[a-z0-9][A-Za-z0-9._/:-]*@sha256:[0-9a-f]{64}")
REPORTS = ROOT / "build" / "images"


class Refused(Exception):
    """What is missing, and what to do."""


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """0 when it is done; 2 with one line when something is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("build", "scan", "push"))
    parser.add_argument("names", nargs="*", metavar="IMAGE", help=f"of {', '.join(BASES)}; all unless given")
    given = parser.parse_args(arguments)
    names: list[str] = given.names or list(BASES)
    try:
        if unknown := sorted(set(names) - BASES.keys()):
            raise Refused(f"no image {', '.join(unknown)}; known: {', '.join(BASES)}")
        engine = found_engine(environ)
        {"build": build, "scan": scan, "push": push}[given.what](engine, names, environ)
    except Refused as refusal:
        print(f"images: {refusal}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"images: {Path(error.cmd[0]).name} ended with {error.returncode}; see above", file=sys.stderr)
        return 1
    return 0


def found_engine(environ: Mapping[str, str]) -> str:
    """podman or docker, whichever is there. Refused when neither is."""
    for name in ENGINES:
        if path := shutil.which(name, path=environ.get("PATH", "")):
            return path
    raise Refused("neither podman nor docker is here: install one of them (Debian, Ubuntu: apt-get install podman)")


def build(engine: str, names: Sequence[str], environ: Mapping[str, str]) -> None:
    """Each image is there, tagged with the commit."""
    revision = _revision()
    arguments = {name: build_arguments(name, environ, revision) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        _export(Path(folder))
        for name in (n for n in BASES if n in names):
            file = f"{folder}/cluster/images/{name}.Containerfile"
            built = [f"--build-arg={key}={value}" for key, value in arguments[name].items()]
            _run(engine, "build", "--file", file, *built, "--tag", tag(name, revision), folder)
            print(f"images: {tag(name, revision)}")


def build_arguments(name: str, environ: Mapping[str, str], revision: str) -> dict[str, str]:
    """What the Containerfile asks for. Refused when the base has no digest."""
    variable = BASES[name]
    if variable is None:
        # Made just before from the same commit.
        return {"HEAD_IMAGE": tag("head", revision), "REVISION": revision}
    base = environ.get(variable, "")
    if not _DIGEST.fullmatch(base):
        raise Refused(
            f"{variable} has to name the base of the {name} image by digest (name@sha256:...), so that everyone builds "
            "the same; `podman image inspect --format '{{.Digest}}' NAME` shows it after a pull"
        )
    return {variable: base, "REVISION": revision}


def scan(engine: str, names: Sequence[str], environ: Mapping[str, str]) -> None:
    """No image has a critical finding or a secret, and its list of packages (SPDX) lies in build/images."""
    trivy = shutil.which("trivy", path=environ.get("PATH", ""))
    if trivy is None:
        raise Refused("trivy is not here: install it to scan images, see its own documentation")
    for name in names:
        _refuse_unbuilt(engine, name)
    REPORTS.mkdir(parents=True, exist_ok=True)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            archive = str(Path(folder) / "image.tar")
            _run(engine, "save", "--output", archive, tag(name, _revision()))
            report = str(REPORTS / f"{name}.spdx.json")
            _run(trivy, "image", "--input", archive, "--format", "spdx-json", "--output", report)
            _run(trivy, "image", "--input", archive, "--scanners", "vuln", "--severity", "CRITICAL", "--exit-code", "1")
            _run(trivy, "image", "--input", archive, "--scanners", "secret", "--exit-code", "1")


def _refuse_unbuilt(engine: str, name: str) -> None:
    command = [engine, "image", "inspect", tag(name, _revision())]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        raise Refused(f"there is no {name} image of the last commit ({_revision()}): make it with `make images`")


def push(engine: str, names: Sequence[str], environ: Mapping[str, str]) -> None:
    """Each image, once it was scanned, is in REGISTRY; its digest is printed, as the file of a cluster wants it."""
    registry = environ.get("REGISTRY", "").rstrip("/")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.:-]*(/[a-z0-9._-]+)*", registry):
        raise Refused("REGISTRY has to name where images go, as `make push REGISTRY=registry.example/team`")
    scan(engine, names, environ)
    for name in names:
        target = f"{registry}/swe-fleet/{name}:{_revision()}"
        _run(engine, "tag", tag(name, _revision()), target)
        _run(engine, "push", target)
        found = subprocess.run(
            [engine, "image", "inspect", "--format", "{{index .RepoDigests 0}}", target],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        print(f"images: {name}: {found.stdout.strip()}")


def tag(name: str, revision: str) -> str:
    """Under which an image is found on this machine."""
    return f"localhost/swe-fleet/{name}:{revision}"


def _revision() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _export(folder: Path) -> None:
    """The last commit: nothing that lies around here, and no key, gets into an image."""
    archive = folder.parent / f"{folder.name}.tar"
    try:
        subprocess.run(["git", "-C", str(ROOT), "archive", "--output", str(archive), "HEAD"], check=True)
        with tarfile.open(archive) as tar:
            # Python before 3.11.4 has no filters; what is unpacked is our own commit.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(folder)
    finally:
        archive.unlink(missing_ok=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], os.environ))
