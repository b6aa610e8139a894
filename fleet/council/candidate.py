"""Candidates: equal ones are one, and equally behaving ones are one cluster (CN-34, CN-35)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fleet.council.evidence import CandidateEvidence, Contender
from fleet.kernel.digest import digest_of_json
from fleet.kernel.ids import Digest


@dataclass(frozen=True, slots=True)
class Version:
    """The present version of one author's draft, with its evidence once there is some."""

    candidate_id: str
    author: str
    digest: Digest
    normal_digest: Digest
    """Digest after formatting and comment removal; the content digest where nothing normalises (CN-34)."""
    evidence: CandidateEvidence | None = None
    changed_in: int = 0
    """Round whose repair produced it; 0 for the draft."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Versions that are equal in normal form: one candidate with all their authors (CN-34)."""

    candidate_id: str
    digest: Digest
    authors: tuple[str, ...]
    evidence: CandidateEvidence | None
    versions: tuple[Version, ...]


def merge_equal(versions: Iterable[Version]) -> tuple[Candidate, ...]:
    """One candidate per normal form, ordered by digest.

    The version with the lowest content digest stands for all, so that neither author nor arrival decides.
    """
    groups: dict[str, list[Version]] = defaultdict(list)
    for version in versions:
        groups[version.normal_digest].append(version)
    merged = [_candidate(sorted(group, key=lambda v: (v.digest, v.candidate_id))) for group in groups.values()]
    return tuple(sorted(merged, key=lambda c: (c.digest, c.candidate_id)))


def _candidate(group: list[Version]) -> Candidate:
    first = group[0]
    evidence = next((v.evidence for v in group if v.evidence is not None), None)
    return Candidate(first.candidate_id, first.digest, tuple(sorted({v.author for v in group})), evidence, tuple(group))


def cluster_id_of(candidate_id: str, results: Mapping[str, str]) -> str:
    """Name of the cluster that shows these results (CN-35).

    Args:
        results: shared input -> canonical result (value, exception type or exit code); the same inputs for every
            candidate and round. Without any, the candidate is a cluster of its own.
    """
    return f"cl-{digest_of_json(dict(results)).hex[:16]}" if results else f"cl-{candidate_id}"


def cluster_sizes(candidates: Iterable[Candidate]) -> dict[str, int]:
    """Candidate id -> number of original authors whose version behaves like it (CN-36).

    Only gate-passing candidates share clusters; any other counts its own authors.
    """
    members: dict[str, set[str]] = defaultdict(set)
    listed = list(candidates)
    for c in listed:
        members[_cluster(c)].update(c.authors)
    return {c.candidate_id: len(members[_cluster(c)]) for c in listed}


def _cluster(c: Candidate) -> str:
    if c.evidence is None or not c.evidence.gates_ok:
        return f"alone/{c.candidate_id}"
    return f"cluster/{c.evidence.cluster_id}"


def contenders_of(candidates: Iterable[Candidate]) -> tuple[Contender, ...]:
    """Candidates as the decision sees them, with cluster sizes of the present versions; those measured only."""
    listed = list(candidates)
    sizes = cluster_sizes(listed)
    return tuple(
        Contender(
            candidate_id=c.candidate_id,
            digest=c.digest,
            authors=frozenset(c.authors),
            gates_ok=c.evidence.gates_ok,
            trusted_passed=c.evidence.trusted_passed,
            cluster_size=sizes[c.candidate_id],
            diff_lines=c.evidence.diff_lines,
            trusted_total=c.evidence.trusted_total,
        )
        for c in listed
        if c.evidence is not None
    )
