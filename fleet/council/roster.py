"""Who sits in a council: seats, weights, quorum and seed (CN-11, CN-12, CN-14, CN-20, CN-21)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import Field

from fleet.council.config import FIRST_NAMED, LAST_NAMED, MAX_VOTERS, MIN_VOTERS, CouncilConfig, PassThreshold
from fleet.events.council import RosterMember
from fleet.kernel.ids import EntityId, Principal
from fleet.kernel.types import CouncilKind, Frozen, OutputKind


class Member(Frozen):
    """A seat with its own principal; one role actor may serve several seats (CN-11)."""

    member_id: EntityId
    role: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    principal: Principal
    model_policy: str
    temperature: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?$")]
    prompt_variant: Annotated[int, Field(ge=0)] = 0
    weight: Annotated[int, Field(ge=1)] = 1
    can_propose: bool = True
    can_vote: bool = True
    veto: bool = False
    test_author: bool = False


def build_roster(
    kind: CouncilKind,
    output_kind: OutputKind,
    *,
    proposer_role: str,
    num_agents: int,
    config: CouncilConfig,
    model_policy: str | None = None,
) -> tuple[Member, ...]:
    """The default roster: voters that all propose, and for code one extra test author that does neither (CN-11).

    In a gate nobody proposes. Weights are those of `config.reliability`, 1 for a seat that it does not name.
    """
    voters = [
        m.model_copy(update={"can_propose": kind == "selection", "model_policy": model_policy or m.model_policy})
        for m in seats([proposer_role] * num_agents, config=config)
    ]
    if kind == "selection" and output_kind == "code_patch":
        voters.append(_test_author(config, taken=num_agents if config.test_author_role == proposer_role else 0))
    return tuple(voters)


def seated(roster: Iterable[Member], config: CouncilConfig) -> tuple[RosterMember, ...]:
    """The members as the council records them, each named agent with its persona: never one that a request names."""
    return tuple(RosterMember(**m.model_dump(), persona=config.persona_of_seat(m.member_id, m.role)) for m in roster)


def seats(roles: Sequence[str], *, config: CouncilConfig) -> tuple[Member, ...]:
    """A seat for each of the roles, which proposes and votes; those of one role are numbered in order.

    Named agents of a role sit first. Temperatures and prompt variants are taken in turn, so that drafts differ (CN-14).
    """
    names = [_seat_name(role, roles[: n + 1].count(role), config) for n, role in enumerate(roles)]
    return tuple(
        Member(
            member_id=EntityId(name),
            role=role,
            principal=Principal(f"agent:{name}"),
            model_policy=config.policy_of_seat(name, role),
            temperature=config.ladder[number % len(config.ladder)],
            prompt_variant=number % config.prompt_variants,
            weight=config.reliability.weights.get(name, 1),
        )
        for number, (role, name) in enumerate(zip(roles, names, strict=True))
    )


def reseated(roster: Sequence[Member], *, config: CouncilConfig) -> tuple[Member, ...]:
    """The members as they sit in a council that is asked the same again: with the policies that their seats have now.

    In the place of a named agent that was taken away since sits the first numbered seat of its role that is free.
    """
    taken = {str(m.member_id) for m in roster}
    members: list[Member] = []
    for member in roster:
        name = str(member.member_id)
        if _is_gone(member, config):
            name = next(n for n in (f"{member.role}-{k:03d}" for k in range(1, MAX_VOTERS + 2)) if n not in taken)
            taken.add(name)
        update = {
            "member_id": EntityId(name),
            "principal": Principal(f"agent:{name}"),
            "model_policy": config.policy_of_seat(name, member.role),
        }
        members.append(member.model_copy(update=update))
    return tuple(members)


def _is_gone(member: Member, config: CouncilConfig) -> bool:
    number = int(member.member_id[-3:])
    return FIRST_NAMED <= number <= LAST_NAMED and number not in {a.number for a in config.agents.get(member.role, ())}


def _seat_name(role: str, place: int, config: CouncilConfig) -> str:
    """The name of the seat that is the `place`-th of its role, from 1."""
    named = config.agents.get(role, ())
    return f"{role}-{named[place - 1].number if place <= len(named) else place - len(named):03d}"


def _test_author(config: CouncilConfig, *, taken: int) -> Member:
    role = config.test_author_role
    return Member(
        member_id=EntityId(f"{role}-{taken + 1:03d}"),
        role=role,
        principal=Principal(f"agent:{role}-{taken + 1:03d}"),
        model_policy=config.policy_of(role),
        temperature=config.ladder[0],
        can_propose=False,
        can_vote=False,
        test_author=True,
    )


def voter_weights(roster: Sequence[Member]) -> dict[str, int]:
    """Weight of every voter of the original roster, by member id."""
    return {str(m.member_id): m.weight for m in roster if m.can_vote}


def quorum_of(kind: CouncilKind, voters: int) -> int:
    """Valid ballots needed: floor(2n/3)+1 for a gate, floor(n/2)+1 otherwise, of n voters at the start (CN-20)."""
    return 2 * voters // 3 + 1 if kind == "gate" else voters // 2 + 1


def passes(approving: int, total: int, threshold: PassThreshold) -> bool:
    """Whether the approving weight is over the threshold of the total roster weight (CN-21)."""
    return 3 * approving >= 2 * total if threshold == "two_thirds" else 2 * approving > total


def derive_seed(council_id: str) -> int:
    """The seed of a council that was given none: 0..2^28-1, from its id (CN-9)."""
    return int(hashlib.sha256(council_id.encode()).hexdigest()[:7], 16)


def roster_problems(
    roster: Sequence[Member], *, kind: CouncilKind, output_kind: OutputKind, num_agents: int, config: CouncilConfig
) -> tuple[str, ...]:
    """Everything that forbids a council with this roster, each with its mend; empty when it may open (CN-12)."""
    problems = [*_size_problems(roster, num_agents), *_duplicates(roster), *_weight_problems(roster)]
    problems += [
        f"{m.member_id} has a veto, but role {m.role} may have none: allowed are {', '.join(config.veto_roles)}"
        for m in roster
        if m.veto and m.role not in config.veto_roles
    ]
    problems += [f"{m.member_id} has a veto but no vote" for m in roster if m.veto and not m.can_vote]
    problems += [
        f"{m.member_id} writes the tests, so it may neither propose nor vote"
        for m in roster
        if m.test_author and (m.can_propose or m.can_vote)
    ]
    if kind == "selection" and not any(m.can_propose for m in roster):
        problems.append("nobody can propose: give at least one member can_propose")
    if kind == "selection" and output_kind == "code_patch" and not any(m.test_author for m in roster):
        problems.append("a council on code needs a test author that neither proposes nor votes: add one")
    return tuple(problems)


def _size_problems(roster: Sequence[Member], num_agents: int) -> list[str]:
    voters = sum(m.can_vote for m in roster)
    problems: list[str] = []
    if voters % 2 == 0 or not MIN_VOTERS <= voters <= MAX_VOTERS:
        problems.append(f"there are {voters} voters; needed is an odd number of {MIN_VOTERS}..{MAX_VOTERS}")
    if voters != num_agents:
        problems.append(f"num_agents is {num_agents}, but the roster has {voters} voters")
    if sum(m.test_author for m in roster) > 1:
        problems.append("there is more than one test author: keep one")
    return problems


def _duplicates(roster: Sequence[Member]) -> list[str]:
    problems: list[str] = []
    for name, values in (
        ("member_id", [str(m.member_id) for m in roster]),
        ("principal", [str(m.principal) for m in roster]),
    ):
        problems += [f"{name} {v} is used more than once" for v in sorted(set(values)) if values.count(v) > 1]
    return problems


def _weight_problems(roster: Sequence[Member]) -> list[str]:
    weights = [(str(m.member_id), m.weight) for m in roster if m.can_vote]
    total = sum(weight for _, weight in weights)
    return [
        f"weight {weight} of {member} is at least half of the total {total}: nobody may decide alone"
        for member, weight in weights
        if 2 * weight >= total
    ]
