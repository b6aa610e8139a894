"""Builds llama.cpp's server below the home, from the source that its Python package carries: one binary, no package."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fleet.kernel.errors import ModelUnavailable
from fleet.models.engines.llama_server import installed_server

MINUTES = 15
"""On two cores; more cores are used."""
SOURCE = "llama-cpp-python==0.3.36"
"""As the extra `local` of pyproject.toml has it. Its source package carries llama.cpp whole, from any package index."""
SOURCE_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
BUILDERS = ("cmake==4.4.4", "ninja==1.13.2")
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "OFF",
    # Nothing is fetched while it is built, and the server fetches nothing later.
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
}
_PIP = ("-m", "pip", "--disable-pip-version-check")
_TELL_S = 15.0

Tell = Callable[[str], None]


def install_llama(home: Path, *, told: Tell, build: Callable[[Path, Tell], Path] | None = None) -> Path:
    """The server's binary, which is there whole or not at all; what was needed to build it does not stay.

    Args:
        told: takes what the builders print, and the minutes that passed.
        build: makes the binary below a folder; how it is made from source, when none is given.

    Raises:
        ModelUnavailable: it could not be built; says what the builder said last. `reason` load_failed.
    """
    server = installed_server(home)
    server.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place: what is renamed into place has to be on the same file system.
    with tempfile.TemporaryDirectory(dir=server.parents[1], prefix=".build-") as folder:
        made = (build or _from_source)(Path(folder), told)
        made.chmod(0o755)
        made.replace(server)
    return server


def _from_source(folder: Path, told: Tell) -> Path:
    tools, sources = folder / "tools", folder / "sources"
    run_builder([_base_python(), "-m", "venv", str(tools)], told)
    python = str(tools / "bin" / "python")
    run_builder([python, *_PIP, "install", *BUILDERS], told)
    run_builder(
        [python, *_PIP, "download", "--no-deps", "--no-binary", "llama-cpp-python", "-d", str(sources), SOURCE], told
    )
    archive = next(sources.glob("*.tar.gz"))
    check_source(archive)
    cmake, made = str(tools / "bin" / "cmake"), str(folder / "made")
    run_builder([cmake, "-E", "chdir", str(sources), cmake, "-E", "tar", "xzf", str(archive)], told)
    llama = next(sources.glob("*/vendor/llama.cpp"))
    options = [f"-D{name}={value}" for name, value in OPTIONS.items()]
    ninja = f"-DCMAKE_MAKE_PROGRAM={tools / 'bin' / 'ninja'}"
    run_builder([cmake, "-G", "Ninja", "-S", str(llama), "-B", made, ninja, *options], told)
    cores = str(len(os.sched_getaffinity(0)))
    run_builder([cmake, "--build", made, "--target", "llama-server", "-j", cores], told)
    return folder / "made" / "bin" / "llama-server"


def check_source(archive: Path) -> None:
    """Returns if the archive is the one that is pinned; ModelUnavailable if it is not."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SOURCE_SHA256:
        raise _failure(f"the package index has another file: {archive.name} is {digest}, and {SOURCE_SHA256} is wanted")


def _base_python() -> str:
    """The interpreter below the environment that runs this, whose `venv` has pip."""
    interpreter = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return str(interpreter) if interpreter.exists() else sys.executable


def run_builder(command: Sequence[str], told: Tell) -> None:
    """The command has ended well, its lines told; ModelUnavailable says what it said last."""
    started, last = time.monotonic(), "it said nothing"
    over = threading.Event()

    def tick() -> None:
        while not over.wait(_TELL_S):
            told(f"still building ({(time.monotonic() - started) / 60:.1f} min)")

    ticking = threading.Thread(target=tick, daemon=True)
    ticking.start()
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None, "it was asked for"
            for line in process.stdout:
                last = line.strip() or last
                told(line.rstrip())
        code = process.returncode
    except OSError as error:
        code, last = 127, str(error)
    finally:
        over.set()
        ticking.join()
    if code != 0:
        raise _failure(
            f"llama.cpp could not be built ({' '.join(command[:4])} ended with {code}): {last[:300]}; it needs a C++ "
            "compiler and your package index. Or install `llama-server` and name it by FLEET_LLAMA_SERVER"
        )


def _failure(message: str) -> ModelUnavailable:
    return ModelUnavailable(message, reason="load_failed", permanent=True)
