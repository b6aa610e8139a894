"""The bucket that fleet.yaml names for blobs, with its keys out of the secret store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from fleet.extensions.stores.s3 import S3BlobStore, S3Keys, S3Place
from fleet.kernel.clock import Clock
from fleet.kernel.plugin import ReadSecrets
from fleet.trees.port import BlobStoreParts, BlobStorePlugin


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """The keys of `blobs` in fleet.yaml for kind s3; what each means stands there."""

    url: str
    bucket: str
    region: str
    prefix: str
    addressing: Literal["path", "host"]
    access_key: str
    secret_key: str
    session_token: str | None
    allow_http: bool
    ca_file: Path | None
    timeout_s: int
    tries: int

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of the secrets that the store needs."""
        given = (self.access_key, self.secret_key, self.session_token)
        return tuple(reference.removeprefix("secret://") for reference in given if reference)

    @property
    def place(self) -> S3Place:
        """Where the bucket is."""
        return S3Place(
            self.url,
            self.bucket,
            region=self.region,
            prefix=self.prefix,
            addressing=self.addressing,
            allow_http=self.allow_http,
            ca_file=self.ca_file,
        )


class _Kept(NamedTuple):
    keys: S3Keys
    ends_ms: int


class StoredKeys:
    """Keys out of the secret store, kept as long as their values may be. Implements KeySource.

    They are kept here, so that the audit has a line for each reading of them and not for each blob.

    Args:
        names: of the secrets: the key's name, the key, and the token of keys that live for a while.
        read: reads them.
        clock: tells when they end.
    """

    def __init__(self, names: Sequence[str], read: ReadSecrets, clock: Clock) -> None:
        self._names, self._read_secrets, self._clock = names, read, clock
        self._kept: _Kept | None = None

    async def get(self) -> S3Keys:
        """The keys to use now; the errors of `ReadSecrets` when they cannot be had."""
        if self._kept is None or self._clock.monotonic_ms() >= self._kept.ends_ms:
            self._kept = await self._read()
        return self._kept.keys

    async def renewed(self, refused: S3Keys) -> S3Keys | None:
        """Other keys than those that the store refused, read again since they may have been rotated."""
        self._kept = await self._read()
        return self._kept.keys if self._kept.keys != refused else None

    async def _read(self) -> _Kept:
        started_ms = self._clock.monotonic_ms()
        values = await self._read_secrets(self._names)
        access, secret, *session = (value.reveal() for value in values)
        life_s = min(value.ttl_s for value in values)
        return _Kept(S3Keys(access, secret, session[0] if session else None), started_ms + life_s * 1000)


_START_TRIES = 2
"""Whoever starts a fleet looks at it, and shall not wait for minutes."""


def _store(options: S3Options, parts: BlobStoreParts, *, tries: int | None = None) -> S3BlobStore:
    return S3BlobStore(
        options.place,
        keys=StoredKeys(options.secrets, parts.secrets, parts.clock),
        clock=parts.clock,
        timeout_s=options.timeout_s,
        tries=options.tries if tries is None else tries,
    )


async def _check(options: S3Options, parts: BlobStoreParts) -> None:
    await _store(options, parts, tries=min(options.tries, _START_TRIES)).check()


PLUGIN = BlobStorePlugin(
    name="s3",
    options=S3Options,
    make=_store,
    secrets=lambda options: options.secrets,
    is_shared=True,
    check=_check,
)
