"""Where a curve of throughput bends, and what is said to hold the stories back there."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from benchmarks.__main__ import main
from benchmarks.curve import Point, bend
from benchmarks.figures import Figure, table


def point(shards: int, replicas: int, per_min: float, use: Mapping[str, float] | None = None) -> Point:
    return Point(shards, replicas, per_min, use or {"replicas": 0.9, "shard": 0.2})


def test_curve_bends_where_what_was_added_gave_less_than_half_of_itself() -> None:
    last = Point(1, 8, 330, {"replicas": 0.3, "shard": 0.97}, 0.4)
    points = [point(1, 1, 100), point(1, 2, 190), point(1, 4, 300), last]
    found = bend(points)
    assert found is not None
    assert (found.before, found.at, found.added) == (points[2], last, 2)
    assert found.told.startswith("2 times the replicas gave 1.10 times the stories: held back by shard (")
    assert found.told.endswith("(shard 97%, replicas 30%; 40% of the work was ours)")
    assert bend(points[:3]) is None


def test_each_point_is_held_against_the_nearest_one_that_differs_in_one_thing() -> None:
    replicas = [point(1, 1, 100), point(1, 2, 190), point(1, 4, 350)]
    found = bend([*replicas, point(2, 4, 600), point(4, 4, 620, {"cores": 1.0, "shard": 0.4})])
    assert found is not None
    assert (found.before.shards, found.at.shards, found.at.limit) == (2, 4, "cores")
    assert found.told.startswith("2 times the shards gave 1.03 times the stories: held back by cores")
    # Both more shards and more replicas, with nothing in between: no line goes through them.
    assert bend([point(1, 1, 100), point(2, 2, 100)]) is None


def test_point_with_less_of_everything_is_no_bend() -> None:
    assert bend([point(2, 4, 600), point(2, 1, 150), point(1, 1, 150)]) is None


def test_table_shows_the_ratio_to_the_first_point_and_what_was_used() -> None:
    figure = Figure("stories, 1 shards, 2 replicas", 190, "1/min", "first point", 100, "replicas 95%, shard 40%")
    line = table([figure]).splitlines()[-1]
    assert line.split()[5:9] == ["190.00", "1/min", "1.90", "first"]
    assert line.endswith("first point = 100.00; replicas 95%, shard 40%")


@pytest.mark.parametrize("arguments", [["--points", "0"], ["--points", "99"], ["--points", "x"], ["none"]])
def test_benchmark_that_is_none_and_points_that_there_are_not_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "benchmarks: error:" in capsys.readouterr().err
