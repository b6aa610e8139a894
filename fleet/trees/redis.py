"""Blobs in Redis, for a fleet whose machines share no directory."""

from __future__ import annotations

from collections.abc import Sequence

from redis.asyncio import Redis

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import ArtifactNotFound, CommitUnknown, LogCorrupted, PayloadTooLarge, StoreUnavailable
from fleet.kernel.ids import Digest
from fleet.log.redis.connection import Send, call, call_together, repeat
from fleet.log.redis.keys import blob_key

MAX_BLOB_BYTES = 64 * 1024 * 1024
"""A blob may be at most this large: the server holds it in memory, and one command carries it whole."""


class RedisBlobStore:
    """Implements the port BlobStore on one Redis server with `appendfsync always` and `noeviction`.

    Args:
        client: from `connect_redis`; whoever made it closes it.
        margin_s: how long a put is repeated after a lost reply.
        max_bytes: `put` refuses more with PayloadTooLarge.
    """

    def __init__(self, client: Redis, *, margin_s: float = 10.0, max_bytes: int = MAX_BLOB_BYTES) -> None:
        self._client = client
        self._margin_s = margin_s
        self._max_bytes = max_bytes

    async def put(self, data: bytes) -> Digest:
        """The bytes are on the server's disk under their digest; a damaged blob of the same digest is mended."""
        if len(data) > self._max_bytes:
            raise PayloadTooLarge(
                f"a blob of {len(data)} bytes, Redis holds up to {self._max_bytes}: split it, or keep blobs as files",
                size_bytes=len(data),
                limit_bytes=self._max_bytes,
            )
        digest = digest_of(data)

        async def attempt(send: Send) -> None:
            held = await send("SET", blob_key(digest), data, "NX", "GET")
            if held is not None and held != data:
                await send("SET", blob_key(digest), data)

        try:
            await repeat(self._client, attempt, doing=f"store blob {digest}", margin_s=self._margin_s)
        except CommitUnknown as error:
            # Bytes by their digest: whether they are there or not, putting them again is all that anyone has to do.
            raise StoreUnavailable(f"{error.message}; or put the blob again", digest=str(digest)) from error
        return digest

    async def get(self, digest: Digest) -> bytes:
        """The bytes; ArtifactNotFound when there are none, LogCorrupted when they no longer match their digest."""
        return _checked(digest, await call(self._client, "GET", blob_key(digest), doing=f"read blob {digest}"))

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes]:
        """The bytes of each in this order, in one round trip."""
        if not digests:
            return []
        commands = [("GET", blob_key(digest)) for digest in digests]
        replies = await call_together(self._client, commands, doing=f"read {len(digests)} blobs")
        return [_checked(digest, data) for digest, data in zip(digests, replies, strict=True)]

    async def has(self, digest: Digest) -> bool:
        """Whether `get` would find it."""
        return bool(await call(self._client, "EXISTS", blob_key(digest), doing=f"look for blob {digest}"))


def _checked(digest: Digest, data: bytes | None) -> bytes:
    if data is None:
        raise ArtifactNotFound(f"no blob has digest {digest}: it was never stored here", digest=str(digest))
    if digest_of(data) != digest:
        raise LogCorrupted(
            f"blob {digest} no longer matches its digest: restore the store from a backup", digest=str(digest)
        )
    return data
