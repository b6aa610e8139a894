"""Chains recomputed from raw entries: every kind of damage has its name (EV-11, EV-32)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.audit.chain import FIELDS, ChainCheck, RawEntry
from fleet.audit.finding import LogFinding, Verdict
from fleet.events.envelope import Head
from fleet.kernel.ids import StreamId
from tests.support.audit import entries_of

STREAM = StreamId("story:st-chain")
BODIES = [b'{"n":%d}' % number for number in range(1, 9)]
ENTRIES = entries_of(STREAM, *BODIES)
HEAD = Head(8, ENTRIES[-1].fields["h"].decode())


def check(entries: list[RawEntry], *, head: Head | None = HEAD, size: int = 100) -> list[tuple[str, int | None]]:
    """Verdict and version of every finding, with the entries handed over in pages."""
    chain = ChainCheck(STREAM)
    for at in range(0, len(entries), size):
        chain.take(entries[at : at + size], following=entries[at + size : at + 2 * size])
    chain.close(head)
    assert all(finding.subject == STREAM for finding in chain.findings)
    return [(finding.verdict.value, finding.version) for finding in chain.findings]


def at(version: int, entry: RawEntry, **fields: bytes) -> RawEntry:
    return RawEntry(f"{version}-0", {**entry.fields, **fields})


@pytest.mark.rule("EV-11")
@pytest.mark.parametrize("size", [1, 3, 100])
def test_chain_as_it_was_written_verifies(size: int) -> None:
    assert check(ENTRIES, size=size) == []
    assert check([], head=None) == []


def test_chain_is_followed_from_the_middle() -> None:
    chain = ChainCheck(STREAM, after=Head(4, ENTRIES[3].fields["h"].decode()), kept_versions=frozenset({6, 9}))
    chain.take(ENTRIES[4:])
    chain.close(HEAD)
    assert (chain.findings, chain.end, set(chain.hashes)) == ([], HEAD, {6})
    unlinked = ChainCheck(STREAM, after=Head(4), is_linked=False)
    assert unlinked.end == Head(4)
    unlinked.take(ENTRIES[4:])
    assert unlinked.findings == []
    linked = ChainCheck(STREAM, after=Head(4, "0" * 64))
    linked.take(ENTRIES[4:])
    assert [f.verdict for f in linked.findings] == [Verdict.FORKED]


@pytest.mark.rule("EV-32")
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.sampled_from(["t", "s", "b", "ts", "e", "c", "a", "k"]), st.data())
def test_any_changed_field_is_one_altered_version(version: int, name: str, data: st.DataObject) -> None:
    entry = ENTRIES[version - 1]
    value = data.draw(st.binary(max_size=8).filter(lambda v: v != entry.fields[name]))
    entries = [*ENTRIES[: version - 1], at(version, entry, **{name: value}), *ENTRIES[version:]]
    assert check(entries) == [("altered", version)]


@pytest.mark.rule("EV-32")
@pytest.mark.parametrize(
    "entry",
    [
        RawEntry("4-0", {}),
        RawEntry("4-0", {**ENTRIES[3].fields, "x": b""}),
        at(4, ENTRIES[3], h=b"short"),
        at(4, ENTRIES[3], p=b"\xff" * 64),
        at(4, ENTRIES[3], s=b"01"),
        at(4, ENTRIES[3], a=b"\xff"),
    ],
)
def test_entry_that_is_no_event_is_altered(entry: RawEntry) -> None:
    assert check([*ENTRIES[:3], entry, *ENTRIES[4:]]) == [("altered", 4)]


@pytest.mark.rule("EV-32")
@pytest.mark.parametrize(
    ("first", "second", "size"),
    [(2, 3, 1), (2, 3, 2), (2, 3, 3), (2, 3, 100), (1, 8, 100), (4, 7, 100), (4, 7, 4)],
)
def test_entries_that_changed_places_are_reordered(first: int, second: int, size: int) -> None:
    entries = list(ENTRIES)
    entries[first - 1], entries[second - 1] = at(first, ENTRIES[second - 1]), at(second, ENTRIES[first - 1])
    assert check(entries, size=size) == [("reordered", first), ("reordered", second)]


@pytest.mark.rule("EV-32")
def test_gap_is_missing() -> None:
    assert check([*ENTRIES[:3], *ENTRIES[4:]]) == [("missing", 4)]
    assert check([*ENTRIES[:2], *ENTRIES[5:]]) == [("missing", 3)]
    assert check(ENTRIES[1:]) == [("missing", 1)]


@pytest.mark.rule("EV-32")
def test_entry_that_was_taken_out_and_closed_up_is_missing() -> None:
    closed_up = [*ENTRIES[:3], *(at(n, ENTRIES[n]) for n in range(4, 8))]
    assert check(closed_up) == [("missing", 4), ("missing", 8)]


@pytest.mark.rule("EV-32")
def test_copied_entry_is_reordered() -> None:
    assert check([*ENTRIES[:4], at(5, ENTRIES[1]), *ENTRIES[5:]]) == [("reordered", 5)]


@pytest.mark.rule("EV-32")
def test_entry_with_a_new_hash_forks_the_chain() -> None:
    other = entries_of(STREAM, *BODIES[:3], b"other")
    assert check([*ENTRIES[:3], other[3], *ENTRIES[4:]]) == [("forked", 4), ("forked", 5)]


@pytest.mark.rule("EV-32")
def test_end_that_differs_from_the_head_is_named() -> None:
    assert check(ENTRIES[:6]) == [("missing", 7)]
    assert check([]) == [("deleted", None)]
    assert check(ENTRIES, head=None) == [("missing", None)]
    assert check(ENTRIES, head=Head(7, HEAD.hash)) == [("altered", 8)]
    assert check(ENTRIES, head=Head(8, "0" * 64)) == [("altered", 8)]


def test_ids_that_are_no_versions_are_altered_and_passed_over() -> None:
    strange = [RawEntry("3-1", ENTRIES[2].fields), RawEntry("x", {}), RawEntry("3-0", ENTRIES[2].fields)]
    assert check([*ENTRIES[:3], *strange, *ENTRIES[3:]]) == [("altered", 4)] * 3


def test_findings_of_one_stream_are_bounded() -> None:
    ruined = [RawEntry(f"{n}-0", {}) for n in range(1, 100)]
    assert len(check(ruined, head=None)) == 20
    changed = [at(n, ENTRIES[0]) for n in range(1, 100)]
    assert len(check(changed, head=None)) == 20


def test_finding_says_what_and_where() -> None:
    assert str(LogFinding(Verdict.ROLLED_BACK, "story:st-a", 4, "why")) == "rolled back: story:st-a version 4: why"
    assert str(LogFinding(Verdict.DELETED, "story:st-a", None, "why")) == "deleted: story:st-a: why"
    assert LogFinding(Verdict.MISSING, "checkpoint", 1, "w").to_json() == {
        "verdict": "missing",
        "subject": "checkpoint",
        "version": 1,
        "detail": "w",
    }


def test_fields_are_those_of_the_specification() -> None:
    assert tuple(ENTRIES[0].fields) == FIELDS
