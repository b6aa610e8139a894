"""Resolve the three locks again: all platforms and versions, hashes, and no host name.

requirements.lock is what runs a fleet, as images install it. requirements-dev.lock holds the same, and what tests and
checks need; `make setup` installs it. cluster/images/gpu.lock is the environment of vLLM in the image for GPUs: its own
versions of what it shares with the fleet, and Ray at the version of requirements.lock.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN, DEV = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
GPU = ROOT / "cluster" / "images" / "gpu.lock"
# hatchling and editables build the wheel of the fleet there, without an environment of their own.
_GPU_PACKAGES = ("vllm==0.32.0", "hatchling", "editables")
HEADER = "# Made by `make lock` from pyproject.toml; not edited by hand.\n"
# Images serve every provider of models, count tokens as the models do, and test JavaScript; what is larger stays out.
_RUN_OPTIONS = ("--extra", "anthropic", "--extra", "tokenizers", "--extra", "node")
# A test environment has what runs for users, to the version.
_DEV_OPTIONS = ("--group", "dev", "--constraints", RUN.name)
_OPTIONS = (
    "--universal --generate-hashes --python-version 3.11 --no-header --no-annotate --no-emit-index-url "
    "--no-emit-find-links --quiet"
)


def main() -> int:
    """Write the locks; versions that still fit stay as they are unless --upgrade is given."""
    resolve(RUN, "pyproject.toml", *_RUN_OPTIONS)
    resolve(DEV, "pyproject.toml", *_DEV_OPTIONS)
    resolve(GPU, "-", wanted="\n".join([*_GPU_PACKAGES, *shared_with_vllm()]))
    return 0


def shared_with_vllm() -> list[str]:
    """What the fleet needs in the environment of vLLM: its dependencies, and Ray as on every other node."""
    ray = re.search(r"^ray==(\S+)", RUN.read_text(), re.MULTILINE)
    assert ray, f"{RUN.name} has no Ray"
    needed: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = [re.split(r"[<>=!~; ]", line)[0] for line in needed]
    return [f"{n}=={ray[1]}" if n.startswith("ray[") else line for n, line in zip(names, needed, strict=True)]


def resolve(lock: Path, *options: str, wanted: str | None = None) -> None:
    """One of the locks is what its input gives. Ends with a message when it would name a host."""
    uv = Path(sys.executable).parent / "uv"
    command = [str(uv) if uv.exists() else "uv", "pip", "compile", *_OPTIONS.split(), *options, *sys.argv[1:]]
    out = str(lock.relative_to(ROOT))
    subprocess.run([*command, "-o", out], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, input=wanted, text=True)
    text = HEADER + lock.read_text()
    if "://" in text:
        lock.unlink()
        raise SystemExit("the lock would name a host: no package may come from an address of its own")
    lock.write_text(text)


if __name__ == "__main__":
    raise SystemExit(main())
