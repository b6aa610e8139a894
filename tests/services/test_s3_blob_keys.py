"""The keys of the blobs' bucket: out of the secret store, kept for their life, and rotated while the fleet runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from fleet.config.blobs import FileBlobSettings
from fleet.extensions.stores.bucket import StoredKeys
from fleet.extensions.stores.s3 import S3Keys
from fleet.kernel.clock import MemoryClock, SystemClock
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import PolicyDenied, StoreUnavailable
from fleet.secrets.redis import RedisAccessTrail
from fleet.wiring.stores.blobs import blob_store_parts, check_blobs_answer, make_further_blobs
from tests.support.http_stand_in import serving_http
from tests.support.s3_server import FakeS3
from tests.support.s3_settings import S3, SECRETS, endpoints_of, s3
from tests.support.stores import empty_database, own_database


@pytest.fixture
def database(redis_url: str) -> str:
    """An empty database, where the audit trail of secrets goes."""
    return own_database(redis_url)


@pytest.fixture
async def client(database: str) -> AsyncGenerator[Redis]:
    async with empty_database(database) as opened:
        yield opened


@pytest.mark.rule("RT-65")
async def test_keys_come_from_the_secret_store_and_are_read_once_in_their_life(
    tmp_path: Path, database: str, client: Redis
) -> None:
    environ = {"CI_SECRET_BLOBS_ACCESS": "FLEET-ACCESS", "CI_SECRET_BLOBS_SECRET": "first-secret-key-of-a-test"}
    server, clock = FakeS3(), MemoryClock()
    # The stand-in looks at the real time, as every store does.
    clock.step_wall(SystemClock().now_ms() / 1000 - clock.now_ms() / 1000)
    async with serving_http(server.answer) as url:
        settings = s3(tmp_path / "config", S3.replace("https://store.example", url))
        endpoints = endpoints_of(tmp_path, settings, SECRETS, redis_url=database)
        blobs = make_further_blobs(endpoints, environ=environ, clock=clock)
        digests = [await blobs.put(b"%d" % number) for number in range(5)]
        assert await blobs.get(digests[3]) == b"3"
        assert await _audit_lines(client) == 2

        server.keys = S3Keys("FLEET-SECOND", "second-secret-key-of-a-test")
        environ |= {"CI_SECRET_BLOBS_ACCESS": "FLEET-SECOND", "CI_SECRET_BLOBS_SECRET": "second-secret-key-of-a-test"}
        assert await blobs.get(digests[4]) == b"4"
        assert await _audit_lines(client) == 4

        clock.advance(3600)
        clock.step_wall(-3600)
        assert not await blobs.has(digest_of(b"never stored"))
        assert await _audit_lines(client) == 6


async def test_bucket_is_asked_before_a_fleet_starts_with_it(tmp_path: Path, database: str, client: Redis) -> None:
    environ = {"CI_SECRET_BLOBS_ACCESS": "FLEET-ACCESS", "CI_SECRET_BLOBS_SECRET": "first-secret-key-of-a-test"}
    server = FakeS3()
    async with serving_http(server.answer) as url:
        for bucket, reason in (("fleet-blobs", None), ("other-bucket", "make the bucket")):
            text = S3.replace("https://store.example", url).replace("fleet-blobs", bucket)
            endpoints = endpoints_of(tmp_path, s3(tmp_path / "config", text), SECRETS, redis_url=database)
            if reason is None:
                await check_blobs_answer(endpoints, environ=environ)
                continue
            with pytest.raises(StoreUnavailable, match=reason):
                await check_blobs_answer(endpoints, environ=environ)
    assert list(server.objects.values()) == [b""]
    await check_blobs_answer(replace(endpoints, blobs=FileBlobSettings()))
    assert await _audit_lines(client) == 4


async def test_session_token_is_a_secret_of_its_own(tmp_path: Path, database: str, client: Redis) -> None:
    text = f"{S3}  session_token: secret://blobs-token\n"
    grants = f"{SECRETS}  - {{secret: blobs-token, roles: [devops], tool: blobs, ops: [keep]}}\n"
    environ = {f"CI_SECRET_BLOBS_{name}": f"value-of-{name}" for name in ("ACCESS", "SECRET", "TOKEN")}
    settings = s3(tmp_path / "config", text)
    endpoints = endpoints_of(tmp_path, settings, grants, redis_url=database)
    names = ("blobs-access", "blobs-secret", "blobs-token")
    parts = blob_store_parts(endpoints, environ=environ, clock=MemoryClock())
    keys = StoredKeys(names, parts.secrets, parts.clock)
    assert await keys.get() == S3Keys("value-of-ACCESS", "value-of-SECRET", "value-of-TOKEN")
    assert await keys.renewed(await keys.get()) is None
    ungranted = endpoints_of(tmp_path, settings, SECRETS, redis_url=database)
    with pytest.raises(PolicyDenied):
        await StoredKeys(names, blob_store_parts(ungranted, environ=environ).secrets, MemoryClock()).get()
    assert await _audit_lines(client) == 9


async def _audit_lines(client: Redis) -> int:
    return len(await RedisAccessTrail(client).newest())
