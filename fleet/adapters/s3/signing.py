"""Signatures of requests to an S3-compatible store, version 4, with the payload's digest in every one."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

__all__ = ["S3Keys", "signed_headers"]

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
