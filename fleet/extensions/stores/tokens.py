"""Reads the tokens by which this process shows a store of secrets who it is.

They are read at each use and may rotate.
"""

from __future__ import annotations

from pathlib import Path

from fleet.secrets.providers.failures import decoded
from fleet.secrets.providers.private_file import Unsafe, opened, private_file

_MAX_BYTES = 16_384


def private_token(path: Path) -> str:
    """The token in a file that this user alone may read. Raises Unsafe."""
    try:
        with opened(str(path)) as handle:
            return _token(private_file(handle, str(path)).data, path)
    except OSError as error:
        why = f"the token file {path} cannot be read: {error.strerror}"
    raise Unsafe(why)


def projected_token(path: Path) -> str:
    """The token that Kubernetes mounts into a pod: links and a mode that the kubelet chooses. Raises Unsafe."""
    try:
        with path.open("rb") as file:
            return _token(file.read(_MAX_BYTES + 1), path)
    except OSError as error:
        why = f"the token file {path} cannot be read: {error.strerror}"
    raise Unsafe(why)


def _token(data: bytes, path: Path) -> str:
    text = (decoded(data) or "").strip()
    if not text or len(data) > _MAX_BYTES or not text.isascii() or not text.isprintable() or " " in text:
        raise Unsafe(f"the token file {path} holds no token; write the token alone into it")
    return text
