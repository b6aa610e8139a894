"""The work that a fleet shall do."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Workload"]


class Workload(BaseModel):
    """Stories and what each of them asks for; what is not given is as it was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stories_per_hour: float = Field(gt=0, le=100_000)
    """Stories that begin in an hour, at its busiest."""
    council_size: int = Field(default=3, ge=1, le=9)
    """Members of each council."""
    calls_per_story: float | None = Field(default=None, gt=0, le=100_000)
    """Model calls of a story with councils of that size."""
    tokens_in: float | None = Field(default=None, gt=0, le=1_000_000)
    """Tokens of a prompt."""
    tokens_out: float | None = Field(default=None, gt=0, le=1_000_000)
    """Tokens of a reply."""
    engine_tokens_out_per_s: float | None = Field(default=None, gt=0, le=1_000_000)
    """Reply tokens a second of one engine with all of its slots at work."""
    engine_tokens_in_per_s: float | None = Field(default=None, gt=0, le=10_000_000)
    """Prompt tokens a second that one engine reads."""
    cached_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the prompt tokens that the engine's prefix cache holds."""
    engine_slots: int = Field(default=1, ge=1, le=1_024)
    """Calls that one engine works on at a time."""
    gpus_per_engine: int = Field(default=1, ge=0, le=16)
    """GPUs of one engine; 0 for engines without."""
    kept_days: float = Field(default=90, gt=0, le=36_500)
    """Days after which stories are archived out of the log."""
    hours_per_day: float = Field(default=24, gt=0, le=24)
    """Hours a day in which stories come at that rate."""
    target_utilisation: float = Field(default=0.7, gt=0, le=0.95)
    """Share of the time that engines, shards, sandboxes and the log may be at work."""
    wait_share: float = Field(default=0.5, gt=0, le=10)
    """A call may wait for an engine this many times as long as it takes itself, on average."""
