"""A stand-in of an S3-compatible store: one bucket, conditional writes, and signatures that it checks by itself."""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from fleet.extensions.stores.s3 import S3BlobStore, S3Keys, S3Place
from fleet.kernel.clock import SystemClock
from tests.support.http_stand_in import Reply, Request, serving_http

FIRST_KEYS = S3Keys("FLEET-ACCESS", "first-secret-key-of-a-test")
_PROOF = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request,SignedHeaders=([^,]+),"
                    r"Signature=([0-9a-f]{64})")  # fmt: skip


@dataclass
class FakeS3:
    """What lies in the bucket, whose keys are good, and what the next requests are answered instead."""

    bucket: str = "fleet-blobs"
    region: str = "eu-test-1"
    keys: S3Keys = FIRST_KEYS
    objects: dict[str, bytes] = field(default_factory=dict)
    versions: int = 0
    """Objects written, each overwriting counted."""
    knows_conditions: bool = True
    next: deque[Reply] = field(default_factory=deque)
    """Answers to the next requests, whatever they ask."""
    asked: list[Request] = field(default_factory=list)
    clock_off_s: float = 0.0

    def answer(self, request: Request) -> Reply:
        """What the store says."""
        self.asked.append(request)
        if self.next:
            return self.next.popleft()
        if refused := self._unsigned(request):
            return self._error(request, 403, refused)
        bucket, _, name = request.path.removeprefix("/").partition("/")
        if bucket != self.bucket:
            return self._error(request, 404, "NoSuchBucket")
        match request.method:
            case "PUT":
                return self._put(request, name)
            case "GET" | "HEAD" if name in self.objects:
                return Reply(raw=self.objects[name] if request.method == "GET" else b"")
            case _:
                return self._error(request, 404, "NoSuchKey")

    def _put(self, request: Request, name: str) -> Reply:
        if "if-none-match" in request.headers:
            if not self.knows_conditions:
                return self._error(request, 501, "NotImplemented")
            if name in self.objects:
                return self._error(request, 412, "PreconditionFailed")
        self.objects[name] = request.body
        self.versions += 1
        return Reply(raw=b"")

    def _error(self, request: Request, status: int, code: str) -> Reply:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        return Reply(status, raw=b"" if request.method == "HEAD" else body)

    def _unsigned(self, request: Request) -> str | None:
        """The store's word for what is wrong with the signature, worked out from the request as it came."""
        found = _PROOF.fullmatch(request.headers.get("authorization", ""))
        if found is None or found[1] != self.keys.access:
            return "InvalidAccessKeyId"
        stamp, sent = request.headers["x-amz-date"], request.headers["x-amz-content-sha256"]
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        if abs(at - time.time() - self.clock_off_s) > 900:
            return "RequestTimeTooSkewed"
        if sent != hashlib.sha256(request.body).hexdigest():
            return "XAmzContentSHA256Mismatch"
        if request.headers.get("x-amz-security-token") != self.keys.session or found[3] != self.region:
            return "InvalidToken"
        return None if found[5] == self._signature(request, found[2], found[4]) else "SignatureDoesNotMatch"

    def _signature(self, request: Request, day: str, names: str) -> str:
        must = {"host", *(n for n in request.headers if n.startswith("x-amz-"))}
        listed = names.split(";") if must <= set(names.split(";")) else []
        lines = [request.method, request.path, "", *(f"{n}:{request.headers[n]}" for n in listed), "", names]
        lines.append(request.headers["x-amz-content-sha256"])
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{request.headers['x-amz-date']}\n{day}/{self.region}/s3/aws4_request\n{digest}"
        key = b"AWS4" + self.keys.secret.encode()
        for part in (day, self.region, "s3", "aws4_request", text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return key.hex()


@dataclass
class Rotating:
    """Keys that another is taken from once the first is refused. Implements KeySource."""

    present: S3Keys = FIRST_KEYS
    following: S3Keys | None = None

    async def get(self) -> S3Keys:
        return self.present

    async def renewed(self, refused: S3Keys) -> S3Keys | None:
        if self.following is not None:
            self.present, self.following = self.following, None
        return None if self.present == refused else self.present


class HastyClock(SystemClock):
    """The machine's clock, whose waits end at once and are written down."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


@dataclass
class OpenS3:
    """A store and what stands behind it."""

    server: FakeS3
    blobs: S3BlobStore
    clock: HastyClock
    place: S3Place
    keys: Rotating


@asynccontextmanager
async def open_s3(
    *,
    tls: ssl.SSLContext | None = None,
    change: Callable[[S3Place], S3Place] = lambda place: place,
    timeout_s: float = 10.0,
    max_bytes: int = 8 << 20,
) -> AsyncIterator[OpenS3]:
    """A store with an empty bucket on loopback."""
    server, clock, keys = FakeS3(), HastyClock(), Rotating()
    async with serving_http(server.answer, tls=tls) as url:
        place = change(S3Place(url, server.bucket, region=server.region, prefix="ours/"))
        blobs = S3BlobStore(place, keys=keys, clock=clock, timeout_s=timeout_s, max_bytes=max_bytes)
        yield OpenS3(server, blobs, clock, place, keys)
