"""Blobs in an S3-compatible store, for a fleet of several machines."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol
from urllib.parse import quote

import httpx2
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

from fleet.kernel.clock import Clock
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import (
    ArtifactNotFound,
    ConfigError,
    FleetError,
    LogCorrupted,
    PayloadTooLarge,
    StoreFull,
    StoreUnavailable,
)
from fleet.kernel.ids import Digest
from fleet.web.answers import Unanswered, pauses, seconds_of
from fleet.web.http import HttpAnswer, HttpExchanges
from fleet.web.trust import safe_address, trust_of

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class S3Keys:
    """What a request is signed with; the secret parts are not shown."""

    access: str
    """Name of the key, sent in clear."""
    secret: str = field(repr=False)
    """Signs, and is never sent."""
    session: str | None = field(default=None, repr=False)
    """Token of keys that live for a while; sent with each request."""


def signed_headers(
    method: str,
    path: str,
    headers: Mapping[str, str],
    *,
    payload_sha256: str,
    keys: S3Keys,
    region: str,
    now_ms: int,
) -> dict[str, str]:
    """All headers of a request without a query: those that are given, and what proves who sends them.

    Args:
        path: from `/` on, not yet escaped; slashes part its names.
        headers: names in lower case, `host` among them; every one is signed.
        payload_sha256: 64 hex digits over the body; the server refuses any other body.
        now_ms: UTC; servers refuse what is more than 15 minutes off.

    Source: Signature Version 4 of the Amazon S3 REST interface ("Authenticating Requests: Using the Authorization
    Header"), whose examples the tests hold.
    """
    stamp = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    sent = {**headers, "x-amz-content-sha256": payload_sha256, "x-amz-date": stamp}
    if keys.session is not None:
        sent["x-amz-security-token"] = keys.session
    names = ";".join(sorted(sent))
    listed = "".join(f"{name}:{sent[name].strip()}\n" for name in sorted(sent))
    canonical = "\n".join([method, quote(path, safe="/-_.~"), "", listed, names, payload_sha256])
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    text = "\n".join([_ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signature = hmac.new(_signing_key(keys.secret, scope), text.encode(), hashlib.sha256).hexdigest()
    proof = f"{_ALGORITHM} Credential={keys.access}/{scope},SignedHeaders={names},Signature={signature}"
    return {**sent, "authorization": proof}


def _signing_key(secret: str, scope: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


_CODE = re.compile(rb"<Code>\s*([A-Za-z0-9.]{1,80})\s*</Code>")


@dataclass(frozen=True, slots=True)
class S3Place:
    """Where blobs lie in an S3-compatible store."""

    url: str
    """Root of the store: `https://host[:port]`."""
    bucket: str
    region: str = "us-east-1"
    """What the signature names; stores without regions take any."""
    prefix: str = ""
    """What all names of blobs begin with; empty or ending in `/`."""
    addressing: Literal["path", "host"] = "path"
    """Whether the bucket stands in the path or in front of the host."""
    allow_http: bool = False
    """Without TLS to another machine; to this one it is always allowed."""
    ca_file: Path | None = None
    """Certificates of the authorities to trust instead of the usual ones."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    data: bytes
    """The body; of an error at most its first 64 KiB."""
    code: str
    """The store's own word for the error; empty when it said none."""
    wait_s: float | None
    """How long the store asks us to wait, if it does."""
    region: str | None
    """Where the store says that the bucket is."""

    @property
    def said(self) -> str:
        """Status and code for messages."""
        return f"{self.status} {self.code}".rstrip()


class TooLarge(Exception):  # noqa: N818 - a finding, as Unanswered is
    """The answer is larger than any blob."""


class S3Http:
    """Asks one bucket. Certificates are checked; redirects, proxies and keys of the environment are not used.

    Args:
        place: where the bucket is.
        timeout_s: for one whole exchange, however slowly the store sends.
        max_bytes: of an answer.

    Raises:
        ConfigError: the address is no such URL, or the certificates cannot be read.
    """

    def __init__(self, place: S3Place, *, timeout_s: float, max_bytes: int) -> None:
        url = _checked(place)
        host = url.netloc.decode()
        self._is_in_path = place.addressing == "path"
        self._host = host if self._is_in_path else f"{place.bucket}.{host}"
        self._root = f"{url.scheme}://{self._host}"
        self._place, self._max_bytes = place, max_bytes
        self._http = HttpExchanges(trust_of(place.ca_file, key="blobs.ca_file"), timeout_s=timeout_s)

    @property
    def shown(self) -> str:
        """The bucket's address for messages."""
        return f"{self._root}/{self._place.bucket}" if self._is_in_path else self._root

    async def ask(
        self, method: str, name: str, *, body: bytes, sha256: str, headers: Mapping[str, str], keys: S3Keys, now_ms: int
    ) -> Answer:
        """The answer, whatever its status. Raises Unanswered, and TooLarge."""
        path = f"/{self._place.bucket}/{name}" if self._is_in_path else f"/{name}"
        signed = signed_headers(
            method,
            path,
            {"host": self._host, **headers},
            payload_sha256=sha256,
            keys=keys,
            region=self._place.region,
            now_ms=now_ms,
        )
        try:
            found = await self._http.ask(
                method, self._root + path, headers=signed, content=body or None, most=self._max_bytes
            )
        except Unanswered as error:
            hint = " (blobs.ca_file names the authority)" if error.is_distrust else ""
            raise Unanswered(f"{error}{hint}") from None
        if found.is_success and not found.is_whole:
            raise TooLarge
        return _answer(found)


def _answer(found: HttpAnswer) -> Answer:
    code = None if found.is_success else _CODE.search(found.data)
    return Answer(
        found.status,
        found.data,
        code.group(1).decode() if code else "",
        seconds_of(found.headers.get("retry-after"), date=found.headers.get("date")),
        found.headers.get("x-amz-bucket-region"),
    )


def _checked(place: S3Place) -> httpx2.URL:
    url = safe_address(place.url, allow_http=place.allow_http)
    if url is None or url.path != "/":
        raise ConfigError(
            "blobs.url must be https://host[:port] without path, user, query or fragment; plain http is for this "
            "machine, or for others with blobs.allow_http; mend fleet.yaml",
            key="blobs.url",
        )
    return url


_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_TRANSIENT_CODES = frozenset({"ConditionalRequestConflict", "OperationAborted", "RequestTimeout", "SlowDown"})
_FULL_CODES = frozenset({"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"})
_REFUSED_KEYS = frozenset({"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"})


def is_refused_key(answer: Answer) -> bool:
    """The store does not accept the keys, or does not say why. An answer to HEAD has no body."""
    return answer.status == 401 or (answer.status in (400, 403) and (answer.code in _REFUSED_KEYS or not answer.code))


def is_transient(answer: Answer) -> bool:
    """The same request may succeed later."""
    return answer.status in _TRANSIENT or answer.code in _TRANSIENT_CODES


def refusal(answer: Answer, shown: str, digest: Digest, doing: str) -> FleetError:
    """The error for an answer that is final, with what to do."""
    facts = {"digest": str(digest), "status": answer.status, "reason": answer.code}
    start = f"{shown} refuses to {doing} blob {digest} ({answer.said})"
    if answer.status == 507 or answer.code in _FULL_CODES:
        return StoreFull(f"{start}: it has no room; free some and repeat", **facts)
    if answer.status == 413 or answer.code == "EntityTooLarge":
        return PayloadTooLarge(f"{start}: it is too large for that store", **facts)
    return StoreUnavailable(f"{start}: {_mend(answer)}", **facts)


def _mend(answer: Answer) -> str:
    if answer.code == "NoSuchBucket":
        return "make the bucket, or mend blobs.bucket"
    if answer.code == "RequestTimeTooSkewed":
        return "the clock of this machine is wrong; set it"
    if answer.code in _REFUSED_KEYS or answer.status == 401:
        return "it does not accept the keys; mend the secrets that blobs.access_key and blobs.secret_key name"
    if answer.status == 403:
        return "the keys need GetObject and PutObject on its objects, and ListBucket on the bucket"
    if answer.status in (301, 307, 308) or answer.code == "AuthorizationHeaderMalformed":
        where = f" to {answer.region}" if answer.region else ""
        return f"the bucket is elsewhere; set blobs.region{where}, and blobs.url to that region's address"
    return "see the log of the store, mend it and repeat"


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

        async def decided() -> Answer:
            answer = await self._once(method, digest, body, headers)
            if is_transient(answer):
                raise Unanswered(f"it answered {answer.said}", wait_s=answer.wait_s)
            return answer

        again = AsyncRetrying(
            retry=retry_if_exception_type(Unanswered),
            wait=pauses(0.15, most_s=20.0),
            stop=stop_after_attempt(self._tries),
            sleep=self._clock.sleep,
            reraise=True,
        )
        try:
            return await again(decided)
        except TooLarge:
            raise self._damaged(digest) from None
        except Unanswered as error:
            raise StoreUnavailable(
                f"cannot {doing} blob {digest} at {self._http.shown}: {error}, in {self._tries} tries; see to the "
                "store and repeat",
                digest=str(digest),
                tries=self._tries,
                reason=str(error),
            ) from None

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
