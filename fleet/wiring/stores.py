"""Stores that several parts share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.adapters.blobs import FileBlobStore
from fleet.adapters.redis import RedisBlobStore, RedisClient, connect_redis
from fleet.ports import BlobStore
from fleet.wiring.endpoints import Endpoints

if TYPE_CHECKING:
    from fleet.adapters.neo4j import Neo4jGraph
    from fleet.adapters.witness import FolderWitness

__all__ = ["make_blobs", "make_graph", "make_witness"]


def make_blobs(endpoints: Endpoints, client: RedisClient | None = None) -> BlobStore:
    """The blobs of this fleet, through `client` when they are in the log store."""
    if endpoints.blobs == "redis":
        return RedisBlobStore(client or connect_redis(endpoints.redis_url))
    return FileBlobStore(endpoints.blob_root)


def make_graph(endpoints: Endpoints) -> Neo4jGraph:
    """The decision graph; whoever asked for it closes it."""
    from fleet.adapters.neo4j import Neo4jGraph

    return Neo4jGraph.connect(
        endpoints.neo4j_uri,
        user=endpoints.neo4j_user,
        password=endpoints.neo4j_password,
        database=endpoints.neo4j_database,
    )


def make_witness(endpoints: Endpoints) -> FolderWitness:
    """What owners of stories ask before they believe the log."""
    from fleet.adapters.witness import FolderWitness

    return FolderWitness(endpoints.audit.folder)
