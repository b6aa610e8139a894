"""A fleet whose bucket of blobs does not answer starts no actor and says which it is, on a laptop and a cluster."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from actors.bootstrap import boot
from fleet.kernel.errors import NotFound, StoreUnavailable
from serve_apps import deployed
from tests.support.http_stand_in import Reply, serving_http
from tests.support.s3_server import FakeS3
from tests.support.s3_settings import S3, SECRETS, endpoints_of, s3
from tests.support.stores import empty_database, own_database

_KEYS = {"CI_SECRET_BLOBS_ACCESS": "FLEET-ACCESS", "CI_SECRET_BLOBS_SECRET": "first-secret-key-of-a-test"}


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys of the bucket are where its provider looks."""
    for name, value in _KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def no_ray() -> Iterator[None]:
    """Nothing here may get as far as Ray: an actor would be started."""
    assert not ray.is_initialized()
    yield
    assert not ray.is_initialized()


def _ignored(name: str, state: str) -> None:
    raise AssertionError(f"actor {name} is {state}: none may be started")


@pytest.mark.rule("RT-65")
@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    ("bucket", "reply", "why"),
    [
        ("other-bucket", None, "make the bucket"),
        ("fleet-blobs", Reply(status=503), "503"),
        ("fleet-blobs", Reply(is_lost=True), "cannot be asked"),
    ],
)
async def test_fleet_is_not_started_while_its_bucket_cannot_be_used(
    tmp_path: Path, redis_url: str, bucket: str, reply: Reply | None, why: str
) -> None:
    server = FakeS3()
    async with empty_database(own_database(redis_url)), serving_http(lambda r: reply or server.answer(r)) as url:
        text = S3.replace("https://store.example", url).replace("fleet-blobs", bucket)
        endpoints = endpoints_of(tmp_path, s3(tmp_path / "config", text), SECRETS, redis_url=own_database(redis_url))
        with pytest.raises(StoreUnavailable, match=why) as caught:
            await asyncio.to_thread(boot, endpoints, progress=_ignored)
    assert url.removeprefix("http://") in caught.value.message


async def test_fleet_is_not_started_without_the_keys_of_its_bucket(tmp_path: Path, redis_url: str) -> None:
    async with empty_database(own_database(redis_url)):
        endpoints = endpoints_of(tmp_path, s3(tmp_path / "config"), SECRETS, redis_url=own_database(redis_url))
        with pytest.raises(NotFound, match="blobs-access"):
            await asyncio.to_thread(boot, endpoints, progress=_ignored)


class _Said(BaseException):
    """The front has logged this, and would try again for ever."""


class _Listener(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise _Said(record.getMessage())


@pytest.mark.usefixtures("keys")
async def test_front_of_a_cluster_says_which_bucket_keeps_actors_away(tmp_path: Path, redis_url: str) -> None:
    log, listener = logging.getLogger("ray.serve"), _Listener()
    async with empty_database(own_database(redis_url)), serving_http(lambda _: Reply(status=503)) as url:
        text = S3.replace("https://store.example", url)
        endpoints = endpoints_of(tmp_path, s3(tmp_path / "config", text), SECRETS, redis_url=own_database(redis_url))
        log.addHandler(listener)
        try:
            with pytest.raises(_Said) as caught:
                await asyncio.to_thread(deployed._start, endpoints)
        finally:
            log.removeHandler(listener)
    assert re.match(rf"fleet: .* at {url}/fleet-blobs: .*503.*; trying again in 10 s", str(caught.value)), caught.value
