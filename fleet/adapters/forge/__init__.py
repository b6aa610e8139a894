"""Forges: where a story's code comes from and where its result goes; `local` serves folders of this machine."""

from fleet.adapters.forge.dirty import DirtyPaths, dirty_paths
from fleet.adapters.forge.local import LocalForge, check_repository

__all__ = ["DirtyPaths", "LocalForge", "check_repository", "dirty_paths"]
