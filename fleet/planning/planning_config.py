"""The planning data: derivation bounds, execution, ceremonies, estimates (PL-1). Shipped: config/planning.yaml."""

from __future__ import annotations

from collections.abc import Set
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fleet.kernel.documents import WrongKey, WrongKeys


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)


Natural = Annotated[int, Field(strict=True, ge=0)]
Positive = Annotated[int, Field(strict=True, ge=1)]


class Bounds(_Settings):
    """Least and most, both included."""

    min: Natural
    max: Positive

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self

    def __contains__(self, value: int) -> bool:
        return self.min <= value <= self.max

    def __str__(self) -> str:
        return f"{self.min}..{self.max}"


class DerivationConfig(_Settings):
    """How tasks are asked for (PL-23) and what one may hold (PL-20)."""

    attempts: Positive
    temperature: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?$")]
    """A decimal as text, 0..2: requests hold no floats (GL-12)."""
    max_output_tokens: Positive | None = None
    """Lowers the longest reply; left out, the engine and the budget alone bind it."""
    tasks: Bounds
    title_chars: Bounds
    description_chars: Bounds
    estimated_hours: Bounds
    priority: Bounds
    keywords: Bounds
    keyword_chars: Bounds
    paths: Bounds
    shared_keywords: Positive
    """From so many shared keywords on two tasks get an inferred dependency (PL-22)."""

    @model_validator(mode="after")
    def _temperature_in_range(self) -> Self:
        if Decimal(self.temperature) > 2:
            raise ValueError(f"temperature {self.temperature} is above 2")
        return self


class ExecutionConfig(_Settings):
    """How an adopted plan runs."""

    checkpoint_every_s: Positive
    """Seconds of activity (PL-47)."""


class EstimateConfig(_Settings):
    """Delphi estimates (PL-80)."""

    scale: Annotated[tuple[Positive, ...], Field(min_length=2)]
    """Points, rising."""
    max_rounds: Positive

    @model_validator(mode="after")
    def _scale_rises(self) -> Self:
        if any(a >= b for a, b in pairwise(self.scale)):
            raise ValueError(f"scale {list(self.scale)} does not rise")
        return self


class RetryPolicy(_Settings):
    """How often a step of a ceremony is tried."""

    max_attempts: Positive
    backoff_s: Natural
    exponential: bool


class CeremonyStep(_Settings):
    """One automated step: its time in seconds, its retries."""

    name: str
    timeout_s: Positive
    retry: RetryPolicy


Trigger = Literal[
    "add_story", "remove_story", "start", "reviews_in", "approve_story", "reject_story", "complete", "cancel"
]
"""What moves a backlog review (PL-60..PL-66)."""


class CeremonyTransition(_Settings):
    """One legal move; `system` among the roles is the fleet itself."""

    from_: Annotated[tuple[str, ...], Field(alias="from", min_length=1)]
    trigger: Trigger
    to: str
    roles: Annotated[tuple[str, ...], Field(min_length=1)]


class CeremonyTimeouts(_Settings):
    """Limits in seconds; a timeout ends a step as failed and never decides for a person (PL-71)."""

    step_max_s: Positive
    """The longest `timeout_s` that a step may have."""


class CeremonyConfig(_Settings):
    """A ceremony as data (PL-71)."""

    stories: Bounds
    councils: Annotated[tuple[str, ...], Field(min_length=1)]
    initial: str
    states: tuple[str, ...]
    transitions: tuple[CeremonyTransition, ...]
    steps: tuple[CeremonyStep, ...]
    timeouts: CeremonyTimeouts

    @model_validator(mode="after")
    def _names_its_states(self) -> Self:
        named = [("initial", self.initial)]
        for number, move in enumerate(self.transitions):
            named += [(f"transitions.{number}.from", state) for state in move.from_]
            named.append((f"transitions.{number}.to", move.to))
        problems = [WrongKey(path, f"states lacks {state!r}") for path, state in named if state not in self.states]
        for number, step in enumerate(self.steps):
            if step.timeout_s > self.timeouts.step_max_s:
                problems.append(WrongKey(f"steps.{number}.timeout_s", "it is above timeouts.step_max_s"))
        if problems:
            raise WrongKeys(problems)
        return self


class PlanningConfig(_Settings):
    """config/planning.yaml."""

    derivation: DerivationConfig
    execution: ExecutionConfig
    artifacts: Literal["on", "off"]
    """`off` keeps the artifacts in the blob store only (PL-53)."""
    estimates: EstimateConfig
    ceremonies: dict[Literal["backlog_review"], CeremonyConfig]

    def unknown_roles(self, names: Set[str]) -> dict[str, str]:
        """Roles of ceremonies that are none of these, by the path of the key that names them."""
        named: dict[str, str] = {}
        for name, ceremony in self.ceremonies.items():
            path = f"ceremonies.{name}"
            named |= {f"{path}.councils.{n}": role for n, role in enumerate(ceremony.councils)}
            for number, move in enumerate(ceremony.transitions):
                named |= {f"{path}.transitions.{number}.roles.{n}": role for n, role in enumerate(move.roles)}
        return {path: role for path, role in named.items() if role not in names and role != "system"}

    @field_validator("artifacts", mode="before")
    @classmethod
    def _plain_words(cls, value: object) -> object:
        # YAML 1.1 reads the words on and off as true and false unless they are quoted.
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value
