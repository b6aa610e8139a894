"""A stand-in for the Python that has llama_cpp: it takes the same command line and serves the same wire format."""

from __future__ import annotations

import sys
from pathlib import Path

_SCRIPT = Path(__file__).with_name("llama_stub_server.py")


def fake_llama(folder: Path, *, mode: str = "fine") -> Path:
    """A program that serves as interpreter with llama_cpp, and as `llama-server` too. `mode_of` is its behaviour."""
    folder.mkdir(parents=True, exist_ok=True)
    mode_of(folder).write_text(mode)
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{_SCRIPT}" "{folder}" "$@"\n')
    program.chmod(0o755)
    return program


def mode_of(folder: Path) -> Path:
    """The file that holds how it behaves: fine, broken, dies, hangs, or crashes at each request."""
    return folder / "mode"
