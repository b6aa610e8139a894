"""Fetching weights: resumed, compared, tried again, and never half there."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import ConfigError, ModelUnavailable, StoreFull
from fleet.models.memory import MemoryWeightsSource, MemoryWeightsStore
from fleet.models.service.weights import Pulled, WeightsKeeper
from fleet.models.weights import UrlSource, Weights

DATA = b"the weights of a small model"
BROKEN = ModelUnavailable("broke off", permanent=False)


def weights(*addresses: str) -> Weights:
    digest = hashlib.sha256(DATA).hexdigest()
    sources = tuple(UrlSource(url=a) for a in addresses or ("http://one/",))
    return Weights(file="tiny.gguf", sha256=digest, size_bytes=len(DATA), sources=sources)


class World:
    """A keeper over memory, whose pauses take no time."""

    def __init__(self, *, room_bytes: int = 1 << 30, **files: bytes) -> None:
        self.store = MemoryWeightsStore(room_bytes=room_bytes)
        self.source = MemoryWeightsSource({f"http://{n}/": data for n, data in files.items()})
        self.clock = MemoryClock()
        self.keeper = WeightsKeeper(self.store, self.source, self.clock)
        self.told: list[tuple[int, str]] = []

    async def pull(self, wanted: Weights | None = None) -> Pulled:
        task = asyncio.create_task(
            self.keeper.pull(wanted or weights(), told=lambda n, line: self.told.append((n, line)))
        )
        while not task.done():
            self.clock.advance(1)
            await asyncio.sleep(0)
        return await task

    def lines(self) -> str:
        return "\n".join(line for _, line in self.told if line)


async def test_pulled_file_is_found_and_not_fetched_again() -> None:
    world = World(one=DATA)
    pulled = await world.pull()
    assert (pulled.size_bytes, pulled.fetched_bytes) == (len(DATA), len(DATA))
    assert await world.pull() == Pulled(pulled.path, len(DATA), 0)
    assert await world.keeper.need(weights(), engine="local") == pulled.path
    assert len(world.source.starts) == 1
    assert [n for n, _ in world.told] == sorted(n for n, _ in world.told)


async def test_source_that_breaks_off_is_asked_again_where_it_stopped() -> None:
    world = World(one=DATA)
    world.source.failures = [(2, BROKEN), (1, BROKEN)]
    assert (await world.pull()).fetched_bytes == len(DATA)
    assert world.source.starts == [0, 8, 12]
    assert "trying again" in world.lines()


async def test_pull_that_was_given_up_goes_on_at_the_next_command() -> None:
    world = World(one=DATA)
    world.source.failures = [(3, BROKEN), *[(0, BROKEN)] * 3]
    with pytest.raises(ModelUnavailable, match="broke off"):
        await world.pull()
    assert (await world.keeper.look(weights())).bytes_here == 12
    assert (await world.pull()).fetched_bytes == len(DATA) - 12
    assert "going on from there" in world.lines()


async def test_source_that_ends_too_early_is_a_break_off() -> None:
    world = World(one=DATA[:10])
    with pytest.raises(ModelUnavailable, match="ended after 10 of 28 bytes"):
        await world.pull()


async def test_next_source_goes_on_where_the_one_before_gave_up() -> None:
    world = World(two=DATA)
    assert (await world.pull(weights("http://one/", "http://two/"))).size_bytes == len(DATA)


@pytest.mark.rule("MB-1")
@pytest.mark.parametrize("wrong", [DATA.upper(), DATA + b"!" * 40])
async def test_other_bytes_than_those_pinned_are_not_kept(wrong: bytes) -> None:
    world = World(one=wrong)
    with pytest.raises(ConfigError, match="is pinned"):
        await world.pull()
    assert (await world.keeper.look(weights())).state == "missing"
    assert world.source.forgotten == 1


async def test_second_source_is_tried_when_the_first_gave_another_file() -> None:
    world = World(one=DATA.upper(), two=DATA)
    pulled = await world.pull(weights("http://one/", "http://two/"))
    assert pulled.fetched_bytes == len(DATA)


async def test_too_little_room_is_said_before_anything_is_fetched() -> None:
    world = World(one=DATA, room_bytes=len(DATA))
    with pytest.raises(StoreFull, match="FLEET_HOME"):
        await world.pull()
    assert world.source.starts == []


async def test_two_pulls_of_one_file_do_the_work_once() -> None:
    world = World(one=DATA)
    both = await asyncio.gather(world.keeper.pull(weights()), world.keeper.pull(weights()))
    assert sorted(p.fetched_bytes for p in both) == [0, len(DATA)]
    assert len(world.source.starts) == 1


async def test_cancelled_pull_keeps_what_it_has() -> None:
    world = World(one=DATA)
    world.source.failures = [(2, BROKEN)]
    task = asyncio.create_task(world.keeper.pull(weights()))
    while not world.clock.sleepers:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await world.keeper.look(weights())).bytes_here == 8


async def test_missing_weights_name_the_command_that_fetches_them() -> None:
    with pytest.raises(ModelUnavailable, match="fleet models pull small"):
        await World().keeper.need(weights(), engine="small")


@pytest.mark.rule("MB-1")
async def test_damaged_weights_are_not_loaded_and_are_fetched_again() -> None:
    world = World(one=DATA)
    world.store.whole[weights().sha256] = DATA.upper()
    with pytest.raises(ModelUnavailable, match="nothing is loaded"):
        await world.keeper.need(weights(), engine="small")
    assert (await world.pull()).fetched_bytes == len(DATA)
    assert "damaged" in world.lines()
