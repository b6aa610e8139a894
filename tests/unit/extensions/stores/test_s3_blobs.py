"""What only the blobs in an S3-compatible store do: names, conditions, damage, keys, faults of server and network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fleet.extensions.stores.s3 import MAX_BLOB_BYTES, S3BlobStore, S3Keys, S3Place
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
from tests.support.http_stand_in import Reply
from tests.support.s3_server import FIRST_KEYS, HastyClock, OpenS3, Rotating, open_s3
from tests.support.secret_places import leaks
from tests.support.tool_calls import certificates

DATA = b"a blob!"
DIGEST = digest_of(DATA)
NAME = f"ours/{DIGEST.hex[:2]}/{DIGEST.hex}"


def error(status: int, code: str = "") -> Reply:
    """An error as stores word it."""
    return Reply(status, raw=f"<Error><Code>{code}</Code></Error>".encode() if code else b"")


async def refused(opened: OpenS3, *replies: Reply) -> FleetError:
    """What a read that gets these answers ends with."""
    opened.server.next.extend(replies)
    with pytest.raises(FleetError) as caught:
        await opened.blobs.get(DIGEST)
    return caught.value


async def test_blob_lies_under_its_digest_and_is_written_once() -> None:
    async with open_s3() as opened:
        for _ in range(3):
            await opened.blobs.put(DATA)
        assert opened.server.objects == {NAME: DATA}
        assert opened.server.versions == 1
        await opened.blobs.check()


async def test_store_without_conditional_writes_is_asked_with_one_once() -> None:
    async with open_s3() as opened:
        opened.server.knows_conditions = False
        for _ in range(3):
            await opened.blobs.put(DATA)
        assert sum("if-none-match" in request.headers for request in opened.server.asked) == 1
        assert opened.server.objects == {NAME: DATA}


@pytest.mark.parametrize("damage", [b"damaged", b"", b"a blob"])
async def test_damaged_blob_is_never_returned_and_put_mends_it(damage: bytes) -> None:
    async with open_s3() as opened:
        opened.server.objects[NAME] = damage
        with pytest.raises(LogCorrupted, match="no longer matches") as caught:
            await opened.blobs.get(DIGEST)
        assert caught.value.details == {"digest": DIGEST}
        await opened.blobs.put(DATA)
        assert await opened.blobs.get(DIGEST) == DATA


async def test_object_larger_than_any_blob_is_damaged_and_not_read_to_its_end() -> None:
    async with open_s3(max_bytes=1000) as opened:
        opened.server.objects[NAME] = b"x" * 5000
        with pytest.raises(LogCorrupted):
            await opened.blobs.get(DIGEST)


async def test_blob_at_the_limit_is_stored_and_one_over_it_is_refused() -> None:
    async with open_s3(max_bytes=1000) as opened:
        await opened.blobs.get(await opened.blobs.put(b"x" * 1000))
        with pytest.raises(PayloadTooLarge) as caught:
            await opened.blobs.put(b"x" * 1001)
        assert caught.value.details == {"size_bytes": 1001, "limit_bytes": 1000}
        assert len(opened.server.objects) == 1
        assert MAX_BLOB_BYTES == 256 * 2**20


@pytest.mark.parametrize(
    "reply",
    [error(500, "InternalError"), error(503, "SlowDown"), error(429), error(408), error(400, "RequestTimeout"),
     error(409, "ConditionalRequestConflict"), Reply(is_lost=True)],
    ids=lambda reply: f"{reply.status}-{reply.is_lost}",
)  # fmt: skip
async def test_put_that_the_store_did_not_decide_is_repeated(reply: Reply) -> None:
    async with open_s3() as opened:
        opened.server.next.extend([reply, reply])
        await opened.blobs.put(DATA)
        assert opened.server.objects == {NAME: DATA}
        assert len(opened.clock.waits) == 2
        assert 0.15 <= opened.clock.waits[0] <= 0.3 <= opened.clock.waits[1] <= 0.45


async def test_put_whose_reply_is_lost_finds_its_own_object_at_the_second_try() -> None:
    async with open_s3() as opened:
        opened.server.objects[NAME] = DATA
        opened.server.next.append(Reply(is_lost=True))
        assert await opened.blobs.put(DATA) == DIGEST
        assert opened.server.versions == 0


async def test_tries_are_bounded_and_the_store_may_say_how_long_to_wait() -> None:
    async with open_s3() as opened:
        busy = replace(error(503, "SlowDown"), headers={"retry-after": "7"})
        endless = replace(busy, headers={"retry-after": "3600"})
        found = await refused(opened, busy, busy, busy, busy, endless)
        assert isinstance(found, StoreUnavailable)
        assert found.details == {"digest": DIGEST, "tries": 5, "reason": "it answered 503 SlowDown"}
        assert opened.clock.waits == [7.0] * 4
        await refused(opened, *[endless] * 5)
        assert opened.clock.waits[4:] == [20.0] * 4


@pytest.mark.parametrize("reply", [Reply(hang=True), Reply(drip=True)], ids=["silent", "dripping"])
async def test_store_that_does_not_come_to_an_end_is_unavailable(reply: Reply) -> None:
    async with open_s3(timeout_s=0.1) as opened:
        found = await refused(opened, *[reply] * 5)
        assert isinstance(found, StoreUnavailable)
        assert found.details["reason"] == "it did not answer in 0.1 s"


async def test_blobs_without_a_server_are_unavailable() -> None:
    blobs = S3BlobStore(S3Place("http://127.0.0.1:1", "b"), keys=Rotating(), clock=HastyClock())
    for work in (blobs.put(DATA), blobs.get(DIGEST), blobs.has(DIGEST)):
        with pytest.raises(StoreUnavailable, match=r"ConnectError.*in 5 tries"):
            await work


@pytest.mark.parametrize(
    ("reply", "kind", "mend"),
    [
        (error(404, "NoSuchBucket"), StoreUnavailable, "make the bucket"),
        (error(403, "AccessDenied"), StoreUnavailable, "GetObject and PutObject"),
        (error(403, "RequestTimeTooSkewed"), StoreUnavailable, "clock of this machine"),
        (error(403, "SignatureDoesNotMatch"), StoreUnavailable, "blobs.secret_key"),
        (error(401), StoreUnavailable, "does not accept the keys"),
        (Reply(301, raw=b"", headers={"x-amz-bucket-region": "eu-west-1"}), StoreUnavailable, "region to eu-west-1"),
        (error(400, "AuthorizationHeaderMalformed"), StoreUnavailable, "set blobs.region, and"),
        (error(400, "MethodNotAllowed"), StoreUnavailable, "log of the store"),
        (error(507), StoreFull, "no room"),
        (error(403, "QuotaExceeded"), StoreFull, "no room"),
        (error(413), PayloadTooLarge, "too large for that store"),
        (error(404, "NoSuchKey"), ArtifactNotFound, "never stored"),
    ],
)
async def test_refusal_is_typed_and_says_what_to_do(reply: Reply, kind: type[FleetError], mend: str) -> None:
    async with open_s3() as opened:
        found = await refused(opened, reply)
        assert type(found) is kind
        assert mend in found.message
        assert opened.clock.waits == []


async def test_refusals_of_put_and_has_are_typed_too() -> None:
    async with open_s3() as opened:
        opened.server.next.append(error(403, "AccessDenied"))
        with pytest.raises(StoreUnavailable, match="to store blob"):
            await opened.blobs.put(DATA)
        opened.server.next.extend([error(412), error(404, "NoSuchKey"), error(507)])
        with pytest.raises(StoreFull):
            await opened.blobs.put(DATA)
        opened.server.next.append(error(403))
        with pytest.raises(StoreUnavailable, match="to look for blob"):
            await opened.blobs.has(DIGEST)


async def test_long_error_is_cut_and_still_understood() -> None:
    async with open_s3() as opened:
        found = await refused(opened, Reply(404, raw=b"<Code>NoSuchBucket</Code>" + b"x" * 500_000))
        assert found.details["reason"] == "NoSuchBucket"


async def test_keys_that_were_rotated_are_read_again() -> None:
    fresh = S3Keys("FLEET-SECOND", "second-secret-key-of-a-test", "token-of-a-session")
    async with open_s3() as opened:
        await opened.blobs.put(DATA)
        opened.server.keys, opened.keys.following = fresh, fresh
        assert await opened.blobs.get(DIGEST) == DATA
        assert opened.keys.present == fresh


async def test_refused_keys_are_no_part_of_the_error() -> None:
    async with open_s3() as opened:
        opened.server.keys = S3Keys(FIRST_KEYS.access, "another-secret")
        with pytest.raises(StoreUnavailable) as caught:
            await opened.blobs.get(DIGEST)
        assert caught.value.details["reason"] == "SignatureDoesNotMatch"
        assert leaks(caught.value, FIRST_KEYS.secret) == []


async def test_clock_that_is_wrong_is_named() -> None:
    async with open_s3() as opened:
        opened.server.clock_off_s = 3600
        with pytest.raises(StoreUnavailable, match="clock of this machine is wrong"):
            await opened.blobs.get(DIGEST)


async def test_bucket_may_stand_in_front_of_the_host() -> None:
    async with open_s3(change=lambda place: replace(place, bucket="127", addressing="host", url=place.url.replace(
            "127.0.0.1", "0.0.1"), allow_http=True)) as opened:  # fmt: skip
        with pytest.raises(StoreUnavailable, match=r"http://127\.0\.0\.1:\d+ refuses.*NoSuchBucket"):
            await opened.blobs.get(DIGEST)
        assert opened.server.asked[0].path == f"/{NAME}"


async def test_tls_is_checked_and_an_authority_may_be_named(tmp_path: Path) -> None:
    server, _ = certificates(tmp_path, "127.0.0.1")
    async with open_s3(tls=server) as opened:
        with pytest.raises(StoreUnavailable, match="certificate is not trusted"):
            await opened.blobs.put(DATA)
    async with open_s3(tls=server, change=lambda place: replace(place, ca_file=tmp_path / "server.pem")) as opened:
        assert await opened.blobs.get(await opened.blobs.put(DATA)) == DATA


@pytest.mark.parametrize(
    "url",
    ["http://store.example", "ftp://store.example", "https://", "https://user:hunter2@store.example", "https://h/path",
     "https://h?x=1", "https://h#x", "https://[", "https://h:port", "store.example"],
)  # fmt: skip
def test_address_that_is_not_safe_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError, match="blobs.url must be") as caught:
        S3BlobStore(S3Place(url, "b"), keys=Rotating(), clock=HastyClock())
    assert "hunter2" not in str(caught.value)


def test_plain_http_to_another_machine_has_to_be_said() -> None:
    assert S3BlobStore(S3Place("http://store.example", "b", allow_http=True), keys=Rotating(), clock=HastyClock())


@pytest.mark.parametrize("name", ["missing.pem", "empty.pem"])
def test_certificates_that_cannot_be_read_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.pem").touch()
    with pytest.raises(ConfigError, match="blobs.ca_file"):
        S3BlobStore(S3Place("https://h", "b", ca_file=tmp_path / name), keys=Rotating(), clock=HastyClock())
