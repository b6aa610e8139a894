"""Names of keys."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

import pytest

from fleet.kernel.ids import CommandId, Digest, RunKey, StoryId, StreamId
from fleet.log.redis import keys


@pytest.mark.rule("EV-1", "EV-2")
def test_keys_of_a_stream_are_pinned_for_ever() -> None:
    assert keys.stream_key(StreamId("story:st-auth-7"), "log") == "fleet:{p14}:story:st-auth-7:log"
    assert keys.stream_key(StreamId("project:pr-shop"), "head") == "fleet:{p14}:project:pr-shop:head"
    assert keys.stream_key(StreamId("platform:main"), "log") == "fleet:{p00}:platform:main:log"


@pytest.mark.rule("EV-7", "EV-10")
def test_keys_of_a_partition_and_of_an_answer() -> None:
    assert keys.open_key("07") == "fleet:{p07}:open"
    assert keys.feed_key("07") == "fleet:{p07}:feed"
    assert keys.commands_key("07") == "fleet:{p07}:commands"
    assert keys.dlq_key("07") == "fleet:{p07}:dlq"
    assert keys.refused_key("07") == "fleet:{p07}:refused"
    assert keys.reply_key(CommandId("user:ada/1")).endswith(":reply:user:ada/1")


@pytest.mark.rule("EV-6")
def test_key_of_a_snapshot_shares_the_slot_of_its_stream() -> None:
    assert keys.stream_key(StreamId("story:st-auth-7"), "snap") == "fleet:{p14}:story:st-auth-7:snap"


def test_keys_of_blobs_spread_by_their_first_digit() -> None:
    assert keys.blob_key(Digest(f"sha256:{'0' * 64}")) == f"fleet:{{p00}}:blob:{'0' * 64}"
    assert keys.blob_key(Digest(f"sha256:f{'0' * 63}")) == f"fleet:{{p15}}:blob:f{'0' * 63}"


def test_streams_spread_over_all_sixteen_partitions() -> None:
    spread = Counter(keys.partition_of(StreamId(f"story:st-{number}")) for number in range(1600))
    assert set(spread) == set(keys.PARTITIONS)
    assert max(spread.values()) < 200


def test_run_and_epoch_of_the_ledger_share_a_slot() -> None:
    run = keys.ledger_run_key(RunKey(sha256(b"run").hexdigest()))
    assert run.split(":")[1] == keys.ledger_epoch_key(StoryId("st-one")).split(":")[1] == "{p00}"
