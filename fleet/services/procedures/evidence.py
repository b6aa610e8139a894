"""Evidence for candidates: what they do when they are executed, not what anybody says of them (CN-30..CN-42)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from fleet.digest import canonical_json, digest_of_json
from fleet.errors import ModelError, Retry
from fleet.events import (
    DroppedTest,
    Evidence,
    EvidenceGate,
    EvidenceRecorded,
    Payload,
    RepairReceived,
    TestsFiltered,
)
from fleet.ids import Digest, EntityId
from fleet.models import normalise_output
from fleet.services.journal import Work
from fleet.services.procedures.base import base_measurement, workspace_of
from fleet.services.procedures.members import ask_member, material, task_paths
from fleet.services.procedures.texts import examples_module
from fleet.services.workbench import Workbench, seat, together
from fleet.services.workspace import PROTECTED_FROM_AUTHORS, TestRun, WorkspaceService
from fleet.story import CouncilRecord
from fleet.story import deliberation as due

__all__ = ["gather_first", "repair_round"]

QA = seat("qa")


@dataclass(frozen=True, slots=True)
class Executed:
    """One candidate as it behaved in the sandbox."""

    candidate: str
    tree: Digest | None
    normal: str
    diff_lines: int
    gates: tuple[EvidenceGate, ...]
    lint_errors: int
    generated: tuple[TestRun, ...]
    """Two runs of the generated tests; none when there are no tests or a gate failed."""
    outcomes: Mapping[str, str]
    """Test id -> outcome and exception type, over given examples and generated tests: its observed behaviour."""
    failures: str
    runs: tuple[EntityId, ...]

    @property
    def gates_ok(self) -> bool:
        """Whether every hard gate holds."""
        return all(g.ok for g in self.gates)


async def gather_first(bench: Workbench, record: CouncilRecord) -> None:
    """Every draft has evidence, and the validity filter of the tests is on record."""
    if record.opened.output_kind != "code_patch":
        await _structural(bench, record)
        return
    executed = await together(_execute(bench, record, c, number=0) for c in sorted(record.drafts))
    filtered = _filter(record, executed)
    council_id = record.opened.council_id
    payloads: list[Payload] = [filtered]
    payloads += [
        EvidenceRecorded(council_id=council_id, round=0, evidence=e) for e in _evidence(executed, filtered, number=0)
    ]
    await bench.journal.record(f"{council_id}/evidence/0", *payloads, actor=QA.principal)


async def _structural(bench: Workbench, record: CouncilRecord) -> None:
    """Designs are checked by form: each criterion answered, a file named that the story may change (CN-31)."""
    wanted = {c.ac_id for c in bench.criteria}
    values = {c: json.loads(await bench.blobs.get(d.content)) for c, d in record.drafts.items()}
    payloads: list[Payload] = []
    for candidate in sorted(values):
        value = values[candidate]
        answered = {str(c["ac"]) for c in value["criteria"]}
        path = str(value["path"])
        gates = (
            EvidenceGate(name="criteria", ok=wanted <= answered),
            EvidenceGate(name="path", ok=bool(path) and ".." not in path.split("/") and not path.startswith("/")),
            EvidenceGate(name="interface", ok=bool(str(value["interface"]).strip())),
        )
        cluster = digest_of_json([path, " ".join(str(value["interface"]).split())])
        same = sum(
            digest_of_json([str(v["path"]), " ".join(str(v["interface"]).split())]) == cluster for v in values.values()
        )
        found = Evidence(
            candidate_id=EntityId(candidate),
            round=0,
            gates=gates,
            gates_ok=all(g.ok for g in gates),
            trusted_passed=0,
            trusted_total=0,
            cluster_id=cluster.hex[:16],
            cluster_size=same,
            lint_errors=0,
            diff_lines=0,
        )
        payloads.append(EvidenceRecorded(council_id=record.opened.council_id, round=0, evidence=found))
    await bench.journal.record(f"{record.opened.council_id}/evidence/0", *payloads, actor=QA.principal)


async def _execute(
    bench: Workbench, record: CouncilRecord, candidate: str, *, number: int, content: Digest | None = None
) -> Executed:
    state, council_id = bench.state, record.opened.council_id
    assert state.tree is not None
    prefix = f"{council_id}/evidence/{number}/{candidate}"
    work = Work(seat=QA, tool="tests", op="pytest", task_id=record.opened.task_id, council_id=council_id)
    space = workspace_of(bench, prefix, work)
    value = json.loads(await bench.blobs.get(content or record.drafts[candidate].content))
    applied = await space.apply(state.tree, value["edits"], protect=PROTECTED_FROM_AUTHORS, toolchain=bench.toolchain)
    run_id = bench.new_id("rn", prefix)
    if applied.tree is None:
        text = "; ".join(applied.problems) or "the change could not be applied"
        gate = EvidenceGate(name="applies", ok=False, run_id=run_id)
        return Executed(candidate, None, candidate, 0, (gate,), 0, (), {}, text, (run_id,))
    measured = await space.measure(
        applied.tree,
        run_id=run_id,
        story_id=state.story_id,
        task_id=record.opened.task_id,
        base=await base_measurement(bench, applied.tree),
        commit=None,
        base_commit=state.base_commit,
        rigor=state.rigor,
        toolchain=bench.toolchain,
        stages=("build", "unit", "lint"),
    )
    report = measured.report
    examples = await _run(space, applied.tree, "examples", examples_module(state.content.constraints), bench)
    unit_ok = report.unit is None or not (report.unit.failed or report.unit.errored)
    limit = bench.rules.rigor.level(state.rigor).lint.max_errors
    lint = report.lint.errors or 0 if report.lint else 0
    gates = (
        EvidenceGate(name="applies", ok=True, run_id=run_id),
        EvidenceGate(name="lint", ok=limit is None or lint <= limit, run_id=run_id),
        EvidenceGate(name="build", ok=bool(report.build and report.build.ok), run_id=run_id),
        EvidenceGate(name="regression", ok=unit_ok, run_id=run_id),
        EvidenceGate(name="examples", ok=examples is None or examples.all_passed, run_id=run_id),
        EvidenceGate(name="secrets", ok=not (report.security and report.security.secrets_found), run_id=run_id),
    )
    generated = await _generated(bench, record, space, applied.tree, run=all(g.ok for g in gates))
    outcomes = {f"example/{k}": v for k, v in (examples.signature if examples else {}).items()}
    outcomes |= {f"test/{k}": v for k, v in (generated[0].signature if generated else {}).items()}
    failures = "\n".join(
        [f"{f.id}: {f.message}" for f in (report.unit.failures if report.unit else ())]
        + ([examples.failures] if examples else [])
        + [g.failures for g in generated[:1]]
    )
    return Executed(
        candidate,
        applied.tree,
        applied.normal_digest or candidate,
        applied.diff_lines,
        gates,
        lint,
        generated,
        outcomes,
        normalise_output(failures),
        (run_id,),
    )


async def _run(space: WorkspaceService, tree: Digest, name: str, code: str, bench: Workbench) -> TestRun | None:
    return await space.run_tests(tree, {f"test_{name}.py": code}, toolchain=bench.toolchain) if code else None


async def _generated(
    bench: Workbench, record: CouncilRecord, space: WorkspaceService, tree: Digest, *, run: bool
) -> tuple[TestRun, ...]:
    if record.tests is None or not run:
        return ()
    code = str(json.loads(await bench.blobs.get(record.tests))["code"])
    runs = [await _run(space, tree, "generated", code, bench) for _ in range(2)]
    return tuple(r for r in runs if r is not None)


def _filter(record: CouncilRecord, executed: list[Executed]) -> TestsFiltered:
    """Which generated tests can be believed (CN-33)."""
    ran = [e for e in executed if e.generated]
    names = list(dict.fromkeys(name for e in ran for name in e.generated[0].signature))
    dropped: list[DroppedTest] = []
    for name in names:
        reason = _invalid(name, ran)
        if reason:
            dropped.append(DroppedTest(test=name, reason=reason))
    bad = {d.test for d in dropped}
    trusted = bool(names) and len(dropped) * 2 <= len(names)
    return TestsFiltered(
        council_id=record.opened.council_id,
        kept=tuple(n for n in names if n not in bad) if trusted else (),
        dropped=tuple(dropped),
        trusted=trusted,
    )


def _invalid(name: str, ran: list[Executed]) -> str | None:
    outcomes = [(e.generated[0].signature.get(name), e.generated[1].signature.get(name)) for e in ran]
    if any(first != second for first, second in outcomes):
        return "different results on two runs of one candidate"
    if any(first in (None, "not_collected") for first, _ in outcomes):
        return "cannot be collected"
    if all(first != "passed" for first, _ in outcomes):
        return "failed by every candidate"
    return None


def _evidence(executed: list[Executed], filtered: TestsFiltered, *, number: int) -> list[Evidence]:
    kept = set(filtered.kept)
    clusters = {e.candidate: _cluster(e, kept) for e in executed if e.gates_ok}
    normal = {e.candidate: e.normal for e in executed}
    found: list[Evidence] = []
    for e in executed:
        cluster = clusters.get(e.candidate, e.candidate)
        size = sum(c == cluster or normal[k] == e.normal for k, c in clusters.items()) or 1
        passed = sum(e.outcomes.get(f"test/{name}") == "passed" for name in kept)
        found.append(
            Evidence(
                candidate_id=EntityId(e.candidate),
                round=number,
                tree_digest=e.tree,
                gates=e.gates,
                gates_ok=e.gates_ok,
                trusted_passed=passed,
                trusted_total=len(kept),
                cluster_id=cluster[:40],
                cluster_size=size,
                lint_errors=e.lint_errors,
                diff_lines=e.diff_lines,
                run_ids=e.runs,
            )
        )
    return found


def _cluster(e: Executed, kept: set[str]) -> str:
    shared = {k: v for k, v in e.outcomes.items() if k.startswith("example/") or k.removeprefix("test/") in kept}
    return digest_of_json(shared).hex[:16] if shared else e.candidate


async def repair_round(bench: Workbench, record: CouncilRecord, owed: due.OwedRepairs) -> None:
    """Each author had one chance to repair; a version that is not strictly better is not kept (CN-41, CN-42)."""
    await together(_repair(bench, record, candidate, number=owed.round) for candidate in owed.candidates)


async def _repair(bench: Workbench, record: CouncilRecord, candidate: str, *, number: int) -> None:
    council_id, old = record.opened.council_id, record.evidence[candidate]
    author = next(m for m in record.opened.roster if m.member_id == record.author_of(candidate))
    before = await _execute(bench, record, candidate, number=old.round, content=record.drafts[candidate].content)
    value = json.loads(await bench.blobs.get(record.drafts[candidate].content))
    code = "\n\n".join(str(e["content"]) for e in value["edits"])
    name = f"repair/{number}/{candidate}"
    content, new, reason = record.drafts[candidate].content, None, "the author gave no usable repair"
    try:
        answer = await ask_member(
            bench,
            record,
            author,
            "repair",
            step=name,
            shared=await material(bench, record),
            own=f"Your code:\n{code}\n\nIt fails:\n{before.failures[:2500]}",
            target_paths=await task_paths(bench, record),
        )
        content = await bench.blobs.put(canonical_json(answer.value))
        new = await _execute(bench, record, candidate, number=number, content=content)
    except ModelError as error:
        if error.retry is Retry.LATER:
            raise
    payloads: list[Payload] = []
    kept = "old"
    if new is not None:
        filtered = record.filtered
        assert filtered is not None
        measured = _evidence([new], filtered, number=number)[0]
        measured = measured.model_copy(update={"cluster_size": _joined(record, candidate, measured)})
        kept = "new" if _better(measured, old) else "old"
        reason = "strictly better evidence" if kept == "new" else "its evidence is not strictly better"
        if kept == "new":
            payloads.append(EvidenceRecorded(council_id=council_id, round=number, evidence=measured))
    repaired = RepairReceived(
        council_id=council_id,
        round=number,
        candidate_id=EntityId(candidate),
        new_digest=content,
        kept=kept,  # pyright: ignore[reportArgumentType]
        reason=reason,
    )
    await bench.journal.record(f"{council_id}/{name}/received", repaired, *payloads, actor=author.principal)


def _joined(record: CouncilRecord, candidate: str, measured: Evidence) -> int:
    same = [
        e for k, e in record.evidence.items() if k != candidate and e.gates_ok and e.cluster_id == measured.cluster_id
    ]
    return len(same) + 1


def _better(new: Evidence, old: Evidence) -> bool:
    return _rank(new) > _rank(old)


def _rank(e: Evidence) -> tuple[bool, int, int, int]:
    return (e.gates_ok, sum(g.ok for g in e.gates), e.trusted_passed, -e.lint_errors)
