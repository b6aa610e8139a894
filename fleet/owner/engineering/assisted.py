"""A fixed course for engines between one reply and a session: a change, the tests on it, and replies that mend it.

Each step is on record, so that whoever goes on after a crash asks for the same ones:

    <step>              PURE   the change in one reply, and `<step>/again` where its blocks did not fit or do not parse
    <step>/tests/<n>    KEYED  the tests on the files that it made
    <step>/mend/<n>     PURE   the n-th reply that mends what failed
"""

from __future__ import annotations

from dataclasses import replace

from fleet.engineering.shown import untrusted
from fleet.engineering.state import Outcome, begin
from fleet.engineering.tools import SessionCall
from fleet.events.council import RosterMember
from fleet.kernel.errors import BudgetExceeded, ReplyMalformed
from fleet.kernel.ids import Digest
from fleet.owner.duties.members import Sitting, work_of
from fleet.owner.engineering.desk import Desk
from fleet.owner.engineering.one_reply import change, is_done
from fleet.owner.engineering.runs import Files, run_call
from fleet.owner.engineering.seats import Delivered, TreeCandidate, terms_of, tree_candidate

_MOST_REPAIRS = 4
_MAX_SHOWN, _MAX_FAILURES = 20_000, 8_000
"""Characters of its own diff and of what failed that an author is shown again."""
_TESTS = SessionCall(name="tests", args={})


def told_again(left: TreeCandidate, failures: str) -> str:
    """What an author is told who goes on with what it left."""
    return (
        "You worked on this task before; the files are as you left them. Your changes so far:\n"
        f"{left.diff[:_MAX_SHOWN]}\n\nThey were measured, and this fails:\n{untrusted(failures)[:_MAX_FAILURES]}"
    )


def to_mend(left: TreeCandidate, failures: str) -> str:
    """What an author is told who is to mend in one reply what it left."""
    return f"{told_again(left, failures)}\nMend it: write blocks against the files as they are now."


async def assist(
    sitting: Sitting,
    member: RosterMember,
    *,
    step: str,
    base: Digest,
    own: str = "",
    temperature: str | None = None,
    draw: int = 0,
) -> Delivered:
    """The candidate that the member came to: its tests passed, or it is the last of its attempts.

    Args:
        step: name of the course below its council.
        own: what its first reply alone is told.

    Raises:
        ReplyMalformed: the first reply makes no change that fits.
    """
    made = await change(
        sitting, member, step=step, base=base, own=own, temperature=temperature, draw=draw, must_parse=True
    )
    tokens = made.tokens
    for number in range(1, _MOST_REPAIRS + 1):
        left = tree_candidate(await sitting.load(made.candidate))
        assert left is not None, "a change in one reply is a tree"
        tests = await _tested(sitting, member, f"{step}/tests/{number}", left)
        if tests is None or tests.kind != "failure":
            break
        again, name = to_mend(left, tests.text), f"{step}/mend/{number}"
        try:
            new = await change(sitting, member, step=name, base=left.tree, own=again, draw=draw, must_parse=True)
        except ReplyMalformed:
            break
        except BudgetExceeded as error:
            # A council decides on what its members left; everything else waits for a person to raise the limit.
            if error.details.get("kind") not in ("council", "step"):
                raise
            break
        tokens += new.tokens
        if new.candidate == made.candidate:
            break
        made = new
    return Delivered(made.candidate, tokens)


async def _tested(sitting: Sitting, member: RosterMember, step: str, left: TreeCandidate) -> Outcome | None:
    """How the tests ended on what the member left; None where nothing is started any more."""
    bench, name = sitting.bench, f"{sitting.council_id}/{step}"
    if sitting.is_closing and not is_done(sitting, step):
        return None
    desk, base = Desk(bench.blobs), sitting.opened.subject_digest
    assert base is not None, "councils on tasks are opened on a tree"
    head = await desk.told_over(base, left.tree)
    files = Files(f"{sitting.council_id}/{step.partition('/tests/')[0]}", await desk.tree(head), base)
    work = replace(work_of(sitting.record, member, "draft"), tool="tests", op="pytest", about="tests of the change")
    return await run_call(bench, name, work, _TESTS, begin(terms_of(bench, member), head), files)
