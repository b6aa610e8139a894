"""Which models read the packs of a role, and where their tokenizers are (CX-20, CX-21, MB-1)."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import ConfigError
from fleet.models.profiles import ModelsConfig, load_models
from fleet.models.prompts.pack_readers import PROMPT_FRAME_TOKENS, PackReader, PackReaders, pack_readers
from fleet.models.weights import TokenizerFile, TokenizerId

SHA = "a" * 64
NAMED = {"name": "coder", "sha256": SHA, "path": "/models/coder/tokenizer.json"}
CODER = TokenizerId(name="coder", sha256=SHA)
ROLES = {"qa": ("qa", "qa"), "architect": ("default", "architect"), "critic": ("critic", "critic", "architect")}


def engine(engine_id: str, **changes: object) -> dict[str, Any]:
    base = {"engine_id": engine_id, "kind": "vllm", "base_url": "http://h/v1", "model": "m", "unpriced": True}
    return {**base, "max_context": 8192, "max_output": 1024, **changes}


def entry(engine_id: str, **changes: object) -> dict[str, Any]:
    return {"engine_id": engine_id, "max_tokens": 2000, "timeout_s": 5, **changes}


def models(**policies: Any) -> ModelsConfig:
    engines = [engine("big", tokenizer=NAMED, max_context=32768), engine("small"), engine("run", tokenizer=NAMED)]
    return load_models({"engines": engines, "policies": {"default": [entry("profile"), entry("small")], **policies}})


def readers(*, environ: dict[str, str] | None = None, **policies: Any) -> PackReaders:
    return pack_readers(models(**policies), ROLES, environ=environ or {})


SMALL = PackReader(None, 8192 - 1024 - PROMPT_FRAME_TOKENS)
RUN = PackReader(CODER, 8192 - 1024 - PROMPT_FRAME_TOKENS)
BIG = PackReader(CODER, 32768 - 1024 - PROMPT_FRAME_TOKENS)


@pytest.mark.rule("CX-20", "MB-2")
def test_readers_are_the_engines_of_the_chain_that_of_the_run_first() -> None:
    found = readers(qa=[entry("big"), entry("small")])
    assert found.of("qa", None) == (BIG, SMALL)
    assert found.of("qa", "run") == (RUN, BIG, SMALL)
    assert found.of("qa", "small") == (SMALL, BIG)
    assert found.of("architect", None) == (SMALL,)
    assert found.of("nobody", "run") == (RUN, SMALL)


@pytest.mark.rule("CX-20", "MB-10")
def test_pinned_role_has_one_reader_whatever_the_run_names() -> None:
    found = readers(critic={"chain": [entry("big"), entry("small")], "pinned": True})
    assert found.of("critic", "run") == (BIG,)


@pytest.mark.rule("CX-20", "MB-2")
@pytest.mark.parametrize("profile", [None, "run", "small", "big"])
@pytest.mark.parametrize("policy", [[entry("big")], {"chain": [entry("profile"), entry("big")], "pinned": True}])
def test_readers_are_those_that_a_call_would_try(policy: Any, profile: str | None) -> None:
    config = models(qa=policy)
    chain = config.chain_for("qa", profile, inherits=("qa",))
    rooms = {link.engine_id: config.engine(link.engine_id) for link in chain.entries}
    expected = [(rooms[link.engine_id].tokenizer, link.max_context) for link in chain.entries]
    found = pack_readers(config, ROLES, environ={}).of("qa", profile)
    assert [(r.tokenizer, r.room + 1024 + PROMPT_FRAME_TOKENS) for r in found] == [
        (tokenizer.id if tokenizer else None, context) for tokenizer, context in expected
    ]


@pytest.mark.rule("CX-20", "AP-79")
def test_policy_of_a_named_agent_has_its_own_readers_and_one_that_is_not_written_down_has_none() -> None:
    found = readers(small=[entry("small")], steady={"chain": [entry("big"), entry("small")], "pinned": True})
    assert found.of("qa", "run", "small") == (RUN, SMALL)
    assert found.of("qa", "run", "steady") == (BIG,)
    assert found.of("qa", "run", "added-later") == ()
    before = PackReaders.model_validate(found.model_dump(exclude={"policies"}))
    assert before.of("qa", None) == found.of("qa", None)
    assert before.of("qa", None, "small") == ()


@pytest.mark.rule("CX-20")
def test_recorded_replies_are_no_reader_of_which_anything_is_known() -> None:
    assert readers().of("architect", "recorded:replies") == (SMALL,)
    only = load_models({"engines": [engine("big")], "policies": {"default": [entry("profile")]}})
    assert pack_readers(only, ROLES, environ={}).of("architect", "recorded:replies") == ()


@pytest.mark.rule("CX-20")
def test_model_that_the_environment_puts_in_its_place_has_an_unknown_tokenizer() -> None:
    actor = {
        "engine_id": "own",
        "kind": "vllm",
        "model": "m",
        "path": "/models/m",
        "unpriced": True,
        "tokenizer": NAMED,
    }
    actor["base_url_env"] = "OWN_URL"
    served = engine("web", tokenizer=NAMED, model_env="WEB_MODEL")
    config = load_models({"engines": [actor, served], "policies": {"default": [entry("own"), entry("web")]}})

    def tokenizers(**environ: str) -> list[TokenizerId | None]:
        return [reader.tokenizer for reader in pack_readers(config, ROLES, environ=environ).of("qa", None)]

    assert tokenizers() == tokenizers(WEB_MODEL="m") == [CODER, CODER]
    assert tokenizers(OWN_URL="http://elsewhere/v1") == [None, CODER]
    assert tokenizers(WEB_MODEL="other") == [CODER, None]


@pytest.mark.rule("GL-23")
def test_readers_survive_being_written_down() -> None:
    found = readers(qa=[entry("big")])
    assert PackReaders.model_validate_json(canonical_json(found)) == found


@pytest.mark.rule("MB-1", "GL-22")
@pytest.mark.parametrize(
    ("tokenizer", "reason"),
    [
        ({"name": "coder", "sha256": "abc", "path": "t.json"}, "tokenizer.sha256"),
        ({"name": "coder", "sha256": SHA}, "one of `path`, `sources`"),
        ({**NAMED, "size_bytes": 9, "sources": [{"kind": "url", "url": "http://h/t"}]}, "one of `path`, `sources`"),
        ({"name": "coder", "sha256": SHA, "sources": [{"kind": "url", "url": "http://h/t"}]}, "needs its `size_bytes`"),
        ({"name": "coder", "sha256": SHA, "in_weights": True}, "runs elsewhere"),
        ({**NAMED, "in_weights": True}, "one of `path`, `sources`"),
        ("coder", "tokenizer"),
    ],
)
def test_tokenizer_without_digest_or_place_is_refused(tokenizer: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_models({"engines": [engine("big", tokenizer=tokenizer)], "policies": {"default": [entry("big")]}})


@pytest.mark.rule("MB-1")
def test_tokenizer_with_sources_is_fetched_as_weights_are() -> None:
    sources = [{"kind": "url", "url": "http://h/t"}]
    found = TokenizerFile.model_validate({"name": "coder", "sha256": SHA, "size_bytes": 9, "sources": sources})
    assert found.pulled is not None
    assert (found.pulled.file, found.pulled.sha256, found.pulled.size_bytes) == ("tokenizer.json", SHA, 9)
    assert TokenizerFile.model_validate(NAMED).pulled is None
