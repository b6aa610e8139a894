"""What is recorded of one arm on one task, and the table over many of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from fleet.bench.statistics import Interval, PairedDifference, paired_difference, wilson_interval
from fleet.kernel.errors import InvalidInput
from fleet.kernel.types import Frozen

ArmName = Literal["greedy", "resample", "best-of-n", "plurality", "self-repair", "council"]
ARMS: tuple[ArmName, ...] = ("greedy", "resample", "best-of-n", "plurality", "self-repair", "council")
_BLIND = "-blind"


class Arm(NamedTuple):
    """A way to solve; `blind` is the variant from which the visible tests are withheld."""

    name: ArmName
    blind: bool = False

    @property
    def label(self) -> str:
        """`council` or `council-blind`."""
        return self.name + (_BLIND if self.blind else "")


def parse_arms(text: str) -> tuple[Arm, ...]:
    """The arms of a comma-separated list; `all` and `all-blind` stand for all six.

    Raises:
        InvalidInput: an unknown arm, or none.
    """
    found: list[Arm] = []
    for word in (part.strip() for part in text.split(",")):
        plain = word.removesuffix(_BLIND)
        names: list[ArmName] = [name for name in ARMS if plain in (name, "all")]
        if not names:
            allowed = f"{', '.join(ARMS)} or all, each also as NAME{_BLIND}"
            raise InvalidInput(f"{word!r} is no arm; there are {allowed}", field="arms", value=word[:80])
        found += [Arm(name, word.endswith(_BLIND)) for name in names]
    return tuple(dict.fromkeys(found))


class Pick(Frozen):
    """A solution that a rule chose; `passed` None where it chose none."""

    digest: str | None = None
    passed: bool | None = None


class BenchRow(Frozen):
    """One arm on one task with one seed, judged by the hidden tests."""

    task_id: str
    arm: str
    seed: int
    passed: bool
    digest: str | None
    """Of the chosen solution; None when the arm had none to give."""
    solution: str | None
    decided_in: str
    """How the arm ended: for a council P3, P6, or undecided with its reason."""
    budget: int
    tokens_in: int
    tokens_out: int
    stages: dict[str, int]
    """Tokens by stage."""
    calls: int
    malformed: int
    failed_calls: int = 0
    """Calls that the engine did not answer."""
    candidates: int
    distinct: int
    visible_passed: bool | None
    """Whether the choice passes the visible tests; None where there are none or they are withheld."""
    picks: dict[str, Pick] = {}
    """What simpler rules would have chosen of the same drafts."""
    model_ms: int
    wall_ms: int

    @property
    def tokens(self) -> int:
        """Prompt and reply tokens of every call."""
        return self.tokens_in + self.tokens_out

    @property
    def key(self) -> tuple[str, str, int]:
        """One row a key."""
        return (self.task_id, self.arm, self.seed)


class ArmLine(NamedTuple):
    """One line of the table."""

    arm: str
    rows: int
    passed: int
    interval: Interval
    tokens: float
    """Mean a row."""
    unspent: float
    over: int
    """Rows whose calls cost more than the budget; 0 unless a bound did not hold."""
    calls: float
    malformed: int
    undecided: int
    wall_s: float
    """Model time a row, as it was when the replies were made."""
    against: dict[str, PairedDifference]
    """By the arm it is compared with, of the same variant."""


def arm_lines(rows: Sequence[BenchRow], *, against: Sequence[ArmName] = ("greedy", "best-of-n")) -> tuple[ArmLine, ...]:
    """One line for each arm that has rows, in the order of their first rows."""
    by_arm: dict[str, list[BenchRow]] = {}
    for row in rows:
        by_arm.setdefault(row.arm, []).append(row)
    return tuple(_line(name, by_arm, against) for name in by_arm)


def _line(name: str, by_arm: dict[str, list[BenchRow]], against: Sequence[ArmName]) -> ArmLine:
    rows = by_arm[name]
    count, passed = len(rows), sum(r.passed for r in rows)
    others = [Arm(other, name.endswith(_BLIND)).label for other in against]
    compared = {
        other: found
        for other in others
        if other != name and (found := paired_difference(_solved(rows), _solved(by_arm.get(other, [])), seed=1))
    }
    return ArmLine(
        arm=name,
        rows=count,
        passed=passed,
        interval=wilson_interval(passed, count),
        tokens=sum(r.tokens for r in rows) / count,
        unspent=sum(max(0, r.budget - r.tokens) for r in rows) / count,
        over=sum(r.tokens > r.budget for r in rows),
        calls=sum(r.calls for r in rows) / count,
        malformed=sum(r.malformed for r in rows),
        undecided=sum(r.decided_in.startswith("undecided") for r in rows),
        wall_s=sum(r.model_ms for r in rows) / count / 1000,
        against=compared,
    )


def _solved(rows: Iterable[BenchRow]) -> dict[tuple[str, int], bool]:
    return {(r.task_id, r.seed): r.passed for r in rows}


class StageGain(NamedTuple):
    """What of one arm's rows a simpler rule over the same drafts would have solved."""

    arm: str
    rule: str
    rows: int
    passed: int


def stage_gains(rows: Sequence[BenchRow]) -> tuple[StageGain, ...]:
    """Solved tasks by counterfactual rule, and last by the arm's own choice."""
    found: list[StageGain] = []
    for arm in dict.fromkeys(r.arm for r in rows if r.picks):
        mine = [r for r in rows if r.arm == arm]
        rules = dict.fromkeys(rule for r in mine for rule in r.picks)
        for rule in rules:
            solved = sum(1 for r in mine if rule in r.picks and r.picks[rule].passed)
            found.append(StageGain(arm, rule, len(mine), solved))
        found.append(StageGain(arm, "chosen", len(mine), sum(r.passed for r in mine)))
    return tuple(found)


class EndShare(NamedTuple):
    """How often an arm ended in this way, and how often its choice was right then: what its own word is worth."""

    arm: str
    ended: str
    """The part of `decided_in` before its reason."""
    rows: int
    passed: int


def end_shares(rows: Sequence[BenchRow]) -> tuple[EndShare, ...]:
    """One entry for each arm and end, of arms that end in more than one way."""
    found: dict[str, dict[str, list[bool]]] = {}
    for row in rows:
        ended = row.decided_in.partition(":")[0]
        found.setdefault(row.arm, {}).setdefault(ended, []).append(row.passed)
    return tuple(
        EndShare(arm, ended, len(passed), sum(passed))
        for arm, ends in found.items()
        if len(ends) > 1
        for ended, passed in sorted(ends.items())
    )
