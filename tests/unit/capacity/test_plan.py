"""The plan against a simulation of the same calls, and against arithmetic by hand."""

from __future__ import annotations

import random
from dataclasses import replace
from heapq import heappop, heappush, heapreplace

import pytest
from pydantic import ValidationError

from fleet.capacity import MEASURED, Measured, Workload, mean_wait_s, plan_capacity
from fleet.errors import InvalidInput

# An engine of a GPU, so that the slots of several engines count; the speed is an example and not measured.
FAST = {"engine_tokens_out_per_s": 400.0, "engine_tokens_in_per_s": 8_000.0, "engine_slots": 4}


def simulated_rounds(*, arrivals_per_s: float, service_s: float, servers: int, together: int, calls: int) -> float:
    """Mean wait of calls that come in independent rounds, first come first served."""
    draw = random.Random(7)
    free = [0.0] * servers
    now = waited = 0.0
    for _ in range(calls // together):
        now += draw.expovariate(arrivals_per_s / together)
        for _ in range(together):
            start = max(now, free[0])
            waited += start - now
            heapreplace(free, start + draw.expovariate(1 / service_s))
    return waited / calls


@pytest.mark.parametrize(
    ("servers", "together", "utilisation"), [(1, 1, 0.5), (1, 3, 0.7), (4, 3, 0.7), (4, 5, 0.4), (16, 5, 0.7)]
)
def test_wait_is_that_of_a_simulation_within_a_tenth(servers: int, together: int, utilisation: float) -> None:
    given = {"arrivals_per_s": utilisation * servers / 2.0, "service_s": 2.0, "servers": servers, "together": together}
    assert mean_wait_s(**given) == pytest.approx(simulated_rounds(**given, calls=45_000), rel=0.10)


def test_wait_of_one_server_is_the_textbook_one() -> None:
    assert mean_wait_s(arrivals_per_s=0.5, service_s=1.0, servers=1) == pytest.approx(1.0)
    assert mean_wait_s(arrivals_per_s=1.0, service_s=1.0, servers=2) == pytest.approx(1 / 3)


def test_wait_of_a_thousand_servers_is_worked_out_without_overflow() -> None:
    assert 0 < mean_wait_s(arrivals_per_s=950.0, service_s=1.0, servers=1_000, together=9) < 1


def test_more_work_than_servers_has_no_wait() -> None:
    with pytest.raises(InvalidInput, match="add servers") as caught:
        mean_wait_s(arrivals_per_s=2.0, service_s=1.0, servers=2)
    assert caught.value.details == {"load": 2.0, "servers": 2}


def simulated_stories(work: Workload, *, engines: int, call_s: float, stories: int) -> tuple[float, float]:
    """Utilisation of the slots and mean wait, when stories are chains of rounds and of single calls.

    A round begins when the one before it has ended. 19 calls of a story come in rounds of three, one of them short,
    and four alone: the calls of `make demo`.
    """
    draw = random.Random(11)
    rounds = (1, 3, 3, 3, 3, 1, 3, 3, 1, 1, 1)
    assert sum(rounds) == 23
    servers = engines * work.engine_slots
    free = [0.0] * servers
    coming: list[tuple[float, int, int]] = []
    at = 0.0
    for story in range(stories):
        at += draw.expovariate(work.stories_per_hour / 3600)
        heappush(coming, (at, story, 0))
    waited = worked = end = 0.0
    while coming:
        now, story, number = heappop(coming)
        done = now
        for _ in range(rounds[number]):
            start, takes = max(now, free[0]), draw.expovariate(1 / call_s)
            waited, worked, done = waited + start - now, worked + takes, max(done, start + takes)
            heapreplace(free, start + takes)
        end = max(end, done)
        if number + 1 < len(rounds):
            heappush(coming, (done, story, number + 1))
    return worked / (end * servers), waited / (stories * sum(rounds))


@pytest.mark.parametrize("stories_per_hour", [150.0, 700.0])
def test_plan_holds_in_a_simulation_of_whole_stories(stories_per_hour: float) -> None:
    work = Workload(stories_per_hour=stories_per_hour, **FAST)
    plan = plan_capacity(work)

    utilisation, wait_s = simulated_stories(work, engines=plan.engines.count, call_s=plan.load.call_s, stories=2_500)

    assert utilisation == pytest.approx(plan.engines.utilisation, rel=0.06)
    # Some calls of a story come alone and none of its rounds overlap, so the plan errs on the safe side, within half.
    assert 0.5 * plan.load.wait_s <= wait_s <= 1.1 * plan.load.wait_s
    assert wait_s <= work.wait_share * plan.load.call_s


def test_plan_is_the_arithmetic_of_its_figures() -> None:
    work = Workload(
        stories_per_hour=360, calls_per_story=10, tokens_in=1_000, tokens_out=100, engine_tokens_out_per_s=100,
        engine_tokens_in_per_s=1_000, engine_slots=2, gpus_per_engine=4, kept_days=10, hours_per_day=5,
    )  # fmt: skip
    measured = replace(
        MEASURED, events=Measured(100, "", ""), log_memory_per_event=Measured(2_000, "", ""),
        log_disk_per_event=Measured(1_000, "", ""), commands_per_event=Measured(10, "", ""),
        log_commands_per_s=Measured(1_000, "", ""), blob_bytes=Measured(1e6, "", ""),
        shard_calls_per_s=Measured(0.5, "", ""), sandbox_core_s=Measured(20, "", ""),
        graph_nodes_per_event=Measured(2, "", ""), graph_relations_per_node=Measured(3, "", ""),
        depth=Measured(5, "", ""),
    )  # fmt: skip

    plan = plan_capacity(work, measured)

    assert plan.load.calls_per_s == 1
    assert plan.load.tokens_per_s == 1_100
    assert plan.load.call_s == 4
    assert plan.engines.count == 3
    assert plan.engines.utilisation == pytest.approx(2 / 3)
    assert plan.gpus == 12
    assert plan.load.story_s == pytest.approx(5 * (4 + plan.load.wait_s) + 20)
    assert plan.load.stories_at_once == pytest.approx(plan.load.story_s / 10)
    assert (plan.shards.count, plan.sandbox_cores.count) == (3, 3)
    assert plan.log_commands_per_s == pytest.approx(100)
    assert plan.log_utilisation == pytest.approx(0.1)
    assert plan.log_memory_bytes == 18_000 * 100 * 2_000 * 1.5
    assert plan.log_disk_bytes == 18_000 * 100 * 1_000 * 3
    assert plan.blob_bytes == 18_000 * 1e6
    assert (plan.graph_nodes, plan.graph_relations) == (3_600_000, 10_800_000)
    assert plan.graph_bytes > 18_000 * 100 * 2 * 500


def test_calls_grow_with_the_seats_of_a_council() -> None:
    calls = [plan_capacity(Workload(stories_per_hour=1, council_size=n)).load.calls_per_story for n in (1, 3, 5)]
    assert calls == pytest.approx([4 + 19 / 3, 23, 4 + 5 * 19 / 3])


def test_cache_of_prompts_saves_engines() -> None:
    work = Workload(stories_per_hour=60)
    assert (
        plan_capacity(work.model_copy(update={"cached_share": 0.9})).engines.count < plan_capacity(work).engines.count
    )


def test_short_wait_costs_engines_beyond_the_utilisation() -> None:
    patient, hasty = (plan_capacity(Workload(stories_per_hour=60, wait_share=share)) for share in (10, 0.001))
    assert hasty.engines.count > patient.engines.count
    assert hasty.load.wait_s <= 0.001 * hasty.load.call_s


def test_every_figure_says_where_it_comes_from() -> None:
    for name, figure in MEASURED.named():
        assert figure.source, name
        assert figure.value > 0, name


@pytest.mark.parametrize(
    "wrong", [{"stories_per_hour": 0}, {"council_size": 0}, {"cached_share": 1}, {"target_utilisation": 1}, {"x": 1}]
)
def test_workload_that_is_none_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Workload.model_validate({"stories_per_hour": 1, **wrong})
