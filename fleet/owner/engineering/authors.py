"""How a member of a council works on code: in one reply, in replies that tests follow, or in a session."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.council.rounds import FRESH_TEMPERATURE
from fleet.events.council import CouncilBudget, RosterMember
from fleet.kernel.errors import ReplyMalformed
from fleet.kernel.ids import Digest
from fleet.owner.duties.members import Sitting
from fleet.owner.engineering.assisted import assist, to_mend, told_again
from fleet.owner.engineering.one_reply import change
from fleet.owner.engineering.seats import Delivered, TreeCandidate, deliver, facts_of, terms_of, tree_candidate
from fleet.owner.workbench import Workbench


def with_strategies(bench: Workbench, roster: Iterable[RosterMember]) -> tuple[RosterMember, ...]:
    """The members, each that proposes with the strategy of the engine that is asked first for it.

    It is fixed with the council: a change of models.yaml changes no work that has begun. One reply, which has always
    been the way, is not written down.
    """
    return tuple(_with_strategy(bench, member) if member.can_propose else member for member in roster)


def _with_strategy(bench: Workbench, member: RosterMember) -> RosterMember:
    facts = facts_of(bench, member)
    if facts.strategy == "draft":
        return member
    return member.model_copy(update={"strategy": facts.strategy, "strategy_reason": facts.reason})


def budget_of(bench: Workbench, members: Iterable[RosterMember], *, rounds: int) -> CouncilBudget:
    """What a council gets: that of council.yaml, and the terms of the sessions of its members (MB-21, MB-43)."""
    defaults = bench.rules.council.defaults
    terms = [terms_of(bench, member) for member in members if member.strategy is not None]
    # Sessions of one round go on side by side: their tokens add up, their time does not.
    tokens = sum(one.prompt_tokens + one.output_tokens for one in terms)
    wall_s = max((one.wall_s for one in terms), default=0)
    times = 1 + rounds
    return CouncilBudget(tokens=defaults.tokens + times * tokens, wall_s=defaults.timeout_seconds + times * wall_s)


def makes_trees(member: RosterMember, paths: tuple[str, ...]) -> bool:
    """Whether the member's candidate is a tree.

    Else it is definitions of the one Python file that the task is about.

    Args:
        paths: the files that the task is about, as far as they are known.
    """
    return member.strategy is not None or not (len(paths) == 1 and paths[0].endswith(".py"))


async def propose(sitting: Sitting, member: RosterMember, *, step: str) -> Delivered:
    """The member's first candidate, from the tree on that the council was opened on.

    In a cascade a session takes over at once where no reply fits; where one fits, the evidence decides.

    Raises:
        ReplyMalformed: there is no change.
    """
    base = sitting.opened.subject_digest
    assert base is not None, "councils on tasks are opened on a tree"
    if member.strategy == "session":
        return await deliver(sitting, member, step=step, base=base)
    if member.strategy == "assisted":
        return await assist(sitting, member, step=step, base=base)
    if sitting.is_closing:
        # Nobody is asked any more. A session that had taken over hands in what it has; all else has handed in nothing.
        return await deliver(sitting, member, step=f"{step}/session", base=base)
    try:
        return await change(sitting, member, step=step, base=base)
    except ReplyMalformed:
        if member.strategy is None:
            raise
        return await deliver(sitting, member, step=f"{step}/session", base=base)


async def mend(
    sitting: Sitting, author: RosterMember, *, step: str, old: Digest, failures: str | None, draw: int
) -> Digest | None:
    """The author's next candidate; None when it is the one there was before.

    Args:
        failures: what was measured of the old candidate, on whose files it goes on; None begins anew.

    Raises:
        ReplyMalformed: there is no change.
    """
    previous = tree_candidate(await sitting.load(old))
    assert previous is not None, "who makes trees has left one"
    if author.strategy == "assisted":
        start, own = (previous.base, "") if failures is None else (previous.tree, to_mend(previous, failures))
        temperature = FRESH_TEMPERATURE if failures is None else None
        new = await assist(sitting, author, step=step, base=start, own=own, temperature=temperature, draw=draw)
    elif author.strategy is None:
        new = await _changed_again(sitting, author, previous, step=step, failures=failures, draw=draw)
    elif failures is None:
        new = await deliver(sitting, author, step=step, base=previous.base, temperature=FRESH_TEMPERATURE, draw=draw)
    else:
        own = f"{told_again(previous, failures)}\nMend it, run what failed, and submit."
        new = await deliver(sitting, author, step=step, base=previous.tree, root=previous.base, own=own)
    return None if new.candidate == old else new.candidate


async def _changed_again(
    sitting: Sitting, author: RosterMember, previous: TreeCandidate, *, step: str, failures: str | None, draw: int
) -> Delivered:
    if failures is None:
        return await change(sitting, author, step=step, base=previous.base, temperature=FRESH_TEMPERATURE, draw=draw)
    return await change(sitting, author, step=step, base=previous.tree, own=to_mend(previous, failures))
