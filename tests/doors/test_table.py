"""Every door of the product is in the table, and the table holds nothing else."""

from __future__ import annotations

from tests.doors.table import README, doors, entries, page


def test_every_door_has_a_test() -> None:
    known = entries()
    assert sorted(doors() - known.keys()) == [], "these doors have no test"
    assert sorted(known.keys() - doors()) == [], "these are no doors"


def test_table_is_what_the_marks_say() -> None:
    assert README.read_text() == page(), "run `python -m tests.doors.table`"
