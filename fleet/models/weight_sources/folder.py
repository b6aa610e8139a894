"""Weights on disk: their digest, their size, and whether they are there at all (docs/design/design.md, section 7)."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fleet.kernel.errors import ModelUnavailable

_PIECE = 1 << 20
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


def digest_of_path(path: Path) -> str:
    """sha256 as hex: of the bytes of a file, or of a folder's list of files.

    The list has one line for each file, sorted by path: `<path below the folder>NUL<size>NUL<sha256>NEWLINE`, in
    UTF-8, with `/` between folders. Names that begin with a dot are left out: tools keep their notes there.
    """
    if path.is_file():
        return _digest_of_file(path)
    whole = hashlib.sha256()
    for name, file in sorted((file.relative_to(path).as_posix(), file) for file in _files(path)):
        whole.update(f"{name}\0{file.stat().st_size}\0{_digest_of_file(file)}\n".encode())
    return whole.hexdigest()


def check_digest(path: Path, expected: str | None, *, engine: str) -> str:
    """The digest of what lies at the path. Raises ModelUnavailable when another one is expected."""
    digest = digest_of_path(path)
    if expected is not None and digest != expected:
        raise ModelUnavailable(
            f"the weights of engine {engine!r} at {path} have sha256 {digest}, but path_sha256 says {expected}: get "
            "the right ones, or correct path_sha256 in config/models.yaml",
            engine=engine,
            reason="wrong_digest",
            expected=expected,
            found=digest,
            permanent=True,
        )
    return digest


def present(path: Path, *, engine: str) -> Path:
    """The folder of weights. Raises ModelUnavailable when it is not there or holds no weights."""
    if not path.is_dir():
        why = f"{path} is no folder" if path.exists() else f"there is nothing at {path}"
    elif not (path / "config.json").is_file():
        why = f"{path} has no config.json"
    elif size_of_weights(path) == 0:
        why = f"{path} holds no weights"
    else:
        return path
    raise ModelUnavailable(
        f"the weights of engine {engine!r} are missing: {why}; set `path` in config/models.yaml to the folder of the "
        "model on the node of the engine",
        engine=engine,
        reason="missing_weights",
        permanent=True,
    )


def size_of_weights(path: Path) -> int:
    """Bytes of all files of weights below a folder, those of one format only where it holds several."""
    sizes = {end: sum(file.stat().st_size for file in _files(path) if file.suffix == end) for end in _WEIGHTS}
    return next((size for size in sizes.values() if size), 0)


def _files(path: Path) -> list[Path]:
    def is_hidden(file: Path) -> bool:
        return any(part.startswith(".") for part in file.relative_to(path).parts)

    return [file for file in path.rglob("*") if file.is_file() and not is_hidden(file)]


def _digest_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
