"""The contracts of WeightsStore and WeightsSource, on every adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet.kernel.errors import ConfigError, ModelUnavailable
from fleet.models.memory import MemoryWeightsSource, MemoryWeightsStore
from fleet.models.port import WeightsSource, WeightsStore
from fleet.models.weight_sources.files import FileWeightsStore
from fleet.models.weight_sources.sources import GivenWeights, RemoteWeights
from fleet.models.weight_sources.url import UrlWeights
from fleet.models.weight_sources.wheels import WheelWeights
from fleet.models.weights import UrlSource, Weights, WheelSource
from tests.support.weights import DATA, FileServer, make_wheels, serving_file, url_weights, weights_of, wheel_source

WEIGHTS = weights_of()


@pytest.fixture(params=["memory", "files"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> WeightsStore:
    return MemoryWeightsStore() if request.param == "memory" else FileWeightsStore(tmp_path / "weights")


async def test_nothing_is_here_at_first(store: WeightsStore) -> None:
    found = await store.look(WEIGHTS)
    assert (found.state, found.bytes_here) == ("missing", 0)
    assert found.path.endswith(f"{WEIGHTS.sha256}/tiny.gguf")
    assert await store.free_bytes() > len(DATA)


async def test_draft_that_is_let_go_is_found_where_it_stopped(store: WeightsStore) -> None:
    async with store.claim(WEIGHTS) as draft:
        await draft.append(DATA[:100])
    assert (await store.look(WEIGHTS)).state == "partial"
    async with store.claim(WEIGHTS) as draft:
        assert draft.size_bytes == 100
        await draft.append(DATA[100:])
        path = await draft.finish()
    found = await store.look(WEIGHTS, thorough=True)
    assert (found.state, found.bytes_here, found.path) == ("present", len(DATA), path)


@pytest.mark.rule("MB-1")
@pytest.mark.parametrize("wrong", [DATA[:-1], DATA + b"x", DATA[:-1] + b"x", b""])
async def test_file_of_another_digest_is_removed_and_named(store: WeightsStore, wrong: bytes) -> None:
    async with store.claim(WEIGHTS) as draft:
        await draft.append(wrong)
        with pytest.raises(ConfigError, match="is removed") as caught:
            await draft.finish()
        assert draft.size_bytes == 0
    assert caught.value.details["expected"] == WEIGHTS.sha256
    assert caught.value.details["found"] != WEIGHTS.sha256
    assert (await store.look(WEIGHTS)).state == "missing"


async def test_second_claim_of_a_file_waits_for_the_first(store: WeightsStore) -> None:
    order: list[str] = []

    async def second() -> None:
        async with store.claim(WEIGHTS):
            order.append("second")

    async with store.claim(WEIGHTS):
        waiting = asyncio.create_task(second())
        async with store.claim(weights_of(data=b"another file")):
            order.append("another")
        order.append("first")
    await waiting
    assert order == ["another", "first", "second"]


@dataclass
class Place:
    """A source and weights that it has."""

    source: WeightsSource
    weights: Weights

    @property
    def first(self) -> UrlSource | WheelSource:
        return self.weights.sources[0]


@pytest.fixture(params=["memory", "url", "url without ranges", "wheels", "given file", "given folder", "given wheels"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Place]:
    wheels = weights_of(wheel_source())
    match request.param:
        case "memory":
            yield Place(MemoryWeightsSource({"http://nowhere/x": DATA}, piece_bytes=999), WEIGHTS)
        case "wheels":
            # The wheels are kept from a pull that was broken off: nothing has to be fetched.
            adapter = WheelWeights(tmp_path, pip=["false"])
            make_wheels(adapter.folder(wheels))
            yield Place(RemoteWeights(UrlWeights(), adapter), wheels)
        case "given file":
            (tmp_path / "some.bin").write_bytes(DATA)
            yield Place(GivenWeights(tmp_path / "some.bin"), wheels)
        case "given folder":
            (tmp_path / "tiny.gguf").write_bytes(DATA)
            yield Place(GivenWeights(tmp_path), WEIGHTS)
        case "given wheels":
            yield Place(GivenWeights(make_wheels(tmp_path / "wheels")), wheels)
        case _:
            async with serving_file(FileServer(has_ranges=request.param == "url")) as server:
                source = RemoteWeights(UrlWeights(silence_s=5), WheelWeights(tmp_path, pip=["false"]))
                yield Place(source, url_weights(server.address))


@pytest.mark.parametrize("start", [0, 1, 3000, 3414, 5000, len(DATA) - 1])
async def test_bytes_come_from_any_start_to_the_end(place: Place, start: int) -> None:
    got = [piece async for piece in place.source.pieces(place.weights, place.first, start=start)]
    assert b"".join(got) == DATA[start:]
    assert place.source.extra_bytes(place.weights, place.first) < 100_000


async def test_forgetting_twice_does_no_harm(place: Place) -> None:
    await place.source.forget(place.weights)
    await place.source.forget(place.weights)


@pytest.mark.parametrize("kind", ["memory", "url", "given folder", "given wheels"])
async def test_source_without_the_file_says_so_and_is_not_asked_again(kind: str, tmp_path: Path) -> None:
    async with serving_file(FileServer(statuses=[404])) as server:
        weights = url_weights(server.address)
        match kind:
            case "memory":
                source: WeightsSource = MemoryWeightsSource({})
            case "url":
                source = RemoteWeights(UrlWeights(), WheelWeights(tmp_path))
            case _:
                source = GivenWeights(tmp_path)
                weights = weights if kind == "given folder" else weights_of(wheel_source())
        with pytest.raises(ModelUnavailable) as caught:
            _ = [piece async for piece in source.pieces(weights, weights.sources[0], start=0)]
    assert caught.value.details["permanent"] is True
