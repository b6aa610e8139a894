"""The circuit of an engine: three failures open it, a probe closes it."""

from __future__ import annotations

import pytest

from fleet.models.routing.circuit import FAILURES, LONGEST_OPEN_MS, OPEN_MS, Circuit


def opened(now_ms: int = 0) -> Circuit:
    circuit = Circuit()
    for _ in range(FAILURES):
        circuit = circuit.failed(now_ms)
    return circuit


@pytest.mark.rule("MB-13")
def test_third_failure_in_a_row_opens_the_circuit_for_thirty_seconds() -> None:
    circuit = Circuit().failed(0).failed(0)
    assert circuit.state(0) == "closed"
    circuit = circuit.failed(100)
    assert [circuit.state(now) for now in (100, 30_099, 30_100)] == ["open", "open", "half_open"]


def test_success_between_failures_keeps_it_closed() -> None:
    circuit = Circuit().failed(0).failed(0).succeeded().failed(0).failed(0)
    assert circuit.state(0) == "closed"
    assert Circuit().succeeded() == Circuit()


@pytest.mark.rule("MB-13")
def test_probes_that_fail_double_the_time_up_to_five_minutes() -> None:
    circuit, now_ms, lengths = opened(), 0, [OPEN_MS]
    for _ in range(5):
        now_ms = circuit.until_ms
        circuit = circuit.probe_failed(now_ms)
        lengths.append(circuit.until_ms - now_ms)
    assert lengths == [30_000, 60_000, 120_000, 240_000, LONGEST_OPEN_MS, LONGEST_OPEN_MS]


def test_probe_that_is_answered_closes_it_and_failures_count_from_none() -> None:
    circuit = opened().probe_failed(30_000).succeeded()
    assert circuit == Circuit()
    assert opened().open_ms == OPEN_MS


def test_failures_of_calls_that_began_before_do_not_keep_it_open_for_longer() -> None:
    circuit = opened(0)
    assert circuit.failed(20_000) == circuit
