"""Repository knowledge of one node."""

from __future__ import annotations

from pathlib import Path

from fleet.kernel.digest import digest_of
from fleet.knowledge.service import CodeKnowledge
from fleet.knowledge.sqlite import SqliteFactStore
from fleet.trees.port import BlobStore
from fleet.wiring.endpoints import Endpoints


def make_knowledge(endpoints: Endpoints, blobs: BlobStore) -> CodeKnowledge:
    """Answers over trees; what is known of files is shared by the processes of this node, and by them alone."""
    # SQLite's log of writes needs memory that processes share: a home on a network file system has one file a node.
    name = f"facts-{digest_of(endpoints.node.encode()).hex[:12]}.sqlite"
    return CodeKnowledge(blobs, SqliteFactStore(Path(endpoints.home) / "knowledge" / name))
