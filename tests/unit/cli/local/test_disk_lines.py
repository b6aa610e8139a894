"""What `fleet status` says of the disks of the nodes."""

from __future__ import annotations

from dataclasses import asdict

from fleet.cli.local.lifecycle import disk_line
from fleet.trees.port import DiskUse, Evicted

MIB = 1 << 20


def test_line_of_layers_says_where_they_lie_and_which_had_to_make_room_when() -> None:
    gone = tuple(Evicted(f"go:{n}", n * MIB, f"2026-01-0{n}T00:00:00+00:00") for n in range(1, 6))
    use = DiskUse("layers", 5 * MIB, 3 * MIB, 2, 2048 * MIB, node="n1", folder="/var/lib/x", evicted=gone)
    line = disk_line(asdict(use))
    assert line.startswith("layers of n1: 5.0 MiB of 2.0 GiB, 2 in all, 3.0 MiB in use, in /var/lib/x; removed last: ")
    assert line.endswith(
        "go:5 (5.0 MiB) at 2026-01-05T00:00:00+00:00, go:4 (4.0 MiB) at 2026-01-04T00:00:00+00:00, "
        "go:3 (3.0 MiB) at 2026-01-03T00:00:00+00:00"
    )
    none = DiskUse("layers", 0, 0, 0, MIB, node="n1", folder="/var/lib/x")
    assert disk_line(asdict(none)).endswith("0.0 MiB in use, in /var/lib/x")
