"""Secrets in files that this user alone can read."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

from fleet.secrets.port import SecretValue
from fleet.secrets.providers.failures import NamedProvider, as_mapping, decoded
from fleet.secrets.providers.private_file import PrivateBytes, Unsafe, opened, private_directory, private_file

_MAX_DOCUMENT_BYTES = 1_048_576


class FileSecrets:
    """One file per secret in a folder, or one JSON file of names and values. Implements the port SecretProvider.

    The folder has mode 0700 and every file 0600; all belong to the user of this process. Links, hard links, pipes and
    files of others are refused at each call, on the open file itself. One newline at the end of a file of its own is
    no part of the value. Change a file by renaming a new one over it.

    Args:
        label: name of this provider in config and audit.
        path: the folder or the JSON file.
        names: the secrets that are served from there.
        ttl_s: seconds for which a value may be used.
    """

    def __init__(self, label: str, path: Path, names: Collection[str], *, ttl_s: int) -> None:
        self._source = NamedProvider(label, ttl_s=ttl_s)
        self._path = path
        self._names = frozenset(names)

    @property
    def label(self) -> str:
        """Name of this provider in config and audit."""
        return self._source.label

    async def resolve(self, name: str, *, as_role: str, tool: str, op: str) -> SecretValue:
        """The value that the file holds now."""
        return await asyncio.to_thread(self._resolve, name)

    def _resolve(self, name: str) -> SecretValue:
        if name not in self._names:
            raise self._source.not_found(name, "config does not list it there")
        content = self._read(name)
        return self._source.value(name, content.data, version=content.version)

    def _read(self, name: str) -> PrivateBytes:
        try:
            with opened(str(self._path)) as handle:
                if stat.S_ISDIR(os.fstat(handle).st_mode):
                    private_directory(handle, str(self._path))
                    return _of_folder(handle, name, shown=str(self._path / name))
                content = private_file(handle, str(self._path), limit=_MAX_DOCUMENT_BYTES)
                return self._of_document(content, name)
        except FileNotFoundError as error:
            missing = str(error.filename)
        except Unsafe as error:
            raise self._source.refused(name, str(error)) from None
        except OSError as error:
            raise self._source.broken(name, f"{self._path}: {error.strerror}") from error
        raise self._source.not_found(name, f"there is no file {missing}")

    def _of_document(self, document: PrivateBytes, name: str) -> PrivateBytes:
        values = _mapping(document.data)
        if values is None:
            raise self._source.broken(name, f"{self._path} is no JSON object")
        if name not in values:
            raise self._source.not_found(name, f"{self._path} has no such key")
        value = values[name]
        if not isinstance(value, str):
            raise self._source.broken(name, f"{self._path} holds no text under that key")
        return PrivateBytes(value.encode("utf-8", "surrogatepass"), document.version)


def _of_folder(folder: int, name: str, *, shown: str) -> PrivateBytes:
    with opened(name, dir_fd=folder) as handle:
        content = private_file(handle, shown)
    return content._replace(data=content.data.removesuffix(b"\n").removesuffix(b"\r"))


def _mapping(data: bytes) -> dict[str, Any] | None:
    text = decoded(data)
    try:
        document: object = None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None
    return as_mapping(document)
