"""The scripted model: rules by digest or condition, outcomes in turn."""

from __future__ import annotations

from fleet.models.chat import ChatMessage, ChatRequest, Sampling
from fleet.models.memory import ScriptedChatModel


def request(text: str, *, max_tokens: int = 100) -> ChatRequest:
    return ChatRequest(messages=(ChatMessage(role="user", content=text),), sampling=Sampling(max_tokens=max_tokens))


async def test_first_matching_rule_answers_and_its_last_outcome_repeats() -> None:
    model = ScriptedChatModel.when(
        (request("a").digest, "by digest"), (lambda asked: "b" in asked.messages[0].content, ["one", "two"])
    )
    texts = [(await model.complete(request(text), request_id="r", timeout_s=60)).text for text in "abbb"]
    assert texts == ["by digest", "one", "two", "two"]
    assert [asked.messages[0].content for asked in model.calls] == list("abbb")


async def test_text_over_max_tokens_is_cut_off() -> None:
    reply = await ScriptedChatModel.of("a b c d").complete(request("x", max_tokens=2), request_id="r", timeout_s=60)
    assert (reply.text, reply.finish_reason) == ("a b", "length")
