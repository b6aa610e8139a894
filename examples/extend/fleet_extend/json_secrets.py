"""A secret provider: one JSON file that nobody but the fleet's user may read."""

import asyncio
import json
import os
import stat
from pathlib import Path

from pydantic import BaseModel

from fleet.kernel.errors import NotFound, PolicyDenied, StoreUnavailable
from fleet.secrets.port import ProviderParts, SecretProviderPlugin, SecretValue


class JsonOptions(BaseModel):
    """The options of a provider of kind `json` in secrets.yaml."""

    file: Path
    """A JSON object of names and values, of mode 0600."""


class JsonSecrets:
    """Implements the port SecretProvider: the file is read at each call, and no error holds a value."""

    def __init__(self, file: Path, parts: ProviderParts) -> None:
        self._file, self._parts = file, parts

    @property
    def label(self) -> str:
        """Name of this provider in audit lines and errors."""
        return self._parts.label

    async def resolve(self, name: str, *, as_role: str, tool: str, op: str) -> SecretValue:
        """The value that the file holds now."""
        values, version = await asyncio.to_thread(self._read)
        if name not in self._parts.names or not isinstance(values.get(name), str):
            raise NotFound(f"{self._file} has no secret {name!r}: add it", secret=name, provider=self.label)
        return SecretValue(values[name], name=name, provider=self.label, version=version, ttl_s=self._parts.ttl_s)

    def _read(self) -> tuple[dict, str]:
        try:
            handle = os.open(self._file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(handle, "rb") as file:
                found = os.fstat(handle)
                # Of the open file: what the name leads to may change at any moment.
                if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                    raise PolicyDenied(f"{self._file} is open to others: chmod 600 it", rule_id="file_open_to_others")
                values = json.loads(file.read())
        except (OSError, ValueError):
            raise StoreUnavailable(f"{self._file} cannot be read as JSON: mend it", provider=self.label) from None
        return values if isinstance(values, dict) else {}, str(found.st_mtime_ns)


def make(options: JsonOptions, parts: ProviderParts) -> JsonSecrets:
    """The provider of one entry of secrets.yaml; nothing is read."""
    return JsonSecrets(options.file, parts)


PLUGIN = SecretProviderPlugin(name="json", options=JsonOptions, make=make)
