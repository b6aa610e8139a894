"""config/council.yaml as a model (CN-1..CN-16)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["CouncilConfig", "CouncilDefaults"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CouncilDefaults(_Frozen):
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
    max_tests: Annotated[int, Field(ge=1, le=10)] = 10
    """Generated tests."""

    @model_validator(mode="after")
    def _odd(self) -> CouncilDefaults:
        if self.num_agents % 2 == 0:
            raise ValueError("num_agents must be odd, so that a majority exists")
        return self


class CouncilConfig(_Frozen):
    """Sizes, limits and veto roles of councils."""

    rule_version: Annotated[int, Field(ge=1)]
    """Recorded with each council; raise it when a rule of deciding changes."""
    defaults: CouncilDefaults
    veto_roles: tuple[str, ...] = ("qa", "architect")
    """Roles that may be given a veto."""
