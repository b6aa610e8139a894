"""What a package gives the fleet under the name of an entry point (RT-69)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Options = TypeVar("Options")
Parts = TypeVar("Parts")
Made = TypeVar("Made")


class Secret(Protocol):
    """The present value of a secret, which nothing but `reveal` shows."""

    @property
    def ttl_s(self) -> int:
        """Seconds for which it may be used."""
        ...

    def reveal(self) -> str:
        """The value itself."""
        ...


ReadSecrets = Callable[[Sequence[str]], Awaitable[Sequence[Secret]]]
"""Reads secrets by name, each use decided and audited.

Raises NotFound, PolicyDenied or StoreUnavailable.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin(Generic[Options, Parts, Made]):
    """What an entry point leads to: how to check the options of one kind, and how to make it."""

    name: str
    """What `kind` in the configuration says; the entry point has the same name."""
    options: type[Options]
    """A model or dataclass, made of the keys of the configuration; unknown keys are refused."""
    make: Callable[[Options, Parts], Made]
    """Imports and checks what it needs; connects nowhere before the first use. Raises ConfigError."""


@dataclass(frozen=True, slots=True)
class NoOptions:
    """Options of what the configuration only names."""
