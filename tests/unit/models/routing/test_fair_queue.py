"""The order in which waiting calls are served."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.models.chat import ChatMessage, ChatRequest, Priority, Sampling
from fleet.models.routing.fair_queue import LARGEST, PASSES, Admitted, FairQueue, Full, Ticket, estimate_call

QUANTUM = 1024


def offered(
    queue: FairQueue, tenant: str = "a", priority: Priority = "story", *, tokens: int = 100, now_ms: int = 0
) -> Ticket:
    admitted = queue.offer(tenant, priority, tokens=tokens, now_ms=now_ms)
    assert isinstance(admitted, Admitted)
    return admitted.ticket


def drained(queue: FairQueue, *, now_ms: int = 0) -> list[Ticket]:
    taken: list[Ticket] = []
    while (ticket := queue.take(now_ms=now_ms)) is not None:
        taken.append(ticket)
    return taken


def test_person_who_comes_last_goes_before_fifty_batch_calls() -> None:
    queue = FairQueue(max_waiting=100)
    for _ in range(50):
        offered(queue, priority="batch")
    person = offered(queue, "b", "person")
    assert queue.take(now_ms=0) == person


def test_stories_go_after_persons_and_before_batch_work() -> None:
    queue = FairQueue(max_waiting=10)
    for priority in ("batch", "story", "person", "story"):
        offered(queue, priority=priority)
    assert [ticket.priority for ticket in drained(queue)] == ["person", "story", "story", "batch"]
    assert queue.take(now_ms=0) is None


def test_tenants_take_turns_and_calls_of_one_tenant_keep_their_order() -> None:
    queue = FairQueue(max_waiting=100)
    for tenant in "aaaab":
        offered(queue, tenant, tokens=QUANTUM)
    taken = drained(queue)
    assert [ticket.tenant for ticket in taken] == ["a", "b", "a", "a", "a"]
    assert [ticket.number for ticket in taken if ticket.tenant == "a"] == [1, 2, 3, 4]


def test_tenant_with_small_calls_gets_as_many_tokens_as_one_with_large_calls() -> None:
    queue = FairQueue(max_waiting=1000)
    for _ in range(100):
        offered(queue, "small", tokens=QUANTUM // 4)
        offered(queue, "large", tokens=QUANTUM * 2)
    served = Counter[str]()
    for _ in range(90):
        ticket = queue.take(now_ms=0)
        assert ticket is not None
        served[ticket.tenant] += ticket.tokens
    assert abs(served["small"] - served["large"]) <= 4 * QUANTUM


def test_weight_multiplies_the_share_of_a_tenant() -> None:
    queue = FairQueue(max_waiting=1000, weights={"gold": 3})
    for _ in range(100):
        offered(queue, "gold", tokens=QUANTUM)
        offered(queue, "plain", tokens=QUANTUM)
    first = [queue.take(now_ms=0) for _ in range(40)]
    assert Counter(ticket.tenant for ticket in first if ticket) == {"gold": 30, "plain": 10}


def test_aged_batch_call_is_passed_by_few_more_and_then_served_though_persons_keep_coming() -> None:
    queue = FairQueue(max_waiting=100, aged_after_ms=1000)
    old = offered(queue, priority="batch", now_ms=0)
    served: list[Ticket] = []
    for turn in range(PASSES + 1):
        offered(queue, priority="person", now_ms=2000 + turn)
        offered(queue, priority="person", now_ms=2000 + turn)
        ticket = queue.take(now_ms=2000 + turn)
        assert ticket is not None
        served.append(ticket)
    assert [ticket.priority for ticket in served] == ["person"] * PASSES + ["batch"]
    assert served[-1] == old


def test_oldest_of_the_aged_calls_comes_first_whatever_its_priority() -> None:
    queue = FairQueue(max_waiting=100, aged_after_ms=1000)
    offered(queue, priority="batch", now_ms=0)
    offered(queue, priority="story", now_ms=1)
    for _ in range(2 * PASSES):
        offered(queue, priority="person", now_ms=5000)
    order = [ticket.priority for ticket in drained(queue, now_ms=5000)]
    assert order == ["person"] * PASSES + ["batch"] + ["person"] * PASSES + ["story"]


def test_full_queue_refuses_a_call_that_has_no_stronger_claim() -> None:
    queue = FairQueue(max_waiting=2)
    offered(queue, "a")
    offered(queue, "b")
    assert queue.offer("a", "story", tokens=1, now_ms=0) == Full(2)
    assert queue.offer("c", "batch", tokens=1, now_ms=0) == Full(2)
    assert len(queue) == 2


def test_person_displaces_the_youngest_batch_call_of_the_tenant_that_has_most() -> None:
    queue = FairQueue(max_waiting=4)
    offered(queue, "x", "story")
    offered(queue, "one", "batch")
    offered(queue, "two", "batch")
    youngest = offered(queue, "two", "batch")
    admitted = queue.offer("p", "person", tokens=1, now_ms=0)
    assert isinstance(admitted, Admitted)
    assert admitted.displaced == youngest
    assert [ticket.tenant for ticket in drained(queue)] == ["p", "x", "one", "two"]


def test_tenant_that_holds_all_places_gives_one_to_a_tenant_that_has_none() -> None:
    queue = FairQueue(max_waiting=2)
    offered(queue, "greedy")
    last = offered(queue, "greedy")
    admitted = queue.offer("modest", "story", tokens=1, now_ms=0)
    assert isinstance(admitted, Admitted)
    assert admitted.displaced == last
    assert queue.offer("greedy", "story", tokens=1, now_ms=0) == Full(2)


def test_call_that_was_removed_is_not_served() -> None:
    queue = FairQueue(max_waiting=5)
    first, second = offered(queue), offered(queue)
    queue.remove(first)
    assert drained(queue) == [second]


def test_estimate_covers_prompt_and_reply_bound_and_is_bounded_itself() -> None:
    request = ChatRequest(
        messages=(ChatMessage(role="user", content="x" * 300), ChatMessage(role="user", content="y" * 300)),
        sampling=Sampling(max_tokens=50),
    )
    assert estimate_call(request) == 250
    queue = FairQueue(max_waiting=2)
    assert offered(queue, tokens=10**9).tokens == LARGEST
    assert offered(queue, tokens=0).tokens == 1
    assert len(drained(queue)) == 2


Arrivals = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]), st.sampled_from(["person", "story", "batch"]), st.integers(1, 6 * QUANTUM)
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(arrivals=Arrivals, room=st.integers(1, 40))
def test_every_call_is_served_displaced_or_refused_exactly_once(
    arrivals: list[tuple[str, Priority, int]], room: int
) -> None:
    queue = FairQueue(max_waiting=room)
    admitted: list[int] = []
    displaced: list[int] = []
    for tenant, priority, tokens in arrivals:
        answer = queue.offer(tenant, priority, tokens=tokens, now_ms=0)
        if isinstance(answer, Admitted):
            admitted.append(answer.ticket.number)
            displaced += [answer.displaced.number] if answer.displaced else []
        assert len(queue) <= room
    served = [ticket.number for ticket in drained(queue)]
    assert sorted(served + displaced) == admitted
    assert len(set(served) | set(displaced)) == len(admitted)


@settings(max_examples=60, deadline=None)
@given(arrivals=Arrivals)
def test_same_calls_give_the_same_order(arrivals: list[tuple[str, Priority, int]]) -> None:
    orders: list[list[Ticket]] = []
    for _ in range(2):
        queue = FairQueue(max_waiting=100)
        for tenant, priority, tokens in arrivals:
            offered(queue, tenant, priority, tokens=tokens)
        orders.append(drained(queue))
    assert orders[0] == orders[1]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 6 * QUANTUM), st.integers(1, 6 * QUANTUM)),
    weights=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    turns=st.integers(1, 60),
)
def test_two_tenants_that_always_wait_differ_by_one_call_of_each_at_most(
    sizes: tuple[int, int], weights: tuple[int, int], turns: int
) -> None:
    """The bound of self-clocked fair queueing, in tokens for each unit of weight."""
    queue = FairQueue(max_waiting=1000, weights={"a": weights[0], "b": weights[1]})
    served = {"a": 0, "b": 0}
    for name, size in zip("ab", sizes, strict=True):
        for _ in range(turns):
            offered(queue, name, tokens=size)
    for _ in range(turns):
        ticket = queue.take(now_ms=0)
        assert ticket is not None
        served[ticket.tenant] += ticket.tokens
    apart = abs(served["a"] / weights[0] - served["b"] / weights[1])
    assert apart <= sizes[0] / weights[0] + sizes[1] / weights[1] + 1e-6


@settings(max_examples=40, deadline=None)
@given(
    older=st.lists(st.sampled_from(["story", "batch"]), max_size=8),
    rush=st.lists(st.sampled_from(["person", "story"]), min_size=1, max_size=3),
)
def test_no_call_starves_however_many_more_urgent_ones_keep_coming(older: list[Priority], rush: list[Priority]) -> None:
    """An aged call is served within `PASSES` + 1 turns for itself and for each older one."""
    queue = FairQueue(max_waiting=100_000, aged_after_ms=1000)
    for priority in older:
        offered(queue, "old", priority, now_ms=0)
    last = offered(queue, "old", "batch", now_ms=0)
    bound = (PASSES + 1) * (len(older) + 1)
    for turn in range(bound):
        for priority in rush:
            offered(queue, f"t{turn}", priority, now_ms=1000 + turn)
        if queue.take(now_ms=1000 + turn) == last:
            return
    pytest.fail(f"the batch call was not served within {bound} turns")
