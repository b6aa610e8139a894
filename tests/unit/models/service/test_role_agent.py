"""A role at work: prompt, chain, repair, answer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import (
    ContextTooLarge,
    InvalidInput,
    ModelTimeout,
    ModelUnavailable,
    RateLimited,
    ReplyMalformed,
    ReplyRefused,
)
from fleet.kernel.ids import Principal, StepId
from fleet.models.chat import NO_TAG, CallTag, ChatReply, ChatRequest, Sampling, TokenUsage
from fleet.models.engines.recorded import RecordedChatModel, RecordingChatModel
from fleet.models.memory import Hang, ScriptedChatModel
from fleet.models.port import AgentAnswer, AgentRequest, ChatModel, PassedOver
from fleet.models.profiles import ModelsConfig, load_models
from fleet.models.prompts.prompt import PromptSet, parse_prompts
from fleet.models.replies.replies import review_schema
from fleet.models.service.role_agent import SLOW_FOR_MS, LocalAgents, RoleAgent
from fleet.owner.journal.step_records import fallbacks_of
from fleet.policy.roles import load_roles
from fleet.trees.memory import MemoryBlobStore

CONFIG = Path(__file__).parents[4] / "config"
CODE = "```python\ndef add(a, b):\n    return a + b\n```"
REVIEW = json.dumps({"broken_criterion": "none", "reason": "all tests passed"})


def prompts(**extra: str) -> PromptSet:
    paths = [*CONFIG.glob("prompts/*.md"), *CONFIG.glob("prompts/roles/*.md")]
    return parse_prompts({**{path.relative_to(CONFIG).as_posix(): path.read_text() for path in paths}, **extra})


def policies(*engines: str, repairs: int = 1, **entry: Any) -> ModelsConfig:
    listed = [
        {"engine_id": name, "kind": "vllm", "base_url": "u", "model": "m", "unpriced": True, "max_context": 1000 * n}
        for n, name in enumerate(engines, start=1)
    ]
    chain = [{"engine_id": name, "max_tokens": 500, "timeout_s": 60, **entry} for name in engines]
    return load_models(
        {"engines": listed, "policies": {"default": {"chain": chain, "on_malformed": {"repairs": repairs}}}}
    )


class Team:
    """One developer agent over the given models, and all that a test looks at."""

    def __init__(self, *, config: ModelsConfig | None = None, role: str = "developer", **models: ChatModel) -> None:
        self.blobs, self.clock = MemoryBlobStore(), MemoryClock()
        self.down: dict[str, ModelUnavailable] = {}
        self.agent = RoleAgent(
            load_roles(yaml.safe_load((CONFIG / "roles.yaml").read_text())).role(role),
            models=models,
            policies=config or policies(*models),
            prompts=prompts(),
            blobs=self.blobs,
            clock=self.clock,
            refusal=self.down.get,
        )

    async def ask(self, request: AgentRequest, *, timeout_s: float = 300) -> AgentAnswer:
        task = asyncio.create_task(self.agent.ask(request, request_id="r1", timeout_s=timeout_s))
        while not task.done():
            await asyncio.sleep(0)
            if self.clock.sleepers:
                self.clock.advance(1)
        return task.result()


def draft(**changes: Any) -> AgentRequest:
    values: dict[str, Any] = {
        "kind": "draft",
        "role": "developer",
        "principal": Principal("agent:developer-001"),
        "shared": "Write add(a, b).",
        "target_paths": ("calc.py",),
        "sampling": Sampling(temperature="0.2", max_tokens=400, seed=1),
    }
    return AgentRequest(**{**values, **changes})


def review(**changes: Any) -> AgentRequest:
    return draft(**{"kind": "review", "json_schema": review_schema(["ac-1"]), **changes})


@pytest.mark.rule("MB-3", "CX-20")
async def test_prompt_that_was_counted_fits_or_not_by_its_count() -> None:
    own = "x" * 2_000
    small, large = ScriptedChatModel.of(CODE), ScriptedChatModel.of(CODE, CODE)
    team = Team(small=small, large=large)
    assert (await team.ask(draft(own=own))).passed_over[0].engine == "small", "by estimate it is too large"
    assert not (await team.ask(draft(own=own, counted=20))).passed_over
    (skip,) = (await team.ask(draft(counted=900))).passed_over
    assert (skip.engine, skip.asked) == ("small", False)


@pytest.mark.rule("MB-12")
async def test_answer_holds_the_parsed_value_and_the_stored_texts() -> None:
    model = ScriptedChatModel.of(CODE)
    team = Team(one=model)
    answer = await team.ask(draft(own="Signature: add(a, b)"))
    assert answer.value["edits"][0]["path"] == "calc.py"
    assert await team.blobs.get(answer.reply) == CODE.encode()
    stored = json.loads(await team.blobs.get(answer.prompt))
    assert stored == model.calls[0].model_dump(mode="json")
    assert (answer.engine, answer.model, answer.revision, answer.calls) == ("scripted", "script", "1", 1)
    assert answer.usage.tokens_out > 0


async def test_prompt_names_no_principal_and_bounds_the_reply() -> None:
    model = ScriptedChatModel.of(CODE)
    await Team(one=model).ask(draft(sampling=Sampling(max_tokens=4000, temperature="0.9", seed=5)))
    sent = model.calls[0]
    assert "agent:" not in str(sent.messages)
    assert (sent.sampling.max_tokens, sent.sampling.temperature, sent.sampling.seed) == (500, "0.9", 5)
    await Team(config=policies("one", temperature="0.1"), one=model).ask(draft())
    assert model.calls[1].sampling.temperature == "0.1"


@pytest.mark.rule("MB-2", "CN-16")
async def test_request_that_names_a_policy_is_answered_by_it_and_pinned_with_it() -> None:
    one, two = ScriptedChatModel.of(CODE), ScriptedChatModel.of(CODE)
    chosen = policies("one", "two").model_dump(mode="json")
    chain = chosen["policies"]["default"]["chain"]
    chosen["policies"] = {"default": {"chain": chain[:1]}, "frugal": {"chain": chain[1:]}}
    team = Team(config=load_models(chosen), one=one, two=two)
    await team.ask(draft())
    await team.ask(draft(policy="frugal"))
    assert (len(one.calls), len(two.calls)) == (1, 1)
    assert "policy" not in draft().pinned()
    assert draft(policy="frugal").pinned()["policy"] == "frugal"


async def test_schema_goes_to_the_engine_unless_it_is_switched_off() -> None:
    model = ScriptedChatModel.of(REVIEW)
    await Team(one=model).ask(review())
    answer = await Team(config=policies("one", json_schema="off"), one=model).ask(review())
    assert [bool(sent.json_schema) for sent in model.calls] == [True, False]
    assert answer.value["broken_criterion"] == "none"


@pytest.mark.rule("MB-6")
async def test_malformed_reply_is_repaired_once_with_the_findings_shown() -> None:
    model = ScriptedChatModel.of("I would add the numbers.", CODE)
    answer = await Team(one=model).ask(draft())
    first, second = model.calls
    assert second.messages[: len(first.messages)] == first.messages
    assert second.messages[-2].content == "I would add the numbers."
    assert "no code block" in second.messages[-1].content
    assert answer.calls == 2
    assert answer.usage.tokens_in > 2 * sum(len(message.content.split()) for message in first.messages) - 1


@pytest.mark.rule("MB-6", "CN-47")
async def test_ballot_that_stays_malformed_goes_to_the_next_engine_and_then_fails_with_all_attempts() -> None:
    bad, good = ScriptedChatModel.of("{}"), ScriptedChatModel.of(REVIEW)
    answer = await Team(bad=bad, good=good).ask(review())
    assert (len(bad.calls), len(good.calls), answer.calls) == (2, 1, 3)
    assert len(good.calls[0].messages) == 2
    with pytest.raises(ReplyMalformed) as caught:
        await Team(bad=bad).ask(review())
    attempts = caught.value.details["attempts"]
    assert [attempt["code"] for attempt in attempts] == ["reply_malformed", "reply_malformed"]
    assert all(attempt["reply"].startswith("sha256:") for attempt in attempts)
    assert caught.value.details["usage"]["tokens_out"] > 0


@pytest.mark.rule("MB-6")
async def test_cut_off_reply_is_malformed_even_when_it_parses() -> None:
    long = "```python\n" + "x = 1\n" * 300 + "```"
    with pytest.raises(ReplyMalformed, match="cut off"):
        await Team(one=ScriptedChatModel.of(long)).ask(draft(sampling=Sampling(max_tokens=5)))


@pytest.mark.rule("MB-4")
async def test_unavailable_engine_is_asked_again_after_a_wait_and_then_the_next_answers() -> None:
    flaky = ScriptedChatModel.of(ModelUnavailable("down"), CODE)
    team = Team(flaky=flaky)
    assert (await team.ask(draft())).calls == 2
    assert team.clock.monotonic_ms() >= 500
    down, good = ScriptedChatModel.of(ModelTimeout("late")), ScriptedChatModel.of(CODE)
    assert (await Team(down=down, good=good).ask(draft())).calls == 3


@pytest.mark.rule("MB-5")
async def test_too_large_prompt_goes_to_an_engine_with_a_larger_context() -> None:
    small, large = ScriptedChatModel.of(ContextTooLarge("4000 > 1000")), ScriptedChatModel.of(CODE)
    assert (await Team(small=small, large=large).ask(draft())).calls == 2
    with pytest.raises(ContextTooLarge):
        await Team(small=small).ask(draft())


@pytest.mark.rule("MB-3")
async def test_prompt_that_fits_no_engine_is_refused_with_the_reasons_and_no_call() -> None:
    model = ScriptedChatModel.of(CODE)
    with pytest.raises(ModelUnavailable, match="context of 1000 tokens") as caught:
        await Team(one=model).ask(draft(shared="x" * 9000))
    assert not model.calls
    assert caught.value.details["skipped"][0]["engine"] == "one"


@pytest.mark.rule("MB-7")
async def test_refusal_goes_to_the_next_engine_once() -> None:
    refusing = ScriptedChatModel.of(ReplyRefused("no"))
    last = ScriptedChatModel.of(CODE)
    assert (await Team(a=refusing, b=last).ask(draft())).calls == 2
    with pytest.raises(ReplyRefused):
        await Team(a=refusing, b=refusing, c=last).ask(draft())


@pytest.mark.rule("MB-9")
async def test_exhausted_chain_fails_with_the_last_error_and_all_attempts() -> None:
    lost = ModelUnavailable("no recorded reply", permanent=True, request_digest="sha256:1")
    with pytest.raises(ModelUnavailable) as caught:
        await Team(a=ScriptedChatModel.of(ModelTimeout("late")), b=ScriptedChatModel.of(lost)).ask(draft())
    details = caught.value.details
    assert [attempt["engine"] for attempt in details["attempts"]] == ["a", "a", "b"]
    assert details["request_digest"] == "sha256:1"


async def test_time_limit_of_the_request_ends_the_chain() -> None:
    with pytest.raises(ModelUnavailable, match="down") as caught:
        await Team(a=ScriptedChatModel.of(ModelUnavailable("down"))).ask(draft(), timeout_s=0.4)
    assert len(caught.value.details["attempts"]) == 1
    with pytest.raises(ModelTimeout, match="no time is left"):
        await Team(a=ScriptedChatModel.of(CODE)).ask(draft(), timeout_s=0)


async def test_engine_that_is_configured_but_not_running_is_named() -> None:
    with pytest.raises(ModelUnavailable, match="'two' is not running here"):
        await Team(config=policies("two"), one=ScriptedChatModel.of(CODE)).ask(draft())


async def test_aborted_request_is_no_answer() -> None:
    model = ScriptedChatModel.of(Hang("```python\nx = 1"))
    task = asyncio.create_task(Team(one=model).ask(draft()))
    while not task.done():
        await model.abort("r1#1")
        await asyncio.sleep(0)
    with pytest.raises(ModelUnavailable, match="aborted"):
        task.result()


async def test_profile_of_the_run_is_asked_first_and_an_unknown_one_is_refused() -> None:
    one, two = ScriptedChatModel.of(CODE), ScriptedChatModel.of(CODE)
    team = Team(one=one, two=two)
    await team.ask(draft(model="two"))
    assert (len(one.calls), len(two.calls)) == (0, 1)
    with pytest.raises(InvalidInput):
        await team.ask(draft(model="three"))


@pytest.mark.rule("CN-14")
async def test_variant_of_the_seat_changes_the_request() -> None:
    model = ScriptedChatModel.of(CODE)
    team = Team(one=model)
    await team.ask(draft(variant=0))
    await team.ask(draft(variant=1))
    assert model.calls[0].digest != model.calls[1].digest


async def test_recorded_run_replays_to_the_same_answer_in_another_team(tmp_path: Path) -> None:
    live = Team(one=RecordingChatModel(ScriptedChatModel.of("no code", CODE), tmp_path))
    first = await live.ask(draft())
    replay = Team(config=policies("one"), **{f"recorded:{tmp_path}": RecordedChatModel(tmp_path)})
    again = await replay.ask(draft(model=f"recorded:{tmp_path}"))
    assert (again.value, again.prompt, again.reply, again.calls) == (first.value, first.prompt, first.reply, 2)
    assert again.engine == "recorded"


async def test_request_for_another_role_is_refused() -> None:
    with pytest.raises(InvalidInput):
        await Team(one=ScriptedChatModel.of(CODE)).ask(draft(role="qa"))


async def test_local_agents_route_by_role_and_refuse_unknown_ones() -> None:
    agents = LocalAgents({"developer": Team(one=ScriptedChatModel.of(CODE)).agent})
    answer = await agents.ask(draft(), request_id="r", timeout_s=60)
    assert answer.value["edits"]
    with pytest.raises(InvalidInput) as caught:
        await agents.ask(draft(role="qa"), request_id="r", timeout_s=60)
    assert caught.value.details["allowed"] == ["developer"]


@pytest.mark.rule("RT-1")
async def test_role_that_exists_in_yaml_only_does_its_work() -> None:
    data = yaml.safe_load((CONFIG / "roles.yaml").read_text())
    data["roles"]["security"] = {"extends": "qa", "prompt": "prompts/security.md"}
    model = ScriptedChatModel.of(REVIEW)
    agent = RoleAgent(
        load_roles(data).role("security"),
        models={"one": model},
        policies=policies("one"),
        prompts=prompts(**{"prompts/security.md": "---\nversion: 1\n---\nYou look for attacks."}),
        blobs=MemoryBlobStore(),
        clock=MemoryClock(),
    )
    answer = await agent.ask(review(role="security"), request_id="r", timeout_s=60)
    assert answer.value["broken_criterion"] == "none"
    assert "You look for attacks." in model.calls[0].messages[1].content


def busy(retry_after_s: int = 7) -> ModelUnavailable:
    return ModelUnavailable("all places are taken", queued=True, retry_after_s=retry_after_s)


def taking(latency_ms: int, *, engine: str) -> ChatReply:
    usage = TokenUsage(tokens_in=1, tokens_out=1)
    return ChatReply(text=CODE, finish_reason="stop", usage=usage, engine=engine, model="m", latency_ms=latency_ms)


@dataclass
class Tagged(ScriptedChatModel):
    """A script that keeps the tags of its calls."""

    tags: list[CallTag] = field(default_factory=list[CallTag])

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        self.tags.append(tag)
        return await super().complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag)


async def test_tag_of_the_request_goes_with_every_call_and_names_the_role() -> None:
    model = Tagged.of("no code", CODE)
    assert isinstance(model, Tagged)
    tag = CallTag(tenant="shop", affinity="st-1/co-1", story="st-1")
    await Team(one=model).ask(draft(tag=tag))
    assert model.tags == [tag.model_copy(update={"role": "developer"})] * 2
    assert draft(tag=tag).pinned() == draft().pinned()


@pytest.mark.rule("MB-3")
async def test_engine_that_is_known_to_be_down_is_skipped_and_the_reason_is_recorded() -> None:
    first, second = ScriptedChatModel.of(CODE, engine="first"), ScriptedChatModel.of(CODE, engine="second")
    team = Team(first=first, second=second)
    team.down["first"] = ModelUnavailable("it did not answer", retry_after_s=20)
    answer = await team.ask(draft())
    assert (len(first.calls), len(second.calls)) == (0, 1)
    assert answer.passed_over == (PassedOver("first", "it did not answer", asked=False),)
    (event,) = fallbacks_of(StepId("s"), answer)
    assert (event.from_, event.to, event.reason) == ("first", "second", "it did not answer")


@pytest.mark.rule("MB-3", "MB-9")
async def test_chain_whose_engines_are_all_down_fails_at_once_and_says_when_to_come_again() -> None:
    team = Team(first=ScriptedChatModel.of(CODE), second=ScriptedChatModel.of(CODE))
    team.down["first"] = ModelUnavailable("down", retry_after_s=30)
    team.down["second"] = ModelUnavailable("down too", retry_after_s=12)
    with pytest.raises(ModelUnavailable, match="first: down; second: down too") as caught:
        await team.ask(draft())
    assert caught.value.details["retry_after_s"] == 12
    assert [skip["engine"] for skip in caught.value.details["skipped"]] == ["first", "second"]
    assert team.clock.monotonic_ms() == 0


async def test_fallback_is_recorded_with_the_failures_that_led_to_it() -> None:
    down, good = ScriptedChatModel.of(ModelTimeout("late")), ScriptedChatModel.of("prose", CODE, engine="good")
    answer = await Team(down=down, good=good).ask(draft())
    late, prose = PassedOver("down", "model_timeout"), PassedOver("good", "reply_malformed")
    assert answer.passed_over == (late, late, prose)
    assert [(event.from_, event.to, event.reason) for event in fallbacks_of(StepId("s"), answer)] == [
        ("down", "good", "model_timeout")
    ]


async def test_repair_by_the_same_engine_is_no_fallback_even_when_a_folder_answers(tmp_path: Path) -> None:
    inner = ScriptedChatModel.of("prose", CODE)
    await Team(one=RecordingChatModel(inner, tmp_path)).ask(draft())
    profile = f"recorded:{tmp_path}"
    team = Team(config=policies("one"), one=inner, **{profile: RecordedChatModel(tmp_path)})
    answer = await team.ask(draft(model=profile))
    assert answer.passed_over == (PassedOver("recorded", "reply_malformed"),)
    assert fallbacks_of(StepId("s"), answer) == ()


@pytest.mark.rule("MB-4")
async def test_busy_engine_is_not_asked_again_at_once_and_the_next_one_answers() -> None:
    crowded, free = ScriptedChatModel.of(busy()), ScriptedChatModel.of(CODE, engine="free")
    answer = await Team(crowded=crowded, free=free).ask(draft())
    assert (len(crowded.calls), answer.engine) == (1, "free")
    with pytest.raises(ModelUnavailable) as caught:
        await Team(crowded=crowded).ask(draft())
    assert (caught.value.details["retry_after_s"], caught.value.details["queued"]) == (7, True)


@pytest.mark.rule("MB-4")
async def test_engine_of_which_two_replicas_failed_is_not_asked_a_third_time() -> None:
    model = ScriptedChatModel.of(ModelUnavailable("down", repeated=True))
    with pytest.raises(ModelUnavailable):
        await Team(one=model).ask(draft())
    assert len(model.calls) == 1


@pytest.mark.rule("MB-28")
async def test_rate_limit_goes_to_the_next_engine_and_without_one_the_step_comes_again_later() -> None:
    limited = ScriptedChatModel.of(RateLimited("this minute is used up", queued=True, retry_after_s=40))
    free = ScriptedChatModel.of(CODE, engine="free")
    answer = await Team(limited=limited, free=free).ask(draft())
    assert answer.passed_over == (PassedOver("limited", "rate_limited"),)
    with pytest.raises(RateLimited) as caught:
        await Team(limited=limited).ask(draft())
    assert caught.value.details["retry_after_s"] == 40
    assert caught.value.details["attempts"][0]["code"] == "rate_limited"


@pytest.mark.rule("MB-8")
async def test_slow_reply_is_kept_and_the_next_calls_go_to_the_next_engine_for_a_while() -> None:
    first = ScriptedChatModel.of(taking(9000, engine="first"), taking(10, engine="first"))
    second = ScriptedChatModel.of(CODE, engine="second")
    team = Team(config=policies("first", "second", max_latency_ms=5000), first=first, second=second)
    assert (await team.ask(draft())).engine == "first"
    answer = await team.ask(draft())
    assert answer.engine == "second"
    (passed,) = answer.passed_over
    assert (passed.engine, passed.asked) == ("first", False)
    assert "9000 ms" in passed.reason
    team.clock.advance(SLOW_FOR_MS / 1000)
    assert (await team.ask(draft())).engine == "first"
    assert (await team.ask(draft())).engine == "first"


@pytest.mark.rule("MB-8")
async def test_slow_engine_is_still_asked_when_the_others_fail_or_there_is_none() -> None:
    first = ScriptedChatModel.of(taking(9000, engine="first"))
    down = ScriptedChatModel.of(ModelUnavailable("down", permanent=True))
    team = Team(config=policies("first", "down", max_latency_ms=5000), first=first, down=down)
    assert [(await team.ask(draft())).engine for _ in range(3)] == ["first"] * 3
    assert len(down.calls) == 2
    alone = Team(config=policies("first", max_latency_ms=5000), first=first)
    assert [(await alone.ask(draft())).engine for _ in range(2)] == ["first"] * 2


@pytest.mark.rule("MB-10")
@settings(max_examples=60, deadline=None)
@given(
    external=st.sets(st.sampled_from("abcd")),
    listed=st.lists(st.sampled_from(["a", "b", "c", "d", "profile"]), min_size=1, max_size=5, unique=True),
    profile=st.sampled_from([None, "a", "b", "c", "d"]),
    pinned=st.booleans(),
)
def test_data_goes_only_to_engines_that_the_policy_lists_or_the_run_names(
    external: set[str], listed: list[str], profile: str | None, pinned: bool
) -> None:
    """The run's own engine stands first and is no fallback; every other one is in the policy, external or not."""
    engines = [
        {
            "engine_id": name,
            "kind": "openai",
            "base_url": "u",
            "model": "m",
            "unpriced": True,
            "external": name in external,
        }
        for name in "abcd"
    ]
    chain = [{"engine_id": name, "max_tokens": 500, "timeout_s": 60} for name in listed]
    config = load_models({"engines": engines, "policies": {"default": {"chain": chain, "pinned": pinned}}})
    named = [name for name in listed if name != "profile"]
    if profile is None and not named:
        with pytest.raises(ModelUnavailable):
            config.chain_for("developer", profile)
        return
    found = [entry.engine_id for entry in config.chain_for("developer", profile).entries]
    fallbacks = found[1:]
    assert set(fallbacks) <= set(named)
    assert found[0] in {profile, *named}
    if pinned:
        assert fallbacks == []
        assert found[0] == (named[0] if named else profile)
