"""config/models.yaml as types: engines, role policies, budgets, and the chain of engines for one role (MB-1, MB-2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from fleet.kernel.documents import WrongKey, WrongKeys, problems_of, wrong_file
from fleet.kernel.errors import InvalidInput, ModelUnavailable
from fleet.kernel.types import Frozen
from fleet.models.engine_config import AnyEngine, Decimal, EngineConfig, RecordedEngine, Strategy
from fleet.models.presets import Capability
from fleet.models.probed import ChosenStrategy, ProbedEngine, choose_strategy
from fleet.models.routing.budget import BudgetLimits

RUN_PROFILE = "profile"
"""Entry that stands for the engine a run names (`--model`); without one the entry is left out of the chain."""
RECORDED_PREFIX = "recorded:"
_TERMS = "?strategy="
"""Parts the folder of a recording from the terms of the engine that was recorded."""


class PolicyEntry(Frozen):
    """One link of a chain: an engine and how to call it."""

    engine_id: str
    """An engine, or `profile` for the engine that the run names."""
    temperature: Decimal | None = None
    """Replaces the request's temperature; left out, that of the seat is used (CN-14)."""
    top_p: Decimal | None = None
    """Replaces the request's top_p."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Lowers the longest reply, in tokens; left out, the engine and the budget alone bind it."""
    timeout_s: Annotated[int, Field(ge=1, le=3600)]
    """Wall time of one call, in seconds."""
    max_latency_ms: Annotated[int, Field(ge=1)] | None = None
    """A slower reply is kept, and the next call goes to the next entry (MB-8)."""
    max_tokens_per_step: Annotated[int, Field(ge=1)] | None = None
    """Prompt and reply together; a larger step goes to the next entry."""
    json_schema: Literal["required", "preferred", "off"] = "preferred"
    """Whether the engine constrains structured replies; they are validated in any case."""


class OnMalformed(Frozen):
    """What happens with a reply that is not of the asked form."""

    repairs: Annotated[int, Field(ge=0, le=3)] = 1
    """Further calls that show the parser's error, before the next entry (MB-6)."""


def _as_policy(value: object) -> object:
    return {"chain": value} if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType]


class Policy(Frozen):
    """The chain of one role; a bare list in YAML is the chain."""

    chain: Annotated[tuple[PolicyEntry, ...], Field(min_length=1)]
    on_malformed: OnMalformed = OnMalformed()
    pinned: bool = False
    """No fallback and no model profile of a run replaces the first entry (MB-10)."""


class StepCaps(Frozen):
    """How many steps a task and a story may take, however little each of them costs (MB-42)."""

    task: Annotated[int, Field(ge=1)] = 2_000
    story: Annotated[int, Field(ge=1)] = 10_000


class Budgets(Frozen):
    """Limits by scope (MB-20, MB-21)."""

    platform: BudgetLimits = BudgetLimits()
    """Of all stories together, per day (UTC)."""
    project: BudgetLimits = BudgetLimits()
    """Of the stories of one project together, per day (UTC)."""
    story: BudgetLimits = BudgetLimits(tokens=20_000_000, wall_ms=8 * 3_600_000, gpu_ms=7_200_000)
    task: BudgetLimits = BudgetLimits(tokens=10_000_000)
    council: BudgetLimits = BudgetLimits(tokens=8_000_000, wall_ms=10_800_000)
    role: BudgetLimits = BudgetLimits()
    """Of each role within one story."""
    principal: BudgetLimits = BudgetLimits(tokens=20_000_000)
    """Of each principal's own calls at `/v1`, per day (UTC)."""
    step: BudgetLimits = BudgetLimits(tokens=200_000)
    steps: StepCaps = StepCaps()

    @model_validator(mode="after")
    def _story_is_bound(self) -> Self:
        if self.story.tokens is None and self.story.gpu_ms is None:
            raise ValueError("budgets.story needs a limit on tokens or gpu_ms")
        return self


class ChainEntry(Frozen):
    """An entry with the facts of its engine: all that routing needs."""

    entry: PolicyEntry
    engine_id: str
    max_context: int
    max_output: int
    capabilities: frozenset[Capability]


USUAL_LINK = ChainEntry(
    entry=PolicyEntry(engine_id=RUN_PROFILE, timeout_s=300),
    engine_id=RUN_PROFILE,
    max_context=32_768,
    max_output=4_096,
    capabilities=frozenset(),
)
"""Stands for an engine of which nothing is known: it holds what most engines hold."""


class Chain(Frozen):
    """The engines to try for one role, best first, and how often a malformed reply is repaired."""

    entries: Annotated[tuple[ChainEntry, ...], Field(min_length=1)]
    repairs: int


class ModelsConfig(Frozen):
    """config/models.yaml as a whole."""

    engines: tuple[EngineConfig, ...]
    policies: dict[str, Annotated[Policy, BeforeValidator(_as_policy)]]
    budgets: Budgets = Budgets()
    tenant_weights: dict[str, Annotated[int, Field(ge=1, le=1000)]] = Field(default_factory=dict)
    """Shares of tenants (projects, or principals without one) where calls wait for an engine; 1 for all others."""
    probes: dict[str, ProbedEngine] = Field(default_factory=dict)
    """What `fleet models probe` measured, by engine. Kept in the home; here for a fleet of several machines."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ids = [engine.engine_id for engine in self.engines]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"engines named twice: {', '.join(twice)}")
        if RUN_PROFILE in ids:
            raise ValueError(f"no engine can be called {RUN_PROFILE!r}: the word stands for the engine a run names")
        names = {*ids, RUN_PROFILE}
        links = [
            (f"policies.{role}.chain.{number}.engine_id", entry.engine_id)
            for role, policy in self.policies.items()
            for number, entry in enumerate(policy.chain)
        ]
        known = ", ".join(sorted(names))
        if unknown := [
            WrongKey(path, f"no engine {name!r}; there are {known}") for path, name in links if name not in names
        ]:
            raise WrongKeys(unknown)
        if "default" not in self.policies:
            raise ValueError("policies.default is missing: roles without a policy of their own use it")
        return self

    @property
    def profiles(self) -> tuple[str, ...]:
        """The model profiles that a run may name, beside `recorded:DIR`."""
        return tuple(engine.engine_id for engine in self.engines)

    def engine(self, engine_id: str) -> AnyEngine:
        """The engine of this id; `recorded:DIR` names a folder of recorded replies (`recorded_profile`).

        Raises:
            InvalidInput: there is no such engine; `allowed` lists those that exist (MB-2).
        """
        if engine_id.startswith(RECORDED_PREFIX) and len(engine_id) > len(RECORDED_PREFIX):
            return _recorded(engine_id)
        for engine in self.engines:
            if engine.engine_id == engine_id:
                return engine
        allowed = [*self.profiles, "recorded:DIR"]
        raise InvalidInput(
            f"unknown model profile {engine_id!r}: choose one of {', '.join(allowed)}, or add it to config/models.yaml",
            field="model",
            value=engine_id,
            allowed=allowed,
        )

    def with_probes(self, probes: Mapping[str, ProbedEngine]) -> ModelsConfig:
        """The configuration with these probes; those that stand in its file win."""
        return self.model_copy(update={"probes": {**probes, **self.probes}})

    def strategy_of(self, engine_id: str) -> ChosenStrategy:
        """How a developer works on this engine, and why. InvalidInput as `engine`."""
        engine = self.engine(engine_id)
        if engine.strategy != "auto":
            return ChosenStrategy(engine.strategy, "models.yaml says so")
        return choose_strategy(self.probe_of(engine_id))

    def probe_of(self, engine_id: str) -> ProbedEngine | None:
        """What was measured of the engine, while it is configured with the model that was probed."""
        engine, probed = self.engine(engine_id), self.probes.get(engine_id)
        is_another = probed is not None and engine.model not in ("auto", probed.model)
        return None if is_another else probed

    def policy_for(self, role: str, *, inherits: Sequence[str] = ()) -> Policy:
        """The policy of the role, else of the first of `inherits` that has one, else `default` (MB-2)."""
        for name in (role, *inherits):
            if name in self.policies:
                return self.policies[name]
        return self.policies["default"]

    def chain_for(self, role: str, profile: str | None = None, *, inherits: Sequence[str] = ()) -> Chain:
        """The engines for the role, the run's `profile` first unless the role's policy is pinned (MB-2, MB-10).

        The profile's entry takes the values of the chain's first entry, so that a request has the same bytes on every
        engine that stands first.

        Raises:
            InvalidInput: `profile` is unknown.
            ModelUnavailable: neither the policy nor the run names an engine.
        """
        policy = self.policy_for(role, inherits=inherits)
        if profile is not None:
            self.engine(profile)
        entries = [entry for entry in policy.chain if entry.engine_id != RUN_PROFILE]
        if profile is not None and not (policy.pinned and entries):
            others = [entry for entry in entries if entry.engine_id != profile]
            entries = [policy.chain[0].model_copy(update={"engine_id": profile}), *others]
        if not entries:
            raise ModelUnavailable(explain_no_model(), role=role)
        entries = entries[:1] if policy.pinned else entries
        return Chain(entries=tuple(self._linked(entry) for entry in entries), repairs=policy.on_malformed.repairs)

    def _linked(self, entry: PolicyEntry) -> ChainEntry:
        engine = self.engine(entry.engine_id)
        return ChainEntry(
            entry=entry,
            engine_id=entry.engine_id,
            max_context=engine.max_context,
            max_output=engine.max_output,
            capabilities=engine.capabilities,
        )


def recorded_profile(directory: str, *, strategy: Strategy, max_context: int, max_output: int) -> str:
    """The profile that replays this folder under the terms of the engine that was recorded.

    They stand in the name, so that they are on record with the story that is started with it.
    """
    return f"{RECORDED_PREFIX}{directory}{_TERMS}{strategy}&max_context={max_context}&max_output={max_output}"


def recorded_directory(profile: str) -> str | None:
    """The folder that a profile replays; None for one that replays none."""
    if not profile.startswith(RECORDED_PREFIX):
        return None
    return profile.removeprefix(RECORDED_PREFIX).partition(_TERMS)[0]


def _recorded(profile: str) -> RecordedEngine:
    directory, mark, named = profile.removeprefix(RECORDED_PREFIX).partition(_TERMS)
    given = {"kind": "recorded", "engine_id": "recorded", "model": "recorded", "directory": directory, "unpriced": "1"}
    pairs = [pair.partition("=") for pair in f"strategy={named}".split("&")] if mark else []
    terms = {name: value for name, _, value in pairs}
    try:
        if unknown := sorted(terms.keys() - {"strategy", "max_context", "max_output"}):
            raise ValueError(f"nothing is known of {', '.join(unknown)}")
        return RecordedEngine.model_validate_strings({**given, **terms})
    except ValueError as error:
        raise InvalidInput(
            f"the terms of profile {profile!r} cannot be read: {error}; give recorded:DIR alone, or behind it "
            f"{_TERMS}session&max_context=N&max_output=N as the recorded engine had them",
            field="model",
            value=profile,
        ) from error


def load_models(data: Mapping[str, Any], *, source: str = "config/models.yaml") -> ModelsConfig:
    """The validated configuration; ConfigError names file, line, path and reason of every problem (GL-22)."""
    try:
        return ModelsConfig.model_validate(data)
    except ValidationError as error:
        allowed = {k: v for item in error.errors() for k, v in item.get("ctx", {}).items() if k == "allowed"}
        raise wrong_file(source, problems_of(error), data, **allowed) from error


def explain_no_model() -> str:
    """What a user can do when no model is configured (exit code 5)."""
    return (
        "no model is configured, so nobody can write code. Choose one and name it with --model:\n"
        "  --model vllm    a vLLM server on a GPU: `vllm serve Qwen/Qwen2.5-Coder-7B-Instruct`, then set "
        "FLEET_VLLM_BASE_URL if it is not at http://127.0.0.1:8000/v1\n"
        "  --model openai  any OpenAI-compatible server: set FLEET_OPENAI_BASE_URL, FLEET_OPENAI_MODEL and, where it "
        "wants one, OPENAI_API_KEY\n"
        "  --model local   a small model on this machine: `fleet models pull local` fetches it (1.1 GB); or set "
        "FLEET_LOCAL_BASE_URL to a server that runs already\n"
        "  --model anthropic, google, groq, openrouter or ollama: set the provider's key and FLEET_<PROVIDER>_MODEL\n"
        "  --model recorded:DIR  replays recorded replies, for stories that were recorded before"
    )
