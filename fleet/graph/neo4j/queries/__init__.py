"""The named queries in Cypher, one file each; values are parameters (GR-98)."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def cypher_of(name: str) -> str:
    """The statement of this name."""
    return files(__name__).joinpath(f"{name}.cypher").read_text(encoding="utf-8")
