"""What an answer of an S3-compatible store means: ask again, with other keys, or an error of ours. Pure."""

from __future__ import annotations

from fleet.adapters.s3.http import Answer
from fleet.errors import FleetError, PayloadTooLarge, StoreFull, StoreUnavailable
from fleet.ids import Digest

__all__ = ["is_refused_key", "is_transient", "refusal"]

_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_TRANSIENT_CODES = frozenset({"ConditionalRequestConflict", "OperationAborted", "RequestTimeout", "SlowDown"})
_FULL_CODES = frozenset({"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"})
_REFUSED_KEYS = frozenset({"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"})


def is_refused_key(answer: Answer) -> bool:
    """The store does not accept the keys, or does not say why it refuses (an answer to HEAD has no body)."""
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
