"""The ledger beside the usage logs of engines: what was used and is not recorded, and how far they differ (MB-32)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from fleet.events.budget import UsageAdjusted
from fleet.kernel.ids import StepId
from fleet.report.usage import UsageRow

TOLERATED_PERCENT = 1


@dataclass(frozen=True, slots=True)
class EngineUse:
    """What one engine's own log holds of one step, all calls that ended together."""

    engine: str
    step_id: StepId
    calls: int
    tokens_in: int
    tokens_out: int
    gpu_ms: int = 0


@dataclass(frozen=True, slots=True)
class UsageDifference:
    """Tokens of one engine as the ledger and the engine counted them. The two are more than 1 % apart."""

    engine: str
    ledger_tokens: int
    engine_tokens: int

    @property
    def warning(self) -> str:
        """A line for operators, with both numbers."""
        return (
            f"usage of engine {self.engine}: the ledger has {self.ledger_tokens} tokens, the engine's own log "
            f"{self.engine_tokens}; look for calls that did not come from the fleet, or for a log that was cut"
        )


def settlements(rows: Iterable[UsageRow], uses: Iterable[EngineUse]) -> tuple[UsageAdjusted, ...]:
    """What settles the reservations of calls that an owner lost: the engines ended more calls than are on record.

    A step of which the engines know no more calls than the ledger stays as it is: what is held for it stays spent,
    because a log that was cut says nothing (MB-23).

    Args:
        rows: the ledger of one story.
        uses: of the same story, of all engines.
    """
    recorded: dict[str, list[UsageRow]] = {}
    for row in rows:
        recorded.setdefault(row.step_id, []).append(row)
    by_step: dict[StepId, list[EngineUse]] = {}
    for use in uses:
        by_step.setdefault(use.step_id, []).append(use)
    settled = (_settlement(step_id, recorded.get(step_id, []), step_uses) for step_id, step_uses in by_step.items())
    return tuple(adjusted for adjusted in settled if adjusted is not None)


def _settlement(step_id: StepId, rows: list[UsageRow], uses: list[EngineUse]) -> UsageAdjusted | None:
    calls = sum(u.calls for u in uses) - sum(r.calls for r in rows)
    if calls <= 0:
        return None
    tokens_out = sum(u.tokens_out for u in uses) - sum(r.tokens_out for r in rows)
    tokens = sum(u.tokens_in for u in uses) - sum(r.tokens_in for r in rows) + tokens_out
    gpu_ms = sum(u.gpu_ms for u in uses) - sum(r.gpu_ms for r in rows)
    delta = {"calls": calls, "tokens": max(0, tokens), "output_tokens": max(0, tokens_out), "gpu_ms": max(0, gpu_ms)}
    source = "engine:" + ",".join(sorted({u.engine for u in uses}))
    return UsageAdjusted(step_id=step_id, delta=delta, source=source)


def comparable(
    rows: Iterable[UsageRow], uses: Iterable[EngineUse], *, besides: Collection[str] = ()
) -> tuple[dict[str, int], dict[str, int]]:
    """Tokens by engine as the ledger and as the engines counted them, over the steps that both know whole.

    Left out are steps of which a log was cut (it has fewer calls than the ledger), which several engines worked on, or
    which are not settled.

    Args:
        rows: the ledger of one story.
        uses: of the same story.
        besides: steps with something held for them.
    """
    recorded: dict[str, list[UsageRow]] = {}
    for row in rows:
        recorded.setdefault(row.step_id, []).append(row)
    uses_of: dict[str, list[EngineUse]] = {}
    for use in uses:
        uses_of.setdefault(use.step_id, []).append(use)
    ledger, counted = dict[str, int](), dict[str, int]()
    for step_id, (use, *others) in uses_of.items():
        mine = recorded.get(step_id, [])
        engines = {row.engine for row in mine if row.steps}
        if others or step_id in besides or engines != {use.engine} or use.calls < sum(r.calls for r in mine):
            continue
        ledger[use.engine] = ledger.get(use.engine, 0) + sum(r.tokens_in + r.tokens_out for r in mine)
        counted[use.engine] = counted.get(use.engine, 0) + use.tokens_in + use.tokens_out
    return ledger, counted


def differences(ledger: Mapping[str, int], engines: Mapping[str, int]) -> tuple[UsageDifference, ...]:
    """The engines whose tokens differ by more than 1 % of what the engine counted, by id.

    Args:
        ledger, engines: tokens in and out by engine id, over the same time.
    """
    compared = [UsageDifference(name, ledger.get(name, 0), counted) for name, counted in sorted(engines.items())]
    return tuple(
        d for d in compared if abs(d.ledger_tokens - d.engine_tokens) * 100 > d.engine_tokens * TOLERATED_PERCENT
    )
