"""Blobs in an S3-compatible store: its keys, and what has to be true before a fleet starts with it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

from fleet.config.blobs import FileBlobSettings, S3BlobSettings
from fleet.kernel.clock import Clock, SystemClock
from fleet.kernel.errors import ConfigError
from fleet.secrets.service import KnownSecrets
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.stores.secrets import check_secret

if TYPE_CHECKING:
    from fleet.extensions.stores.s3 import S3BlobStore, S3Keys


_START_TRIES = 2
"""Whoever starts a fleet looks at it, and shall not wait for minutes."""
_USE = {"as_role": "devops", "tool": "blobs", "op": "keep"}


def check_blob_keys(endpoints: Endpoints) -> None:
    """The configured store of blobs can be asked as far as the files say: its keys are kept somewhere and granted.

    Raises:
        ConfigError: the address is of the wrong form, no provider has a key, or no grant covers its use.
    """
    settings = endpoints.blobs
    if not isinstance(settings, S3BlobSettings):
        return
    make_s3_blobs(endpoints, settings)
    for name in settings.secrets:
        check_secret(endpoints, name, what="a key", of="the blobs' store", tool=_USE["tool"], ops=[_USE["op"]])


def check_blobs_reach(endpoints: Endpoints, machines: Collection[str]) -> None:
    """Nothing happens when every one of these machines finds what another one stored.

    Raises:
        ConfigError: blobs are files of each machine alone, and there are several; says what to set.
    """
    settings = endpoints.blobs
    if not isinstance(settings, FileBlobSettings) or settings.shared or len(set(machines)) < 2:
        return
    raise ConfigError(
        f"blobs are files below {endpoints.blob_root} of each machine, and Ray has {len(set(machines))} machines: what "
        "one stores the others would not find; set blobs to kind s3 or to redis, or mount one volume as the home of "
        "all of them and say blobs: {kind: file, shared: true}",
        key="blobs",
        machines=sorted(set(machines)),
    )


async def check_blobs_answer(endpoints: Endpoints, *, environ: Mapping[str, str] | None = None) -> None:
    """Nothing happens when the configured bucket can be written and read. The log store has to be up, for the audit.

    Raises:
        StoreUnavailable, StoreFull: it cannot; says what to mend.
        NotFound, PolicyDenied: its keys cannot be had.
    """
    if isinstance(endpoints.blobs, S3BlobSettings):
        settings = endpoints.blobs.model_copy(update={"tries": min(endpoints.blobs.tries, _START_TRIES)})
        await make_s3_blobs(endpoints, settings, environ=environ).check()


def make_s3_blobs(
    endpoints: Endpoints,
    settings: S3BlobSettings,
    *,
    environ: Mapping[str, str] | None = None,
    clock: Clock | None = None,
) -> S3BlobStore:
    """The store of these settings; no key is read and nothing is connected before its first use.

    Args:
        environ: where the environment provider of secrets looks; that of the process, when none is given.
        clock: of the machine, when none is given.
    """
    # Imported by fleets that use it: an HTTP client is no small thing.
    from fleet.extensions.stores.s3 import S3BlobStore, S3Place

    ticking = clock or SystemClock()
    return S3BlobStore(
        S3Place(
            settings.url,
            settings.bucket,
            region=settings.region,
            prefix=settings.prefix,
            addressing=settings.addressing,
            allow_http=settings.allow_http,
            ca_file=settings.ca_file,
        ),
        keys=StoredKeys(endpoints, settings, environ=os.environ if environ is None else environ, clock=ticking),
        clock=ticking,
        timeout_s=settings.timeout_s,
        tries=settings.tries,
    )


class _Kept(NamedTuple):
    keys: S3Keys
    ends_ms: int


class StoredKeys:
    """Keys out of the secret store, kept as long as their values may be. Implements KeySource.

    They are kept here and not by a broker, so that the audit has a line for each reading of them and not for each blob.
    """

    def __init__(
        self, endpoints: Endpoints, settings: S3BlobSettings, *, environ: Mapping[str, str], clock: Clock
    ) -> None:
        self._endpoints, self._settings, self._environ, self._clock = endpoints, settings, environ, clock
        self._kept: _Kept | None = None

    async def get(self) -> S3Keys:
        """The keys to use now; the errors of `SecretBroker.resolve` when they cannot be had."""
        if self._kept is None or self._clock.monotonic_ms() >= self._kept.ends_ms:
            self._kept = await self._read()
        return self._kept.keys

    async def renewed(self, refused: S3Keys) -> S3Keys | None:
        """Other keys than those that the store refused, read again since they may have been rotated."""
        self._kept = await self._read()
        return self._kept.keys if self._kept.keys != refused else None

    async def _read(self) -> _Kept:
        from fleet.extensions.stores.s3 import S3Keys
        from fleet.log.redis.connection import connect_redis
        from fleet.secrets.redis import RedisAccessTrail
        from fleet.wiring.stores.secrets import make_secret_broker, recorded_accesses

        started_ms = self._clock.monotonic_ms()
        # Keys are read rarely, so the way to the audit trail is opened for each reading and does not outlive its loop.
        trail = connect_redis(self._endpoints.redis_url)
        try:
            broker = make_secret_broker(
                self._endpoints,
                environ=self._environ,
                record=recorded_accesses(RedisAccessTrail(trail)),
                known=KnownSecrets(),
                clock=self._clock,
            )
            values = [await broker.resolve(name, **_USE) for name in self._settings.secrets]
        finally:
            await trail.aclose()
        access, secret, *session = (value.reveal() for value in values)
        life_s = min(value.ttl_s for value in values)
        return _Kept(S3Keys(access, secret, session[0] if session else None), started_ms + life_s * 1000)
