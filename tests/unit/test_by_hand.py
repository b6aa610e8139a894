"""The demo's replies for gates that a person grants are copies of what the model said to the delegated ones."""

from __future__ import annotations

import json

from scripts.by_hand import REPLIES, variants

RECORDINGS = {path.stem: json.loads(path.read_text()) for path in REPLIES.glob("*.json")}


def test_every_prompt_with_a_delegated_gate_has_its_copies_with_the_same_reply() -> None:
    made = [(recording, copy) for recording in RECORDINGS.values() for copy in variants(recording)]
    assert len(made) >= 15
    for recording, copy in made:
        stored = RECORDINGS[copy["request_digest"].removeprefix("sha256:")]
        assert stored == copy
        assert stored["reply"] == recording["reply"]


def test_prompt_without_such_a_gate_has_no_copy() -> None:
    plain = [r for r in RECORDINGS.values() if "(delegated)" not in json.dumps(r["request"])]
    assert plain
    assert not [copy for recording in plain for copy in variants(recording)]
