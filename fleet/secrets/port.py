"""The ports of secrets: providers and the trail of accesses."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, NoReturn, Protocol

from fleet.kernel.clock import Clock
from fleet.kernel.errors import PolicyDenied
from fleet.kernel.plugin import Options, Plugin
from fleet.policy.secret_grants import SecretAccess

MAX_SECRET_BYTES = 65_536
"""A larger value is no secret but a file."""


class SecretValue:
    """One secret, which shows itself to `reveal` alone: text, format, pickle and JSON never hold the value.

    Args:
        text: the value.
        name: the secret's name.
        provider: label of the provider that gave it.
        version: the provider's name for this version of the value, None when it has none.
        ttl_s: seconds for which it may be used; then it has to be resolved again.
    """

    __slots__ = ("__text", "name", "provider", "ttl_s", "version")

    def __init__(self, text: str, *, name: str, provider: str, version: str | None, ttl_s: int) -> None:
        self.__text = text
        self.name = name
        self.provider = provider
        self.version = version
        self.ttl_s = ttl_s

    @staticmethod
    def fits(text: str) -> bool:
        """Whether text can be a value: not empty, no NUL (no variable can hold it), at most MAX_SECRET_BYTES."""
        return bool(text) and "\0" not in text and len(_bytes(text)) <= MAX_SECRET_BYTES

    def reveal(self) -> str:
        """The value. Call it where it leaves the process, and keep no other reference to it."""
        return self.__text

    def __repr__(self) -> str:
        return f"SecretValue(name={self.name!r}, version={self.version!r}, value=[REDACTED])"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretValue):
            return NotImplemented
        return self.name == other.name and hmac.compare_digest(_bytes(self.__text), _bytes(other.__text))

    # A hash of the value would be a hint at it.
    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __copy__(self) -> SecretValue:
        return self

    def __deepcopy__(self, memo: object) -> SecretValue:
        return self

    def __getstate__(self) -> NoReturn:
        self._refuse()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise PolicyDenied(
            f"secret {self.name!r} cannot be pickled: hand on its reference secret://{self.name} and resolve it there",
            rule_id="RT-65",
            secret=self.name,
        )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class SecretDelivery:
    """What the sandbox puts where for one run. Its values reveal themselves to the launch alone."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    """Variables that hold no secret."""
    secret_env: Mapping[str, SecretValue]
    """Variables to be set to a secret."""
    secret_files: Mapping[str, SecretValue]
    """Absolute path inside the sandbox -> content; mode 0400, in memory, gone with the run."""


class SecretProvider(Protocol):
    """Gives values by name, always the present one: what was rotated at its source is seen at the next call.

    It keeps no value. Whether the caller may have it was decided before (SecretBroker); role, tool and operation are
    handed on so that the source's own audit can name them.
    """

    @property
    def label(self) -> str:
        """Name of this provider in config and audit."""
        ...

    async def resolve(self, name: str, *, as_role: str, tool: str, op: str) -> SecretValue:
        """The present value, with the version and the seconds for which it may be used.

        Raises NotFound: the provider does not serve this name, or the source has no such secret, key or version.
        PolicyDenied: the source refuses our credentials, or a file could be read or changed by somebody else.
        StoreUnavailable: the source does not answer in time, answers something else than its interface promises, or
        holds what cannot be a value (empty, no UTF-8, a NUL, more than MAX_SECRET_BYTES). No error, nor anything that
        hangs on it, holds a value or a token.
        """
        ...


class AccessTrail(Protocol):
    """One line for each use of a secret, in the order of recording; about the last million of them."""

    async def record(self, line: SecretAccess) -> None:
        """The line is on disk; a lost reply may leave it there twice.

        Raises StoreUnavailable, StoreFull or CommitUnknown; the value must not be handed out then.
        """
        ...

    async def newest(self, *, limit: int = 100) -> list[SecretAccess]:
        """The last lines, the newest first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderParts:
    """What a provider of secrets is made from."""

    label: str
    """Its name in the configuration, in audit lines and errors."""
    names: frozenset[str]
    """The secrets that it serves."""
    ttl_s: int
    """Seconds for which a value may be used."""
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretProviderPlugin(Plugin[Options, ProviderParts, SecretProvider], Generic[Options]):
    """What an entry point of the group `swe_fleet.secret_providers` leads to."""
