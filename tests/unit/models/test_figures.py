"""All processes' figures of an engine together: nothing is counted twice."""

from __future__ import annotations

from fleet.models.figures import ModelFigures, sum_figures


def test_server_is_summed_over_its_callers() -> None:
    rows = [
        ModelFigures(source="router", engine="web", replica="web", running=2, waiting=n, served=4, wait_ms=100 * n)
        .model_copy(update={"calls": 5, "failures": n, "rejected": 1, "tokens_in": 100, "tokens_cached": 50})
        for n in (1, 3)
    ]  # fmt: skip
    (found,) = sum_figures(rows)
    assert (found.running, found.waiting, found.served, found.mean_wait_ms) == (4, 4, 8, 50)
    assert (found.calls, found.failures, found.rejected, found.tokens_in, found.hit_rate) == (10, 4, 2, 200, 0.5)
    assert "4 running, 4 waiting" in found.line
    assert "50% from cache" in found.line


def test_engine_of_the_fleet_counts_its_tokens_itself_and_its_callers_say_whether_they_ask_it() -> None:
    router = ModelFigures(source="router", engine="own", replica="engine:own:0", running=1, calls=3, tokens_in=30)
    engine = ModelFigures(source="engine", engine="own", replica="engine:own:0", running=2, waiting=7, tokens_in=90)
    opened = router.model_copy(update={"circuit": "half_open", "replica": "engine:own:1"})
    (found,) = sum_figures([router, engine, opened])
    assert (found.running, found.waiting, found.tokens_in, found.calls) == (2, 7, 90, 6)
    assert found.open_circuits == ("engine:own:1",)
    assert found.line.endswith("not asked at present: engine:own:1")
    assert (found.mean_wait_ms, found.hit_rate) == (0, 0.0)


def test_engines_come_by_id_and_none_gives_none() -> None:
    rows = [ModelFigures(source="router", engine=name, replica=name) for name in ("b", "a")]
    assert [e.engine for e in sum_figures(rows)] == ["a", "b"]
    assert sum_figures([]) == ()
