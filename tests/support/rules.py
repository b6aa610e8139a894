"""The packaged definitions, as the product loads them."""

from __future__ import annotations

from functools import cache

from fleet.config import ConfigFiles, packaged_directory
from fleet.story import FsmConfig

__all__ = ["files", "fsm"]


@cache
def files() -> ConfigFiles:
    """The packaged config files."""
    return ConfigFiles(packaged_directory())


@cache
def fsm() -> FsmConfig:
    """config/fsm.yaml."""
    return files().load("fsm.yaml", FsmConfig)
