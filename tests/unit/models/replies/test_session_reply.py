"""What is kept of one reply of an engineer."""

from __future__ import annotations

import pytest

from fleet.models.chat import ChatMessage, Reasoning
from fleet.models.replies.session_reply import session_reply


@pytest.mark.rule("MB-45")
def test_thoughts_are_kept_whole_or_not_at_all_and_a_reply_without_has_the_bytes_of_before() -> None:
    plain = Reasoning(engine="e", form="thinking", text="Hm.", opaque="sig")
    secret = Reasoning(engine="e", form="thinking", text="the key is AKIAIOSFODNN7EXAMPLE", opaque="sig")
    assert session_reply("", "stop", (), (plain,)).reasoning == (plain,)
    assert session_reply("", "stop", (), (plain, secret)).reasoning == ()
    assert session_reply("", "stop", (), (Reasoning(engine="e", form="f", text="x" * 2_000_000),)).reasoning == ()
    assert "reasoning" not in session_reply("a", "stop", ()).model_dump(mode="json")
    assert "reasoning" not in ChatMessage(role="user", content="a").model_dump(mode="json")
