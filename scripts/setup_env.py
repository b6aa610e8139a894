"""The environment of this checkout: `.venv` with exactly what requirements-dev.lock names, each file checked by hash.

It also writes the typed part of `swe_fleet_client`, which is made from docs/openapi.json and not committed. Standard
library only: it runs before anything is installed. A second call with nothing changed ends at once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements-dev.lock"
GENERATOR = ROOT / "scripts" / "client.py"
GENERATED = (ROOT / "swe_fleet_client" / "models.py", ROOT / "swe_fleet_client" / "operations.py")
_STATED = (LOCK, ROOT / "pyproject.toml", ROOT / "docs" / "openapi.json", GENERATOR)


def main(arguments: list[str]) -> int:
    """Make or mend the environment; 0 when it is ready."""
    venv = ROOT / (arguments[0] if arguments else ".venv")
    stamp = venv / ".ready"
    wanted = state_digest(venv)
    if stamp.exists() and stamp.read_text() == wanted and all(path.exists() for path in GENERATED):
        stamp.touch()
        return 0
    started = time.monotonic()
    try:
        python = create(venv)
        install(venv, python)
        generate(python)
    except subprocess.CalledProcessError as error:
        return trouble(error)
    stamp.write_text(state_digest(venv))
    say(f"The environment is ready ({time.monotonic() - started:.0f} s).")
    return 0


def state_digest(venv: Path) -> str:
    """Changes when one of the files that the environment follows from changes, or its place."""
    parts = [*(path.read_bytes() for path in _STATED), str(venv).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def create(venv: Path) -> Path:
    """The environment's interpreter; one that works is kept."""
    python = venv / "bin" / "python"
    if works(python):
        return python
    say(f"Making {venv.name}/ with Python {sys.version.split()[0]} ...")
    if venv.exists():
        shutil.rmtree(venv)
    # Debian's python3 comes without ensurepip: then uv or the system's own pip fills the environment.
    if quiet(sys.executable, "-m", "venv", str(venv)) != 0:
        shutil.rmtree(venv, ignore_errors=True)
        run(sys.executable, "-m", "venv", "--without-pip", str(venv))
    return python


def works(python: Path) -> bool:
    """Whether this interpreter runs and has a version that the project supports."""
    check = "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))"
    return python.exists() and quiet(str(python), "-c", check) == 0


def install(venv: Path, python: Path) -> None:
    """Everything of the lock, then the project itself in editable form."""
    installer = uv_for(venv, python)
    say(f"Installing {count()} packages with {'uv' if installer else 'pip'}; the first time takes some minutes ...")
    if installer:
        pip = [installer, "pip", "install", "--python", str(python)]
    else:
        pip = [*pip_for(python), "install"]
    run(*pip, "--require-hashes", "--no-deps", "-r", str(LOCK))
    run(*pip, "--no-deps", "--no-build-isolation", "-e", str(ROOT))


def generate(python: Path) -> None:
    """The generated modules are those of docs/openapi.json."""
    run(str(python), str(GENERATOR))


def count() -> int:
    """How many packages the lock names."""
    return sum("==" in line for line in LOCK.read_text().splitlines())


def uv_for(venv: Path, python: Path) -> str | None:
    """The fast installer: of this environment, put there by pip, or of the system; None when there is none."""
    own = venv / "bin" / "uv"
    if own.exists():
        return str(own)
    if quiet(str(python), "-m", "pip", "--version") == 0:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as part:
            part.write(entry_of("uv"))
            part.flush()
            if quiet(str(python), "-m", "pip", "install", "--require-hashes", "--no-deps", "-r", part.name) == 0:
                return str(own)
    return shutil.which("uv")


def entry_of(name: str) -> str:
    """The lines of one package in the lock, its hashes among them."""
    lines = LOCK.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{name}=="))
    end = next((i for i in range(start + 1, len(lines)) if not lines[i].startswith(" ")), len(lines))
    return "\n".join(lines[start:end]) + "\n"


def pip_for(python: Path) -> list[str]:
    """A pip that installs into the environment. Ends with a message when there is none."""
    if quiet(str(python), "-m", "pip", "--version") == 0:
        return [str(python), "-m", "pip"]
    if quiet(sys.executable, "-m", "pip", "--version") == 0:
        return [sys.executable, "-m", "pip", "--python", str(python)]
    raise SystemExit(
        "This Python has neither pip nor ensurepip: install your system's package python3-venv (or python3-pip, or uv) "
        "and run make again."
    )


def quiet(*command: str) -> int:
    """Exit code of a command whose output nobody needs; 127 when it is missing."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode
    except OSError:
        return 127


def run(*command: str) -> None:
    """Run a command in the open. Raises CalledProcessError when it fails."""
    # Settings of a foreign active environment would redirect the installation.
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH")}
    # pip trusts the certificates of the system; uv would bring its own and fail behind a proxy that has one of those.
    environment.setdefault("UV_SYSTEM_CERTS", "1")
    subprocess.run(command, check=True, env=environment)


def trouble(error: subprocess.CalledProcessError) -> int:
    """Says which step failed and what to do."""
    say(f"Failed with exit code {error.returncode}: {' '.join(map(str, error.cmd))}")
    say("Its own message is above. Is the package registry within reach? Are 3 GB of disk free? Then run make again.")
    return 1


def say(text: str) -> None:
    """One line of progress on standard error."""
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
