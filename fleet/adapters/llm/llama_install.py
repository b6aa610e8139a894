"""Builds llama.cpp's Python server into an environment of its own below the home: no other package has to fit to it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fleet.adapters.llm.llama_server import installed_python
from fleet.errors import ModelUnavailable

__all__ = ["MINUTES", "REQUIREMENT", "install_llama"]

REQUIREMENT = "llama-cpp-python[server]==0.3.36"
"""As the extra `local` of pyproject.toml has it."""
MINUTES = 15
_TELL_S = 15.0


def install_llama(home: Path, *, told: Callable[[str], None], install: Sequence[str] | None = None) -> Path:
    """The interpreter of an environment that can serve GGUF files. A half-made environment is not left behind.

    Args:
        told: takes what pip prints, and the minutes that passed.
        install: the command that installs, in which `{python}` stands for the new interpreter.

    Raises:
        ModelUnavailable: it could not be built; says what the builder said last. `reason` load_failed.
    """
    python = installed_python(home)
    folder = python.parents[1]
    try:
        _run([_base_python(), "-m", "venv", "--clear", str(folder)], told)
        command = install or ["{python}", "-m", "pip", "install", "--disable-pip-version-check", REQUIREMENT]
        _run([part.replace("{python}", str(python)) for part in command], told)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return python


def _base_python() -> str:
    """The interpreter below the environment that runs this, whose `venv` has pip."""
    found = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return str(found) if found.exists() else sys.executable


def _run(command: Sequence[str], told: Callable[[str], None]) -> None:
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
        raise ModelUnavailable(
            f"llama.cpp could not be built ({' '.join(command[:4])} ended with {code}): {last[:300]}; it needs a C++ "
            "compiler and your package index. Or install `llama-server` and name it by FLEET_LLAMA_SERVER",
            reason="load_failed",
            permanent=True,
        )
