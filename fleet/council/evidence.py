"""Evidence and its order: what decides before any ballot is read (CN-36, CN-40, CN-42, CN-44, CN-53)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Self

from pydantic import Field, model_validator

from fleet.kernel.ids import Digest, EntityId
from fleet.kernel.types import Frozen

Count = Annotated[int, Field(ge=0)]


class GateCheck(Frozen):
    """One hard gate of a candidate; `run_id` None where no run was needed."""

    name: Annotated[str, Field(min_length=1)]
    ok: bool
    run_id: EntityId | None = None


class CandidateEvidence(Frozen):
    """What is known of one candidate after one round; field for field the value of the event (CN-36).

    At least one gate: a candidate that nothing has checked is not one that passed (GL-18).
    """

    candidate_id: EntityId
    round: Count
    tree_digest: Digest | None = None
    gates: Annotated[tuple[GateCheck, ...], Field(min_length=1)]
    gates_ok: bool
    trusted_passed: Count
    trusted_total: Count
    cluster_id: str
    cluster_size: Annotated[int, Field(ge=1)]
    lint_errors: Count = 0
    diff_lines: Count = 0
    run_ids: tuple[EntityId, ...] = ()
    normal_digest: Digest | None = None
    """Digest of the content in normal form, where execution told it (CN-34)."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.gates_ok != all(g.ok for g in self.gates):
            raise ValueError(f"gates_ok of {self.candidate_id} contradicts its gates")
        if self.trusted_passed > self.trusted_total:
            raise ValueError(f"{self.candidate_id} passed more trusted tests than there are")
        return self


@dataclass(frozen=True, slots=True)
class Contender:
    """One candidate with the evidence that decides: authors are excluded from voting on it (CN-46)."""

    candidate_id: str
    digest: str
    authors: frozenset[str]
    gates_ok: bool
    trusted_passed: int
    cluster_size: int
    diff_lines: int
    trusted_total: int = 0

    @property
    def evidence_class(self) -> tuple[bool, int, int]:
        """The first three keys of CN-53: ballots only order candidates that are equal in them (CN-54)."""
        return (self.gates_ok, self.trusted_passed, self.cluster_size)


class OrderKey(NamedTuple):
    """The chain of CN-53 as a value whose smallest is first."""

    gates_failed: bool
    trusted: int
    cluster: int
    position: int
    diff_lines: int
    digest: str


def order_key(c: Contender, position: int = 0) -> OrderKey:
    """The key of CN-53; `position` is the place in the locked graph, 0 before ballots. Never author or arrival."""
    return OrderKey(not c.gates_ok, -c.trusted_passed, -c.cluster_size, position, c.diff_lines, c.digest)


def has_failure(evidence: CandidateEvidence) -> bool:
    """Whether there is something to repair: a gate or a trusted test that fails (CN-43)."""
    return not evidence.gates_ok or evidence.trusted_passed < evidence.trusted_total


def is_better(new: CandidateEvidence, old: CandidateEvidence) -> bool:
    """Whether a repaired version replaces the old one: strictly better in the order of CN-42."""
    return _repair_key(new) > _repair_key(old)


def _repair_key(e: CandidateEvidence) -> tuple[bool, int, int, int]:
    return (e.gates_ok, sum(g.ok for g in e.gates), e.trusted_passed, -e.lint_errors)


def on_ballot(contenders: Iterable[Contender], *, max_on_ballot: int = 5) -> tuple[Contender, ...]:
    """Gate-passing candidates that no other beats in trusted tests and cluster size, best first (CN-44)."""
    passing = [c for c in contenders if c.gates_ok]
    best = [c for c in passing if not any(_dominates(other, c) for other in passing)]
    return tuple(sorted(best, key=order_key)[:max_on_ballot])


def _dominates(a: Contender, b: Contender) -> bool:
    at_least = a.trusted_passed >= b.trusted_passed and a.cluster_size >= b.cluster_size
    return at_least and a.evidence_class != b.evidence_class


def early_exit(contenders: Sequence[Contender], *, invited: int) -> tuple[Contender, ...]:
    """Candidates that evidence alone decides for, best first; empty when ballots are needed (CN-40).

    Args:
        invited: proposers of the original roster; the cluster must hold a strict majority of them (CN-24).
    """
    passing = [
        c for c in contenders if c.gates_ok and 0 < c.trusted_total == c.trusted_passed and 2 * c.cluster_size > invited
    ]
    return tuple(sorted(passing, key=order_key))
