"""Blobs where the settings keep them, and what has to be true before a fleet starts with them."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from fleet.config.blobs import FileBlobSettings, RedisBlobSettings
from fleet.kernel.clock import Clock, SystemClock
from fleet.kernel.errors import ConfigError
from fleet.kernel.plugin import ReadSecrets
from fleet.log.redis.connection import connect_redis
from fleet.secrets.port import SecretValue
from fleet.secrets.service import KnownSecrets
from fleet.trees.port import BlobStore, BlobStoreParts, BlobStorePlugin
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.plugins import Chosen, Group, choose
from fleet.wiring.stores.secrets import check_secret

BLOB_STORES: Group[BlobStorePlugin[Any]] = Group(
    "swe_fleet.blob_stores", "blob store", BlobStorePlugin, ("file", "redis")
)
_USE = {"as_role": "devops", "tool": "blobs", "op": "keep"}
_PROBE = b"a blob of the start"


def check_blob_keys(endpoints: Endpoints) -> None:
    """The configured store of blobs can be asked as far as the files say: its keys are kept somewhere and granted.

    Raises:
        ConfigError: there is no such store, an option is wrong, no provider has a key, or no grant covers its use.
    """
    if (chosen := _chosen(endpoints)) is None:
        return
    chosen.plugin.make(chosen.options, blob_store_parts(endpoints))
    for name in chosen.plugin.secrets(chosen.options):
        check_secret(endpoints, name, what="a key", of="the blobs' store", tool=_USE["tool"], ops=[_USE["op"]])


def check_blobs_reach(endpoints: Endpoints, machines: Collection[str]) -> None:
    """Nothing happens when every one of these machines finds what another one stored.

    Raises:
        ConfigError: blobs are with each machine alone, and there are several; says what to set.
    """
    settings, count = endpoints.blobs, len(set(machines))
    if count < 2 or isinstance(settings, RedisBlobSettings):
        return
    if isinstance(settings, FileBlobSettings):
        if settings.shared:
            return
        where = f"files below {endpoints.blob_root} of each machine"
    elif (chosen := _chosen(endpoints)) is None or chosen.plugin.is_shared:
        return
    else:
        where = f"in a store of kind {settings.kind}, which each machine has for itself"
    raise ConfigError(
        f"blobs are {where}, and Ray has {count} machines: what "
        "one stores the others would not find; set blobs to kind s3 or to redis, or mount one volume as the home of "
        "all of them and say blobs: {kind: file, shared: true}",
        key="blobs",
        machines=sorted(set(machines)),
    )


async def check_blobs_answer(endpoints: Endpoints, *, environ: Mapping[str, str] | None = None) -> None:
    """Nothing happens when the configured store can be written and read. The log store has to be up, for the audit.

    Raises:
        StoreUnavailable, StoreFull: it cannot; says what to mend.
        NotFound, PolicyDenied: its keys cannot be had.
    """
    if (chosen := _chosen(endpoints)) is None:
        return
    parts = blob_store_parts(endpoints, environ=environ)
    if chosen.plugin.check is not None:
        await chosen.plugin.check(chosen.options, parts)
        return
    store = chosen.plugin.make(chosen.options, parts)
    await store.get(await store.put(_PROBE))


def make_further_blobs(
    endpoints: Endpoints, *, environ: Mapping[str, str] | None = None, clock: Clock | None = None
) -> BlobStore:
    """The blobs of a fleet whose store is an extension.

    Args:
        environ: where the environment provider of secrets looks; that of the process, when none is given.
        clock: of the machine, when none is given.
    """
    chosen = _chosen(endpoints)
    assert chosen is not None, "files and Redis are no extensions"
    return chosen.plugin.make(chosen.options, blob_store_parts(endpoints, environ=environ, clock=clock))


def blob_store_parts(
    endpoints: Endpoints, *, environ: Mapping[str, str] | None = None, clock: Clock | None = None
) -> BlobStoreParts:
    """What a store that is an extension is made from."""
    ticking = clock or SystemClock()
    read = _reader(endpoints, environ=os.environ if environ is None else environ, clock=ticking)
    return BlobStoreParts(home=Path(endpoints.home), clock=ticking, secrets=read)


def _chosen(endpoints: Endpoints) -> Chosen[BlobStorePlugin[Any]] | None:
    settings = endpoints.blobs
    if isinstance(settings, FileBlobSettings | RedisBlobSettings):
        return None
    return choose(
        BLOB_STORES,
        settings.kind,
        settings.options,
        where=f"{endpoints.files.place('fleet.yaml', 'blobs.kind')}: blobs",
    )


def _reader(endpoints: Endpoints, *, environ: Mapping[str, str], clock: Clock) -> ReadSecrets:
    async def read(names: Sequence[str]) -> list[SecretValue]:
        from fleet.secrets.redis import RedisAccessTrail
        from fleet.wiring.stores.secrets import make_secret_broker, recorded_accesses

        # Keys are read rarely, so the way to the audit trail is opened for each reading and does not outlive its loop.
        trail = connect_redis(endpoints.redis_url)
        try:
            broker = make_secret_broker(
                endpoints,
                environ=environ,
                record=recorded_accesses(RedisAccessTrail(trail)),
                known_secrets=KnownSecrets(),
                clock=clock,
            )
            return [await broker.resolve(name, **_USE) for name in names]
        finally:
            await trail.aclose()

    return read
