"""Stores that several parts share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from fleet.config.blobs import FileBlobSettings, RedisBlobSettings
from fleet.log.redis.connection import RedisClient, connect_redis
from fleet.trees.files import FileBlobStore
from fleet.trees.port import BlobStore, DiskUse
from fleet.trees.redis import RedisBlobStore
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.stores.blobs import make_further_blobs

if TYPE_CHECKING:
    from fleet.audit.files.witness import FolderWitness
    from fleet.graph.neo4j.graph import Neo4jGraph


def make_blobs(endpoints: Endpoints, client: RedisClient | None = None) -> BlobStore:
    """The blobs of this fleet, through `client` when they are in the log store.

    No key is read and nothing is connected before the first use. ConfigError as `check_blob_keys`.
    """
    match endpoints.blobs:
        case FileBlobSettings():
            return FileBlobStore(endpoints.blob_root, limit_bytes=endpoints.blobs.limit_bytes)
        case RedisBlobSettings():
            return RedisBlobStore(client or connect_redis(endpoints.redis_url))
        case _:
            return make_further_blobs(endpoints)


def usage_of(blobs: BlobStore) -> Callable[[], Awaitable[DiskUse]] | None:
    """What says how much of this node's disk the blobs take; None where they lie elsewhere."""
    return blobs.usage if isinstance(blobs, FileBlobStore) else None


def make_graph(endpoints: Endpoints) -> Neo4jGraph:
    """The decision graph; whoever asked for it closes it."""
    from fleet.graph.neo4j.graph import Neo4jGraph

    return Neo4jGraph.connect(
        endpoints.neo4j_uri,
        user=endpoints.neo4j_user,
        password=endpoints.neo4j_password,
        database=endpoints.neo4j_database,
    )


def make_witness(endpoints: Endpoints) -> FolderWitness:
    """What owners of stories ask before they believe the log."""
    from fleet.audit.files.witness import FolderWitness

    return FolderWitness(endpoints.audit.folder)
