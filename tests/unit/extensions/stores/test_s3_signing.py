"""Signatures against the examples of the S3 documentation."""

from __future__ import annotations

from datetime import UTC, datetime

from fleet.extensions.stores.s3 import S3Keys, signed_headers
from fleet.kernel.digest import digest_of

# Published with the specification of the signature; they open nothing.
KEYS = S3Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
AT_MS = int(datetime(2013, 5, 24, tzinfo=UTC).timestamp() * 1000)
HOST = "examplebucket.s3.amazonaws.com"


def signature_of(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> str:
    """What the request is signed with."""
    sha256 = digest_of(body).hex
    found = signed_headers(
        method, path, {"host": HOST, **headers}, payload_sha256=sha256, keys=KEYS, region="us-east-1", now_ms=AT_MS
    )
    return found["authorization"].rpartition("Signature=")[2]


def test_read_is_signed_as_in_the_documentation() -> None:
    found = signature_of("GET", "/test.txt", {"range": "bytes=0-9"})
    assert found == "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"


def test_write_is_signed_as_in_the_documentation() -> None:
    headers = {"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"}
    found = signature_of("PUT", "/test$file.text", headers, b"Welcome to Amazon S3.")
    assert found == "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"


def test_session_token_is_sent_and_signed() -> None:
    keys = S3Keys("A", "secret-secret", "token-token")
    found = signed_headers("GET", "/k", {"host": "h"}, payload_sha256="0" * 64, keys=keys, region="eu", now_ms=AT_MS)
    assert found["x-amz-security-token"] == "token-token"
    assert "x-amz-security-token" in found["authorization"]


def test_keys_do_not_show_what_is_secret() -> None:
    assert repr(S3Keys("A", "secret-secret", "token-token")) == "S3Keys(access='A')"
