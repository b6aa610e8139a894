"""What is known of files, kept on this node's disk."""

from fleet.adapters.code_facts.sqlite import SqliteFactStore

__all__ = ["SqliteFactStore"]
