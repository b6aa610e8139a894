"""Forges: where a story's code comes from and where its result goes; `local` serves folders of this machine."""

from fleet.adapters.forge.beginning import begin_repository, is_unused
from fleet.adapters.forge.dirty import DirtyPaths, dirty_paths
from fleet.adapters.forge.hosted import ClosableChangeRequests, ForgeKind, change_requests_for
from fleet.adapters.forge.local import LocalForge, check_repository
from fleet.adapters.forge.local_changes import LocalChangeRequests

__all__ = [
    "ClosableChangeRequests",
    "DirtyPaths",
    "ForgeKind",
    "LocalChangeRequests",
    "LocalForge",
    "begin_repository",
    "change_requests_for",
    "check_repository",
    "dirty_paths",
    "is_unused",
]
