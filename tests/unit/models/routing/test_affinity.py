"""Which replica serves a call."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.models.routing.affinity import Choice, choose, rank

NAMES = [f"engine:m:{n}" for n in range(4)]


def idle() -> dict[str, int]:
    return dict.fromkeys(NAMES, 0)


def test_key_goes_to_the_same_replica_whatever_order_the_replicas_are_listed_in() -> None:
    first = choose("st-1/co-1", idle(), draw="r1", slots=4)
    again = choose("st-1/co-1", dict(reversed(idle().items())), draw="r2", slots=4)
    assert first == again
    assert first.why == "affinity"


def test_keys_spread_over_all_replicas() -> None:
    counts = Counter(choose(f"st-{n}", idle(), draw="r", slots=4).replica for n in range(400))
    assert set(counts) == set(NAMES)
    assert min(counts.values()) > 60


@settings(max_examples=50, deadline=None)
@given(key=st.text(min_size=1, max_size=20), gone=st.sampled_from(NAMES))
def test_replica_that_goes_moves_its_own_keys_only(key: str, gone: str) -> None:
    before = rank(key, NAMES)[0]
    after = rank(key, [name for name in NAMES if name != gone])[0]
    assert after == before or before == gone


def test_overloaded_replica_spills_to_the_least_loaded() -> None:
    home = rank("key", NAMES)[0]
    loads = {name: 1 for name in NAMES} | {home: 12}
    other = next(name for name in NAMES if name != home)
    loads[other] = 0
    assert choose("key", loads, draw="r", slots=4) == Choice(other, "spilled")


def test_replica_where_calls_would_wait_spills_while_another_is_half_idle() -> None:
    home, *others = rank("key", NAMES)
    busy = {name: 4 for name in NAMES}
    assert choose("key", busy | {others[0]: 2}, draw="r", slots=4).replica == home
    assert choose("key", busy | {others[0]: 1}, draw="r", slots=4) == Choice(others[0], "spilled")


def test_replica_with_free_slots_keeps_its_key_though_the_others_are_idle() -> None:
    home = rank("key", NAMES)[0]
    assert choose("key", idle() | {home: 3}, draw="r", slots=4).replica == home


def test_full_replica_keeps_its_key_while_the_others_are_as_full() -> None:
    home = rank("key", NAMES)[0]
    assert choose("key", {name: 10 for name in NAMES}, draw="r", slots=4) == Choice(home, "affinity")


def test_call_without_key_goes_to_the_least_loaded_and_ties_are_drawn() -> None:
    assert choose("", {"a": 2, "b": 1}, draw="r", slots=4) == Choice("b", "least_loaded")
    drawn = {choose("", idle(), draw=f"r{n}", slots=4).replica for n in range(50)}
    assert drawn == set(NAMES)


def test_preferred_replica_is_taken_while_it_is_healthy() -> None:
    home, other = rank("key", NAMES)[:2]
    assert choose("key", idle(), draw="r", slots=4, preferred=other).replica == other
    healthy = {name: 0 for name in NAMES if name != other}
    assert choose("key", healthy, draw="r", slots=4, preferred=other).replica == home
