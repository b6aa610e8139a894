"""Blobs in an S3-compatible store, for a fleet of several machines."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from fleet.adapters.s3.http import Answer, S3Http, S3Place, TooLarge, Unanswered
from fleet.adapters.s3.refusals import is_refused_key, is_transient, refusal
from fleet.adapters.s3.signing import S3Keys
from fleet.digest import digest_of
from fleet.errors import ArtifactNotFound, LogCorrupted, PayloadTooLarge, StoreUnavailable
from fleet.ids import Digest
from fleet.ports import Clock

__all__ = ["MAX_BLOB_BYTES", "KeySource", "S3BlobStore"]

MAX_BLOB_BYTES = 256 << 20
"""A blob may be at most this large: it is in memory while it is sent, and one request carries it whole."""

_AT_ONCE = 16
"""Blobs of one `get_many` that are asked for at the same time."""
_EMPTY = digest_of(b"").hex
_STORED = frozenset({200, 204})
_UNKNOWN_CONDITION = frozenset({"NotImplemented", "InvalidArgument"})
"""How stores that know no conditional writes refuse them; there, the same bytes are written again."""
_UNCONDITIONAL: Mapping[str, str] = MappingProxyType({"content-type": "application/octet-stream"})
_IF_ABSENT: Mapping[str, str] = MappingProxyType({**_UNCONDITIONAL, "if-none-match": "*"})


class KeySource(Protocol):
    """Where the store's keys come from; they may be rotated while the fleet runs."""

    async def get(self) -> S3Keys:
        """The keys to use now."""
        ...

    async def renewed(self, refused: S3Keys) -> S3Keys | None:
        """Other keys than those that the store refused; None when there are no others."""
        ...


class S3BlobStore:
    """Blobs as objects `<prefix><first 2 hex digits>/<64 hex digits>`. Implements the port BlobStore.

    An object is written where none is yet; one that is there is read back and replaced only when it is damaged. So a
    put may be repeated, and a bucket with versions or locked objects keeps one version of each. What was asked without
    an answer, or answered with 408, 429 or 5xx, is asked again: at most `tries` times, with growing waits.

    Args:
        place: address, bucket and prefix.
        keys: asked before each request.
        clock: stamps the signatures and measures the waits.
        timeout_s: for one request with all of its answer.
        tries: requests for one call, while the store does not decide it.
        max_bytes: `put` refuses more with PayloadTooLarge.

    Raises:
        ConfigError: the address is of the wrong form, or the certificates cannot be read.
    """

    def __init__(
        self,
        place: S3Place,
        *,
        keys: KeySource,
        clock: Clock,
        timeout_s: float = 60.0,
        tries: int = 5,
        max_bytes: int = MAX_BLOB_BYTES,
    ) -> None:
        self._http = S3Http(place, timeout_s=timeout_s, max_bytes=max_bytes)
        self._prefix, self._keys, self._clock = place.prefix, keys, clock
        self._tries, self._max_bytes = tries, max_bytes
        self._knows_conditions = True

    async def put(self, data: bytes) -> Digest:
        """The bytes are in the bucket under their digest; a damaged blob of the same digest is mended."""
        if len(data) > self._max_bytes:
            raise PayloadTooLarge(
                f"a blob of {len(data)} bytes, {self._http.shown} is given up to {self._max_bytes}: split it",
                size_bytes=len(data),
                limit_bytes=self._max_bytes,
            )
        digest = digest_of(data)
        if self._knows_conditions and await self._put_if_absent(digest, data):
            return digest
        answer = await self._ask("PUT", digest, "store", body=data, headers=_UNCONDITIONAL)
        if answer.status not in _STORED:
            raise refusal(answer, self._http.shown, digest, "store")
        return digest

    async def get(self, digest: Digest) -> bytes:
        """The bytes; ArtifactNotFound when there are none, LogCorrupted when they no longer match their digest."""
        answer = await self._ask("GET", digest, "read")
        if answer.status == 404 and answer.code != "NoSuchBucket":
            raise ArtifactNotFound(
                f"no blob has digest {digest}: it was never stored in {self._http.shown}", digest=str(digest)
            )
        if answer.status != 200:
            raise refusal(answer, self._http.shown, digest, "read")
        if digest_of(answer.data) != digest:
            raise self._damaged(digest)
        return answer.data

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes]:
        """The bytes of each in this order; some of them are asked for at the same time."""
        found: list[bytes] = []
        for start in range(0, len(digests), _AT_ONCE):
            found += await asyncio.gather(*map(self.get, digests[start : start + _AT_ONCE]))
        return found

    async def has(self, digest: Digest) -> bool:
        """Whether `get` would find it."""
        answer = await self._ask("HEAD", digest, "look for")
        if answer.status not in (200, 404):
            raise refusal(answer, self._http.shown, digest, "look for")
        return answer.status == 200

    async def check(self) -> None:
        """Nothing happens when the bucket can be written and read; the errors of `put` and `get` otherwise."""
        await self.get(await self.put(b""))

    async def _put_if_absent(self, digest: Digest, data: bytes) -> bool:
        """Whether the blob is there now; False asks for a write without a condition."""
        answer = await self._ask("PUT", digest, "store", body=data, headers=_IF_ABSENT)
        if answer.status in _STORED:
            return True
        if answer.status == 412:
            return await self._holds(digest)
        if answer.code not in _UNKNOWN_CONDITION:
            raise refusal(answer, self._http.shown, digest, "store")
        self._knows_conditions = False
        return False

    async def _holds(self, digest: Digest) -> bool:
        try:
            await self.get(digest)
        except (ArtifactNotFound, LogCorrupted):
            return False
        return True

    async def _ask(
        self,
        method: str,
        digest: Digest,
        doing: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> Answer:
        """What the store decided. Raises StoreUnavailable when it decided nothing in all tries."""
        why = ""
        for number in range(self._tries):
            wait_s: float | None = None
            try:
                answer = await self._once(method, digest, body, headers)
            except TooLarge:
                raise self._damaged(digest) from None
            except Unanswered as error:
                why = str(error)
            else:
                if not is_transient(answer):
                    return answer
                why, wait_s = f"it answered {answer.said}", answer.wait_s
            if number + 1 < self._tries:
                await self._clock.sleep(_pause_s(number, wait_s))
        raise StoreUnavailable(
            f"cannot {doing} blob {digest} at {self._http.shown}: {why}, in {self._tries} tries; see to the store and "
            "repeat",
            digest=str(digest),
            tries=self._tries,
            reason=why,
        )

    async def _once(self, method: str, digest: Digest, body: bytes, headers: Mapping[str, str]) -> Answer:
        async def sent(keys: S3Keys) -> Answer:
            return await self._http.ask(
                method,
                f"{self._prefix}{digest.hex[:2]}/{digest.hex}",
                body=body,
                sha256=digest.hex if method == "PUT" else _EMPTY,
                headers=headers,
                keys=keys,
                now_ms=self._clock.now_ms(),
            )

        answer = await sent(keys := await self._keys.get())
        if is_refused_key(answer) and (fresh := await self._keys.renewed(keys)):
            return await sent(fresh)
        return answer

    def _damaged(self, digest: Digest) -> LogCorrupted:
        return LogCorrupted(
            f"blob {digest} no longer matches its digest: restore it in {self._http.shown} from a backup or version",
            digest=str(digest),
        )


def _pause_s(number: int, asked_s: float | None) -> float:
    """0.2 s, doubled each time to 5 s at most, by chance up to half as long; or what the store asks, up to 20 s."""
    if asked_s is not None:
        return min(asked_s, 20.0)
    return min(0.2 * 2**number, 5.0) * random.uniform(0.5, 1.0)
