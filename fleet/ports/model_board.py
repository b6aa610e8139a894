"""Port: where processes say how the models that they call or run are doing, for people who look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fleet.models import ModelFigures

__all__ = ["ModelBoard"]


class ModelBoard(Protocol):
    """The last word of each reporter. Everything on it may be lost at any moment."""

    async def post(self, reporter: str, figures: Sequence[ModelFigures], *, ttl_s: int) -> None:
        """This is what the reporter says, for `ttl_s` seconds or until it says something else. StoreUnavailable."""
        ...

    async def read(self) -> list[ModelFigures]:
        """What all reporters said that is still good, by reporter. StoreUnavailable."""
        ...
