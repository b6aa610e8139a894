"""Secrets in memory, for unit tests."""

from __future__ import annotations

from fleet.kernel.errors import FleetError, NotFound, StoreUnavailable
from fleet.policy.secret_grants import SecretAccess
from fleet.secrets.port import SecretValue


class MemoryAccessTrail:
    """Audit lines of secrets, kept as long as the object. Implements the port AccessTrail."""

    def __init__(self) -> None:
        self._lines: list[SecretAccess] = []

    async def record(self, line: SecretAccess) -> None:
        """The line is kept."""
        self._lines.append(line)

    async def newest(self, *, limit: int = 100) -> list[SecretAccess]:
        """The last lines, the newest first."""
        return self._lines[::-1][:limit]


class MemorySecrets:
    """Values that a test puts in, with versions that count up. Implements the port SecretProvider.

    Args:
        label: name of this provider in config and audit.
        ttl_s: seconds for which a value may be used.
    """

    def __init__(self, label: str = "memory", *, ttl_s: int = 60) -> None:
        self._label = label
        self._ttl_s = ttl_s
        self._values: dict[str, tuple[str, int]] = {}
        self.failure: FleetError | None = None
        """Raised by every resolve while it is set."""
        self.resolved: list[str] = []
        """`role tool.op name` of every call that came in."""

    @property
    def label(self) -> str:
        """Name of this provider in config and audit."""
        return self._label

    def put(self, name: str, text: str) -> None:
        """The value from now on, as its next version."""
        self._values[name] = (text, self._values.get(name, ("", 0))[1] + 1)

    def remove(self, name: str) -> None:
        """There is no such secret any more."""
        self._values.pop(name, None)

    async def resolve(self, name: str, *, as_role: str, tool: str, op: str) -> SecretValue:
        """The value that was put last."""
        self.resolved.append(f"{as_role} {tool}.{op} {name}")
        if self.failure is not None:
            raise self.failure
        if name not in self._values:
            raise NotFound(
                f"{self._label} holds no secret {name!r}; put it there first", secret=name, provider=self._label
            )
        text, version = self._values[name]
        if not SecretValue.fits(text):
            raise StoreUnavailable(
                f"secret {name!r} of {self._label} is empty, holds a NUL or is too large; put another one",
                secret=name,
                provider=self._label,
            )
        return SecretValue(text, name=name, provider=self._label, version=str(version), ttl_s=self._ttl_s)
