"""Stores that several parts share."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from fleet.adapters.blobs import FileBlobStore
from fleet.adapters.redis import RedisBlobStore, RedisClient, connect_redis
from fleet.config import FileBlobSettings, RedisBlobSettings, S3BlobSettings
from fleet.ports import BlobStore
from fleet.wiring.blob_store import make_s3_blobs
from fleet.wiring.endpoints import Endpoints

if TYPE_CHECKING:
    from fleet.adapters.neo4j import Neo4jGraph
    from fleet.adapters.witness import FolderWitness

__all__ = ["make_blobs", "make_graph", "make_witness"]


def make_blobs(endpoints: Endpoints, client: RedisClient | None = None) -> BlobStore:
    """The blobs of this fleet, through `client` when they are in the log store."""
    match endpoints.blobs:
        case FileBlobSettings():
            return FileBlobStore(endpoints.blob_root)
        case RedisBlobSettings():
            return RedisBlobStore(client or connect_redis(endpoints.redis_url))
        case S3BlobSettings() as settings:
            return make_s3_blobs(endpoints, settings)
        case _:
            assert_never(endpoints.blobs)


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
