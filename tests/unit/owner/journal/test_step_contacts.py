"""What a run asked for outside, counted."""

from __future__ import annotations

import pytest

from fleet.kernel.digest import digest_of
from fleet.kernel.ids import StepId
from fleet.owner.journal.step_records import MAX_CONTACTS, contacts_of, finished_call, finished_run
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.runs.spec import EgressDecision, RunResult
from fleet.trees.memory import MemoryBlobStore

ALLOWED = EgressDecision(host="pypi.example", port=443, allowed=True, reason="ok", address="93.184.216.34")
REFUSED = EgressDecision(host="evil.example", port=443, allowed=False, reason="host_not_listed")


def test_contacts_of_one_host_are_counted_and_refused_ones_come_first() -> None:
    assert contacts_of([ALLOWED, REFUSED, ALLOWED]) == (
        "evil.example:443 refused host_not_listed 1",
        "pypi.example:443 allowed ok 2",
    )


def test_run_that_asked_for_nothing_has_no_contacts() -> None:
    assert contacts_of([]) is None


def test_contacts_of_many_hosts_are_cut() -> None:
    many = [REFUSED.model_copy(update={"host": f"h{n}.example"}) for n in range(MAX_CONTACTS + 5)]
    assert len(contacts_of(many) or ()) == MAX_CONTACTS


@pytest.mark.rule("RC-32")
async def test_record_of_a_run_and_of_a_call_says_what_was_missing_and_asked_for() -> None:
    blobs, step = MemoryBlobStore(), StepId("run/rn-1")
    result = RunResult(status="passed", reason="ok", exit_code=0, unmet=("vsock",), egress=(REFUSED,))
    outcome = ToolOutcome(outcome="succeeded", unmet=result.unmet, egress=result.egress)
    for record in (
        await finished_run(blobs, step, result),
        await finished_call(blobs, step, outcome, tree_in=digest_of(b"")),
    ):
        assert record.provenance.unmet == ("vsock",)
        assert record.provenance.contacts == ("evil.example:443 refused host_not_listed 1",)
    plain = await finished_run(blobs, step, RunResult(status="passed", reason="ok", exit_code=0))
    assert (plain.provenance.unmet, plain.provenance.contacts) == (None, None)
