"""config/council.yaml as a model (CN-1..CN-16)."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from fleet.kernel.types import Frozen, MockMode, Rigor, RoleName

EngineKind = Literal["vllm", "openai", "anthropic", "local", "recorded", "mock"]
PassThreshold = Literal["majority", "two_thirds"]
CouncilUse = Literal["code", "architecture"]
Temperature = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?$")]


MIN_VOTERS, MAX_VOTERS = 3, 9
FIRST_NAMED, LAST_NAMED = 101, 899
"""Numbers of named agents: seats of pools end at 99, and delegates of gates have 900."""


class CouncilDefaults(Frozen):
    """What a council gets when its request names nothing else."""

    num_agents: Annotated[int, Field(ge=3, le=9)] = 3
    """Voters; odd."""
    rounds: Annotated[int, Field(ge=0, le=2)] = 1
    """Repair rounds."""
    timeout_seconds: Annotated[int, Field(ge=1)] = 900
    """Wall time until no further model call is started."""
    tokens: Annotated[int, Field(ge=1)] = 200_000
    """Tokens of all calls together."""
    double_ballot: bool = True
    """Each voter is asked twice, with the order of candidates reversed."""
    max_on_ballot: Annotated[int, Field(ge=2, le=5)] = 5
    """Candidates on a ballot."""
    critiques: bool = True
    """A repair is shown one critique by a member that is not the author."""

    @model_validator(mode="after")
    def _odd(self) -> Self:
        if self.num_agents % 2 == 0:
            raise ValueError("num_agents must be odd, so that a majority exists")
        return self


class CouncilPool(Frozen):
    """Members that serve the councils of one role (CN-16)."""

    num_agents: Annotated[int, Field(ge=1, le=99)] = 3
    """Seats of the pool, and voters of councils of its role where that is odd and 3 to 9."""
    kind: EngineKind
    """Kind of engine that answers for the seats."""
    model_policy: str | None = None
    """Policy of config/models.yaml that its seats answer with; unset: the one of the role."""
    modes: tuple[MockMode, ...] = ()
    """What an admin once said of mock seats, of a pool on record. It decides nothing, and the file has it no more."""

    @field_validator("modes")
    @classmethod
    def _modes_are_for_mocks(cls, modes: tuple[MockMode, ...], given: ValidationInfo) -> tuple[MockMode, ...]:
        kind = given.data.get("kind", "mock")
        if modes and kind != "mock":
            raise ValueError(f"modes are for kind mock, not for {kind}: remove them or change the kind")
        return modes


class NamedAgent(Frozen):
    """A seat that an admin registered: it sits in councils of its role before the numbered ones do (AP-79)."""

    number: Annotated[int, Field(ge=FIRST_NAMED, le=LAST_NAMED)]
    """Of its seat."""
    model_policy: str
    """Policy of config/models.yaml that it answers with."""
    persona: str | None = None
    """What an admin says of how it works."""


class Reliability(Frozen):
    """Measured weights of seats (CN-55)."""

    weights: Mapping[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict[str, int])
    """Member id -> weight; a seat that is not named has weight 1."""


class CouncilConfig(Frozen):
    """Sizes, limits, rules and pools of councils."""

    rule_version: Annotated[int, Field(ge=1)]
    """Recorded with each council; raise it when a rule of deciding changes."""
    defaults: CouncilDefaults
    veto_roles: tuple[RoleName, ...] = ("qa", "architect")
    """Roles that may be given a veto."""
    test_author_role: RoleName = "qa"
    """Role of the extra member that writes the tests (CN-11)."""
    ladder: Annotated[tuple[Temperature, ...], Field(min_length=1)] = ("0.2", "0.6", "0.9")
    """Temperatures of the seats, repeating (CN-14)."""
    prompt_variants: Annotated[int, Field(ge=1)] = 3
    """Variants that a persona offers; seats use them in turn (CN-14)."""
    pass_threshold: Mapping[Rigor, PassThreshold] = Field(
        default_factory=lambda: {"L0": "majority", "L1": "majority", "L2": "majority", "L3": "two_thirds"}
    )
    """Share of the total weight that a gate needs to pass, by rigor (CN-21)."""
    used_for: Mapping[Rigor, tuple[CouncilUse, ...]] = Field(
        default_factory=lambda: {
            "L0": (),
            "L1": ("code", "architecture"),
            "L2": ("code", "architecture"),
            "L3": ("code", "architecture"),
        }
    )
    """What gets a council without being asked for one, by rigor (CN-13)."""
    reliability: Reliability = Reliability()
    """Measured weights of seats."""
    pools: Mapping[RoleName, CouncilPool] = Field(default_factory=dict[str, CouncilPool])
    """Pools by role or profile."""
    agents: Mapping[RoleName, tuple[NamedAgent, ...]] = Field(default_factory=dict[str, tuple[NamedAgent, ...]])
    """Named agents by role, in the order in which they were registered; as a rule while the fleet runs."""

    def unknown_roles(self, names: Set[str]) -> dict[str, str]:
        """Roles of vetoes, tests and pools that are none of these, by the path of the key that names them."""
        named = {f"veto_roles.{n}": role for n, role in enumerate(self.veto_roles)}
        named |= {"test_author_role": self.test_author_role} | {f"pools.{role}": role for role in self.pools}
        return {path: role for path, role in named.items() if role not in names}

    def voters_of(self, role: str) -> int:
        """How many voters a council of this role has that asks for no number: those of its pool, else the default."""
        size = self.pools[role].num_agents if role in self.pools else 0
        return size if size % 2 and MIN_VOTERS <= size <= MAX_VOTERS else self.defaults.num_agents

    def policy_of(self, role: str) -> str:
        """What the seats of this role answer with: the policy of its pool, else the role's own, by its name."""
        pool = self.pools.get(role)
        return pool.model_policy if pool is not None and pool.model_policy is not None else role

    def policy_of_seat(self, member_id: str, role: str) -> str:
        """What this seat answers with: the policy of its own where it is a named agent, else that of its role."""
        own = (one for one in self.agents.get(role, ()) if member_id == f"{role}-{one.number:03d}")
        named = next(own, None)
        return named.model_policy if named is not None else self.policy_of(role)

    def persona_of_seat(self, member_id: str, role: str) -> str | None:
        """What an admin said of how this seat works; None of a seat of which nothing is said."""
        personas = (one.persona for one in self.agents.get(role, ()) if member_id == f"{role}-{one.number:03d}")
        return next(personas, None)

    def threshold_at(self, rigor: Rigor) -> PassThreshold:
        """The pass threshold of a gate at this level; without an entry, a majority."""
        return self.pass_threshold.get(rigor, "majority")

    def is_used(self, rigor: Rigor, use: CouncilUse) -> bool:
        """Whether work of this kind gets a council at this level (CN-13)."""
        return use in self.used_for.get(rigor, ())
