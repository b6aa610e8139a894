"""The key of a server: given with the environment, or fetched from a secret store when it is needed."""

from __future__ import annotations

from typing import Protocol

__all__ = ["HIDDEN", "ApiKey", "GivenKey"]

HIDDEN = "[REDACTED]"


class ApiKey(Protocol):
    """Where a model finds its key. It is asked before every call, so that a key that was rotated is seen."""

    async def get(self) -> str:
        """The present key, empty when there is none. ModelUnavailable names the reference and what to do."""
        ...

    async def renewed(self, refused: str) -> str | None:
        """Another key than the one that the server has just refused; None when there is no other."""
        ...

    def hide(self, text: str) -> str:
        """The text without the key."""
        ...


class GivenKey:
    """A key that does not change while the process lives."""

    def __init__(self, value: str) -> None:
        self._value = value

    async def get(self) -> str:
        """See `ApiKey.get`."""
        return self._value

    async def renewed(self, refused: str) -> str | None:
        """See `ApiKey.renewed`: there is no other."""
        return None

    def hide(self, text: str) -> str:
        """See `ApiKey.hide`. What is shorter than a key could be an ordinary word, and stays."""
        return text.replace(self._value, HIDDEN) if len(self._value) >= 6 else text
