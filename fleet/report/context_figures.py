"""What roles were shown and what became of long texts, each figure a sum over events and nothing else (AP-99). Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from statistics import median_low

from fleet.events.codec import decode
from fleet.events.context import ContextPackBuilt, SummaryRecorded
from fleet.events.envelope import StoredEvent
from fleet.redaction.redact_counts import redacted_kinds

_TOLD = frozenset([ContextPackBuilt.type, SummaryRecorded.type])


@dataclass(frozen=True, slots=True)
class PackFigures:
    """The packs of one role in one phase: tokens and ceiling of each, and items that did not fit, by scope."""

    sizes: tuple[tuple[int, int], ...]
    dropped: Counter[str]

    @property
    def packs(self) -> int:
        """How many there were."""
        return len(self.sizes)

    @property
    def tokens_median(self) -> int:
        """The size in the middle, as CX-21 reports it."""
        return median_low(tokens for tokens, _ in self.sizes)

    @property
    def tokens_largest(self) -> int:
        """The size of the largest."""
        return max(tokens for tokens, _ in self.sizes)

    @property
    def budget_median(self) -> int:
        """The ceiling in the middle."""
        return median_low(budget for _, budget in self.sizes)

    @property
    def used(self) -> Fraction:
        """Tokens of all of them against their ceilings."""
        ceilings = sum(budget for _, budget in self.sizes)
        return Fraction(sum(tokens for tokens, _ in self.sizes), ceilings) if ceilings else Fraction(0)


@dataclass(frozen=True, slots=True)
class Compression:
    """The summaries of long histories. `recall` is the lowest of each class, exact."""

    summaries: int = 0
    tokens_before: int = 0
    tokens_after: int = 0
    targets_missed: int = 0
    recall: Mapping[str, Fraction] = field(default_factory=dict[str, Fraction])

    @property
    def ratio(self) -> Fraction | None:
        """1 - after / before over all of them (CX-51); None without one."""
        return 1 - Fraction(self.tokens_after, self.tokens_before) if self.tokens_before else None

    @property
    def lowest_recall(self) -> Fraction | None:
        """Of the class that came off worst; None without a summary."""
        return min(self.recall.values(), default=None)


@dataclass(frozen=True, slots=True)
class ContextFigures:
    """Packs by role and phase, summaries, and places that were redacted, by class."""

    packs: Mapping[tuple[str, str], PackFigures] = field(default_factory=dict[tuple[str, str], PackFigures])
    compression: Compression = field(default_factory=Compression)
    redactions: Counter[str] = field(default_factory=Counter[str])


def context_figures(events: Iterable[StoredEvent]) -> ContextFigures:
    """The figures of these events, which may be any part of a story."""
    packs: list[ContextPackBuilt] = []
    summaries: list[SummaryRecorded] = []
    redactions: Counter[str] = Counter()
    for event in events:
        redactions.update(redacted_kinds(event.body))
        # Most events say nothing here: only those that do are worth decoding.
        payload = decode(event) if event.type in _TOLD else None
        if isinstance(payload, ContextPackBuilt):
            packs.append(payload)
        elif isinstance(payload, SummaryRecorded):
            summaries.append(payload)
    return ContextFigures(_packs(packs), _compression(summaries), redactions)


def sum_figures(parts: Iterable[ContextFigures]) -> ContextFigures:
    """The figures of all of it together: of a story's parts, or of several stories."""
    sizes: dict[tuple[str, str], list[tuple[int, int]]] = {}
    dropped: dict[tuple[str, str], Counter[str]] = {}
    compressions: list[Compression] = []
    redactions: Counter[str] = Counter()
    for one in parts:
        for cell, figures in one.packs.items():
            sizes.setdefault(cell, []).extend(figures.sizes)
            dropped.setdefault(cell, Counter()).update(figures.dropped)
        compressions.append(one.compression)
        redactions.update(one.redactions)
    packs = {cell: PackFigures(tuple(sizes[cell]), dropped[cell]) for cell in sorted(sizes)}
    return ContextFigures(packs, _sum_compressions(compressions), redactions)


def _packs(built: Iterable[ContextPackBuilt]) -> dict[tuple[str, str], PackFigures]:
    sizes: dict[tuple[str, str], list[tuple[int, int]]] = {}
    dropped: dict[tuple[str, str], Counter[str]] = {}
    for pack in built:
        cell = (str(pack.as_role), str(pack.phase))
        sizes.setdefault(cell, []).append((pack.token_count, pack.budget))
        dropped.setdefault(cell, Counter()).update({one.scope: one.count for one in pack.dropped})
    return {cell: PackFigures(tuple(sizes[cell]), dropped[cell]) for cell in sorted(sizes)}


def _compression(summaries: Iterable[SummaryRecorded]) -> Compression:
    return _sum_compressions(
        Compression(
            summaries=1,
            tokens_before=one.tokens_before,
            tokens_after=one.tokens_after,
            targets_missed=int(one.target_missed is not None),
            recall={kind: Fraction(share) for kind, share in one.recall.items()},
        )
        for one in summaries
    )


def _sum_compressions(compressions: Iterable[Compression]) -> Compression:
    parts, recall = list(compressions), dict[str, Fraction]()
    for one in parts:
        for kind, share in one.recall.items():
            recall[kind] = min(share, recall.get(kind, share))
    return Compression(
        summaries=sum(one.summaries for one in parts),
        tokens_before=sum(one.tokens_before for one in parts),
        tokens_after=sum(one.tokens_after for one in parts),
        targets_missed=sum(one.targets_missed for one in parts),
        recall=dict(sorted(recall.items())),
    )
