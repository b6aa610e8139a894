"""Which supervisor a run goes to, and what several of them say together."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

import pytest

from fleet.kernel.digest import digest_of
from fleet.kernel.ids import RunKey
from fleet.policy.runs.spec import BlobMount, RepoMount, RunSpec
from fleet.sandbox.port import SandboxHealth
from fleet.sandbox.service.spread import combined, is_bound, node_of, on_node, ranked

NAMES = ["sandbox:local", *(on_node(sha256(bytes([n])).hexdigest()) for n in range(3))]
KEYS = [RunKey(sha256(f"run {n}".encode()).hexdigest()) for n in range(400)]


def test_every_supervisor_gets_its_share_of_the_keys_whatever_the_order_of_the_names() -> None:
    first = {key: ranked(key, NAMES)[0] for key in KEYS}
    assert first == {key: ranked(key, reversed(NAMES))[0] for key in KEYS}
    assert all(60 < count < 140 for count in Counter(first.values()).values())
    assert set(first.values()) == set(NAMES)


@pytest.mark.parametrize("gone", NAMES)
def test_when_one_goes_only_its_own_keys_move_and_each_to_its_second(gone: str) -> None:
    left = [name for name in NAMES if name != gone]
    for key in KEYS:
        first, second, *_ = ranked(key, NAMES)
        assert ranked(key, left)[0] == (second if first == gone else first)


def test_name_of_a_supervisor_says_its_node_and_that_of_the_home_none() -> None:
    node_id = "0123456789abcdef" * 3 + "01234567"
    assert on_node(node_id) == "sandbox:0123456789ab"
    assert node_of(on_node(node_id)) == "0123456789ab"
    for other in ("sandbox:local", "sandbox:0123456789ab/tools", "sandbox:0123456789AB", "council:0"):
        assert node_of(other) is None


def test_run_with_a_repository_is_bound_to_where_it_is_staged() -> None:
    blob = BlobMount(blob=digest_of(b"x"), target="/inputs/x")
    assert is_bound(RunSpec(argv=("git",), mounts=(blob, RepoMount(repo="0" * 64))))
    assert not is_bound(RunSpec(argv=("pytest",), mounts=(blob,)))


def healthy(**changes: object) -> SandboxHealth:
    given: dict[str, object] = {"status": "ok", "backend": "bubblewrap", "active": 1, "total": 5, "capacity": 10}
    return SandboxHealth(**(given | changes))  # pyright: ignore[reportArgumentType]


@pytest.mark.rule("RC-25")
def test_health_of_several_is_the_word_of_the_home_and_the_sums_of_all() -> None:
    found = combined(healthy(enforced={"pids": "cgroup"}), {"sandbox:a": healthy(active=2)})
    assert (found.status, found.enforced, found.unmet) == ("ok", {"pids": "cgroup"}, ())
    assert (found.active, found.total, found.capacity) == (3, 10, 20)


@pytest.mark.rule("RC-25")
def test_what_is_wrong_with_another_node_is_told_by_its_name() -> None:
    down = healthy(status="down", unmet=("userns",), mend=("allow it",), active=0, total=0)
    found = combined(healthy(), {"sandbox:a": None, "sandbox:b": down, "sandbox:c": healthy(status="down")})
    assert found.status == "degraded"
    assert found.unmet == ("sandbox:a: does not answer", "sandbox:b: userns", "sandbox:c: sandbox is down")
    assert (found.mend, found.active) == (("allow it",), 2)
    assert combined(healthy(status="down"), {"sandbox:a": healthy()}).status == "down"
