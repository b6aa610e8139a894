"""The contract of BundleStore, on every adapter (CX-32, CX-43)."""

from __future__ import annotations

import asyncio
import time

import pytest

from fleet.kernel.digest import digest_of
from fleet.kernel.ids import StoryId
from tests.support.stores import Stores, eventually

STORY, OTHER = StoryId("st-one1"), StoryId("st-two2")
DATA = b'{"packs":{}}\nwith a second line\x00'
HASH = digest_of(DATA)


@pytest.mark.rule("CX-43")
async def test_kept_bundle_is_read_by_every_process_under_story_version_and_hash_alone(stores: Stores) -> None:
    await stores.bundles.keep(STORY, 7, HASH, DATA, ttl_s=60)
    assert await stores.twin().bundles.get(STORY, 7, HASH) == DATA
    for story, version, hash in ((OTHER, 7, HASH), (STORY, 8, HASH), (STORY, 7, digest_of(b"another"))):
        assert await stores.bundles.get(story, version, hash) is None


@pytest.mark.rule("CX-43")
async def test_two_bundles_of_one_version_do_not_collide(stores: Stores) -> None:
    other = b"another"
    await stores.bundles.keep(STORY, 7, HASH, DATA, ttl_s=60)
    await stores.bundles.keep(STORY, 7, digest_of(other), other, ttl_s=60)
    assert await stores.bundles.get(STORY, 7, HASH) == DATA
    assert await stores.bundles.get(STORY, 7, digest_of(other)) == other


@pytest.mark.rule("CX-32")
async def test_bundle_that_is_read_lives_on_and_one_that_is_left_alone_goes_away(stores: Stores) -> None:
    read, left = digest_of(b"read"), digest_of(b"left")
    await stores.bundles.keep(STORY, 1, read, b"read", ttl_s=2)
    await stores.bundles.keep(STORY, 1, left, b"left", ttl_s=2)
    began = time.monotonic()
    while time.monotonic() - began < 3:
        assert await stores.bundles.get(STORY, 1, read) == b"read"
        await asyncio.sleep(0.2)

    async def is_gone() -> bool:
        return await stores.bundles.get(STORY, 1, left) is None

    assert await eventually(is_gone, within_s=2)
