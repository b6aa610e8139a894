"""Evidence for candidates: what they do when they are executed, not what anybody says of them (CN-30..CN-42)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from fleet.council import evidence, facts
from fleet.council.candidate import Version, cluster_id_of, cluster_sizes
from fleet.council.evidence import is_better
from fleet.council.facts import DeliveredTests
from fleet.council.rounds import FRESH_TEMPERATURE, OwedEvidence, OwedRepair
from fleet.events.council import DroppedTest, Evidence, EvidenceGate, EvidenceRecorded, RepairReceived, TestsFiltered
from fleet.kernel.digest import canonical_json, digest_of_json
from fleet.kernel.ids import Digest, EntityId
from fleet.models.replies.json_reply import normalise_output
from fleet.owner.duties import advice, gate_councils
from fleet.owner.duties.members import Sitting, ask_member, task_paths, usable
from fleet.owner.duties.procedure import base_measurement, workspace_of
from fleet.owner.duties.texts import examples_module, shown_chars
from fleet.owner.engineering import authors, seats
from fleet.owner.engineering.independent_tests import delivered_tests, filtered_tests, run_delivered
from fleet.owner.journal.steps import Work
from fleet.owner.workbench import seat, together
from fleet.story.council_facts import CouncilSaid, council_state
from fleet.workspace.service.workspace import TestRun, WorkspaceService

QA = seat("qa")
_FAILURES_PERCENT = 10
"""Of the window, for what fails of code that is to be repaired."""
_ON_BASE_SINCE = 4
"""The rule version from which on generated tests run without any candidate too; a council keeps its own rules."""


@dataclass(frozen=True, slots=True)
class Executed:
    """One candidate as it behaved in the sandbox."""

    candidate: str
    tree: Digest | None
    normal: Digest | None
    """Of the content in normal form (CN-34)."""
    diff_lines: int
    gates: tuple[EvidenceGate, ...]
    lint_errors: int
    generated: tuple[TestRun, ...]
    """Two runs of the generated tests; none when there are no tests or a gate failed."""
    outcomes: Mapping[str, str]
    """Test id -> outcome and exception type, over given examples and generated tests: its observed behaviour."""
    failures: str
    run: EntityId

    @property
    def gates_ok(self) -> bool:
        """Whether every hard gate holds."""
        return all(g.ok for g in self.gates)


async def measure_candidates(sitting: Sitting, duty: OwedEvidence) -> None:
    """The candidates have evidence; once one passes its gates, the validity filter of the tests is on record too."""
    # Only the filter is missing: those that pass show what the tests are worth.
    names = duty.candidates or tuple(c.candidate_id for c in sitting.state.contenders() if c.gates_ok)
    contents = {c: _content(sitting, c, duty.round) or sitting.state.version(c).digest for c in names}
    payloads: list[CouncilSaid] = []
    if sitting.is_code and sitting.opened.kind != "gate":
        executed = await together(execute(sitting, c, digest, duty.round) for c, digest in contents.items())
        filtered = sitting.state.filtered
        if duty.filter_tests and any(e.generated for e in executed):
            on_base = await _on_base(sitting)
            ran = {e.candidate: [r.signature for r in e.generated] for e in executed if e.generated}
            filtered = filtered_tests(ran, on_base or {})
            payloads.append(_filter_event(sitting, filtered, on_base))
        measured = [_evidence_of(e, filtered, duty.round) for e in executed]
    elif sitting.opened.kind == "gate":
        measured = [gate_councils.evidence_of(sitting, contents[c]) for c in names]
    else:
        measured = [await _by_form(sitting, c) for c in names]
    if duty.candidates:
        payloads += [_event(sitting, e) for e in (*measured, *_of_equals(sitting, measured, duty.round))]
    name = f"evidence/{duty.round}" if duty.candidates else f"evidence/{duty.round}/tests"
    await sitting.say(name, *_sized(sitting, payloads), by=QA.principal)


def _content(sitting: Sitting, candidate: str, number: int) -> Digest | None:
    """What is to be measured of the candidate in this round: its draft, or a repair that its gates speak for."""
    if number == 0:
        return sitting.state.version(candidate, 0).digest
    repair = sitting.state.repairs.get((candidate, number))
    return repair.digest if isinstance(repair, facts.DeliveredRepair) and repair.kept != "old" else None


def _event(sitting: Sitting, measured: Evidence) -> EvidenceRecorded:
    return EvidenceRecorded(council_id=sitting.council_id, round=measured.round, evidence=measured)


def _of_equals(sitting: Sitting, records: Sequence[Evidence], number: int) -> list[Evidence]:
    """Equal bytes were measured once: what one of them showed is evidence for each of its authors (CN-34)."""
    contents = {v.candidate_id: _content(sitting, v.candidate_id, number) for v in sitting.state.versions()}
    measured = {str(e.candidate_id): e for e in records}
    return [
        e.model_copy(update={"candidate_id": EntityId(other)})
        for name, e in measured.items()
        for other, content in contents.items()
        if other not in measured and content is not None and content == contents[name]
    ]


def _sized(sitting: Sitting, payloads: Sequence[CouncilSaid]) -> list[CouncilSaid]:
    """The payloads, in which evidence counts the authors whose present version behaves alike (CN-36)."""
    after = council_state(sitting.opened, (*sitting.record.said.values(), *payloads)).candidates()
    alike = cluster_sizes(after)
    sizes = {v.candidate_id: alike[c.candidate_id] for c in after for v in c.versions}
    return [
        p.model_copy(
            update={"evidence": p.evidence.model_copy(update={"cluster_size": sizes[p.evidence.candidate_id]})}
        )
        if isinstance(p, EvidenceRecorded)
        else p
        for p in payloads
    ]


async def _by_form(sitting: Sitting, candidate: str) -> Evidence:
    """A design is checked by form: each criterion answered, a file named that the story may change (CN-31)."""
    value = await sitting.load(sitting.state.version(candidate).digest)
    asked = await advice.kept_request(sitting.bench, sitting.record)
    if asked is not None and sitting.opened.output_kind == "text":
        return advice.evidence_of_text(candidate, value, asked.refs)
    if asked is not None and sitting.opened.output_kind == "plan":
        return advice.evidence_of_plan(sitting.bench, candidate, value, asked)
    path, interface = str(value["path"]), " ".join(str(value["interface"]).split())
    gates = (
        EvidenceGate(
            name="criteria", ok={c.ac_id for c in sitting.bench.criteria} <= {str(c["ac"]) for c in value["criteria"]}
        ),
        EvidenceGate(name="path", ok=bool(path) and ".." not in path.split("/") and not path.startswith("/")),
        EvidenceGate(name="interface", ok=bool(interface)),
    )
    return Evidence(
        candidate_id=EntityId(candidate),
        round=0,
        gates=gates,
        gates_ok=all(g.ok for g in gates),
        trusted_passed=0,
        trusted_total=0,
        cluster_id=digest_of_json([path, interface]).hex[:16],
        cluster_size=1,
        lint_errors=0,
        diff_lines=0,
    )


async def execute(sitting: Sitting, candidate: str, content: Digest, number: int) -> Executed:
    """The candidate as it behaves: its gates, and with all of them the generated tests (CN-30, CN-32)."""
    bench, state, task_id = sitting.bench, sitting.bench.state, sitting.opened.task_id
    assert state.tree is not None
    prefix = f"{sitting.council_id}/evidence/{number}/{candidate}"
    work = Work(seat=QA, tool="tests", op="pytest", task_id=task_id, council_id=sitting.council_id)
    space = workspace_of(bench, prefix, work)
    applied = await seats.applied(sitting, space, content, state.tree)
    run_id = bench.new_id("rn", prefix)
    if applied.tree is None:
        text = "; ".join(applied.problems) or "the change could not be applied"
        gate = EvidenceGate(name="applies", ok=False, run_id=run_id)
        return Executed(candidate, None, None, 0, (gate,), 0, (), {}, text, run_id)
    base = await base_measurement(bench, applied.tree)
    measured = await space.measure(
        applied.tree,
        run_id=run_id,
        story_id=state.story_id,
        task_id=task_id,
        base=base,
        commit=None,
        base_commit=state.base_commit,
        rigor=state.rigor,
        toolchain=bench.toolchain,
        stages=("build", "unit", "lint"),
    )
    report = measured.report
    given = examples_module(state.content.constraints)
    examples = (
        await space.run_tests(applied.tree, {"test_examples.py": given}, toolchain=bench.toolchain) if given else None
    )
    unit_ok = measured.keeps(base)
    limit = bench.rules.rigor.level(state.rigor).lint.max_errors
    lint = report.lint.errors or 0 if report.lint else 0
    gates = (
        # What changes nothing is measured all the same: how it fails tells its author more than that it is empty.
        EvidenceGate(name="applies", ok=applied.tree != state.tree, run_id=run_id),
        EvidenceGate(name="lint", ok=limit is None or lint <= limit, run_id=run_id),
        EvidenceGate(name="build", ok=bool(report.build and report.build.ok), run_id=run_id),
        EvidenceGate(name="regression", ok=unit_ok, run_id=run_id),
        EvidenceGate(name="examples", ok=examples is None or examples.all_passed, run_id=run_id),
        EvidenceGate(name="secrets", ok=not (report.security and report.security.secrets_found), run_id=run_id),
    )
    generated = await _generated(sitting, space, applied.tree) if all(g.ok for g in gates) else ()
    first = generated[0] if generated else None
    is_asked = examples is None and sitting.opened.rule_version >= _ON_BASE_SINCE
    if is_asked and first is not None and "passed" not in first.signature.values():
        # Without any test that it passes nothing shows what it does: that is a failure to mend, not a pass.
        gates, generated = (*gates, EvidenceGate(name="tests", ok=False, run_id=run_id)), ()
    outcomes = {f"example/{k}": v for k, v in (examples.signature if examples else {}).items()}
    outcomes |= {f"test/{k}": v for k, v in (first.signature if first is not None else {}).items()}
    failures = "\n".join(
        ([] if report.unit or unit_ok else ["the tests of the project left no result that can be believed"])
        + [f"{f.id}: {f.message}" for f in (report.unit.failures if report.unit else ())]
        + ([examples.failures] if examples else [])
        + ([first.failures] if first is not None else [])
    )
    if applied.tree == state.tree and not failures.strip():
        failures = "nothing is changed: the files are what they were before"
    return Executed(
        candidate,
        applied.tree,
        Digest(f"sha256:{applied.normal_digest}") if applied.normal_digest else None,
        applied.diff_lines,
        gates,
        lint,
        generated,
        outcomes,
        normalise_output(failures),
        run_id,
    )


async def _generated(sitting: Sitting, space: WorkspaceService, tree: Digest) -> tuple[TestRun, ...]:
    tests = sitting.state.tests
    if not isinstance(tests, DeliveredTests) or not tests.count:
        return ()
    given = await delivered_tests(sitting.bench, tests.digest)
    if given.language is not None:
        # One run runs them twice, and tells how a test ended where both agree.
        return (await run_delivered(space, tree, given, sitting.bench),) * 2
    return tuple([await run_delivered(space, tree, given, sitting.bench) for _ in range(2)])


async def _on_base(sitting: Sitting) -> dict[str, str] | None:
    """How the generated tests end on the tree that the candidates change (CN-32): what passes there tells them apart
    from each other alone, and not from doing nothing. None by the rules of an older council."""
    tests, tree = sitting.state.tests, sitting.bench.state.tree
    if sitting.opened.rule_version < _ON_BASE_SINCE or not isinstance(tests, DeliveredTests):
        return None
    assert tree is not None
    work = Work(seat=QA, tool="tests", op="pytest", task_id=sitting.opened.task_id, council_id=sitting.council_id)
    space = workspace_of(sitting.bench, f"{sitting.council_id}/evidence/base", work)
    given = await delivered_tests(sitting.bench, tests.digest)
    return (await run_delivered(space, tree, given, sitting.bench)).signature


def _filter_event(sitting: Sitting, selection: facts.KeptTests, on_base: dict[str, str] | None) -> TestsFiltered:
    return TestsFiltered(
        council_id=sitting.council_id,
        kept=selection.kept,
        dropped=tuple(DroppedTest(test=d.test, reason=d.reason) for d in selection.dropped),
        trusted=selection.trusted,
        on_base=on_base,
    )


def _evidence_of(e: Executed, filtered: facts.KeptTests | None, number: int) -> Evidence:
    kept = filtered.kept if filtered is not None else ()
    shared = {k: v for k, v in e.outcomes.items() if k.startswith("example/") or k.removeprefix("test/") in kept}
    return Evidence(
        candidate_id=EntityId(e.candidate),
        round=number,
        tree_digest=e.tree,
        gates=e.gates,
        gates_ok=e.gates_ok,
        trusted_passed=sum(e.outcomes.get(f"test/{name}") == "passed" for name in kept),
        trusted_total=len(kept),
        cluster_id=cluster_id_of(e.candidate, shared if e.gates_ok else {}),
        cluster_size=1,
        lint_errors=e.lint_errors,
        diff_lines=e.diff_lines,
        run_ids=(e.run,),
        normal_digest=e.normal,
    )


async def repair(sitting: Sitting, duty: OwedRepair) -> None:
    """The author had its chance in this round; a version that is not strictly better is not kept (CN-41, CN-42)."""
    candidate, number, state = duty.candidate_id, duty.round, sitting.state
    old, author = state.version(candidate, number - 1), sitting.seat(str(duty.author.member_id))
    assert old.evidence is not None, "only what was measured is repaired"
    answer = await _repaired(sitting, duty, old)
    payloads: list[CouncilSaid] = []
    content, kept, reason = old.digest, "old", "the author gave no usable repair"
    if answer is not None:
        content, reason = answer, "its evidence is not strictly better"
        measured = _evidence_of(await execute(sitting, candidate, content, number), state.filtered, number)
        if is_better(evidence.CandidateEvidence.model_validate(measured.model_dump()), old.evidence):
            kept, reason = "new", "strictly better evidence"
            # Tests that nobody has filtered yet are run, and filtered, with all that pass in this round.
            is_unfiltered = isinstance(state.tests, DeliveredTests) and state.filtered is None
            payloads = [] if is_unfiltered and measured.gates_ok else [_event(sitting, measured)]
    repaired = RepairReceived(
        council_id=sitting.council_id,
        round=number,
        candidate_id=EntityId(candidate),
        new_digest=content,
        kept=kept,  # pyright: ignore[reportArgumentType]
        reason=reason,
    )
    said = _sized(sitting, [repaired, *payloads])
    await sitting.say(f"repair/{number}/{candidate}/received", *said, by=author.principal)


async def _repaired(sitting: Sitting, duty: OwedRepair, old: Version) -> Digest | None:
    """The new version, None when the author gave none that can be used."""
    bench, number, step = sitting.bench, duty.round, f"repair/{duty.round}/{duty.candidate_id}"
    author, paths = sitting.seat(str(duty.author.member_id)), await task_paths(bench, sitting.record)
    if seats.tree_candidate(await sitting.load(old.digest)) is not None:
        failures = None if duty.is_fresh else await _failures_of(sitting, old, number)
        new = authors.mend(sitting, author, step=step, old=old.digest, failures=failures, draw=number)
        return await usable(new)
    ask = partial(ask_member, bench, sitting.record, author, step=step, shared=sitting.shared, target_paths=paths)
    if duty.is_fresh:
        answer = await usable(ask("draft", temperature=FRESH_TEMPERATURE, draw=number))
    else:
        answer = await usable(ask("repair", own=await _what_fails(sitting, old, number)))
    return await bench.blobs.put(canonical_json(answer.value)) if answer is not None else None


async def _failures_of(sitting: Sitting, old: Version, number: int) -> str:
    group = next(c for c in sitting.state.candidates(number - 1) if old in c.versions)
    # Of equal versions the first was executed, and its runs are on record.
    first = group.versions[0]
    return (await execute(sitting, first.candidate_id, first.digest, first.changed_in)).failures


async def _what_fails(sitting: Sitting, old: Version, number: int) -> str:
    failures = await _failures_of(sitting, old, number)
    value = await sitting.load(old.digest)
    code = "\n\n".join(str(e["content"]) for e in value["edits"])
    most = shown_chars(sitting.bench, "developer", percent=_FAILURES_PERCENT)
    return f"Your code:\n{code}\n\nIt fails:\n{failures[:most]}"
