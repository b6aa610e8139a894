"""Sandbox backends: where tools run. bubblewrap is the default; nothing ever runs unsandboxed in silence."""

from fleet.adapters.sandbox.bubblewrap import BubblewrapBackend
from fleet.adapters.sandbox.identity import is_reachable, is_root, reachable_state_root

__all__ = ["BubblewrapBackend", "is_reachable", "is_root", "reachable_state_root"]
