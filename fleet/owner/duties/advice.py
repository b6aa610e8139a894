"""Councils on request: what their members are shown, how they answer, what is measured of that (CN-13, CN-31).

They advise: nothing here changes the story, and the story does nothing with what comes of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fleet.council.request import KeptRequest
from fleet.council.state import SUBJECT_ID
from fleet.events.council import Evidence, EvidenceGate
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import ArtifactNotFound
from fleet.kernel.ids import Digest, EntityId
from fleet.models.replies.replies import addressed_schema, advice_schema
from fleet.owner.duties.members import Sitting
from fleet.owner.workbench import Workbench
from fleet.planning.tasks import DerivedPlan, derivation_schema, validate_derivation
from fleet.story.guards import passing_tree
from fleet.story.state import CouncilRecord, StoryState
from fleet.story.tool_steps import known_trees
from fleet.trees.service import file_text, read_tree
from fleet.trees.tree import changed_paths

_SHOWN = 12_000
"""Characters of a subject that voters are shown."""


async def kept_request(bench: Workbench, record: CouncilRecord) -> KeptRequest | None:
    """What the council was asked; None of one that the story convened itself."""
    digest = record.opened.request_digest
    return None if digest is None else KeptRequest.from_json(json.loads(await bench.blobs.get(digest)))


def question(asked: KeptRequest) -> str:
    """What members and voters are told of the request: the same bytes for all of them."""
    constraints = asked.request.constraints
    rubric = [f"- {entry.name} (weight {entry.weight}): {entry.text}" for entry in constraints.rubric]
    parts = [f"The question:\n<question>\n{asked.request.task_description}\n</question>"]
    if asked.requirements:
        parts.append("It requires:\n" + "\n".join(f"- {name}: {text}" for name, text in asked.requirements))
    return "\n\n".join([*parts, "It is judged by:\n" + "\n".join(rubric)])


def draft_form(asked: KeptRequest) -> dict[str, Any]:
    """The form of a text that a member proposes."""
    return advice_schema(asked.refs)


def evidence_of_text(candidate: str, value: dict[str, Any], refs: Sequence[str]) -> Evidence:
    """A text is checked by form: it says something, and how each requirement and criterion is met (CN-31)."""
    text = " ".join(str(value["text"]).split())
    addressed = {str(entry["ref"]) for entry in value.get("addressed", ()) if str(entry["how"]).strip()}
    gates = (
        EvidenceGate(name="text", ok=bool(text)),
        EvidenceGate(name="requirements", ok=set(refs) <= addressed),
    )
    return _evidence(candidate, gates, cluster=digest_of_json([text]).hex[:16])


def plan_form(bench: Workbench, asked: KeptRequest) -> dict[str, Any]:
    """The form of a plan that a member proposes: what a planner answers, and how it meets what the request demands."""
    rules = bench.rules
    form = derivation_schema([name for name, _ in asked.criteria], rules.assignable_roles, rules.planning)
    demanded = [name for name, _ in asked.requirements]
    if not demanded:
        return form
    properties = {**form["properties"], "addressed": addressed_schema(demanded)}
    return {**form, "properties": properties, "required": list(properties)}


def evidence_of_plan(bench: Workbench, candidate: str, value: dict[str, Any], asked: KeptRequest) -> Evidence:
    """A plan is checked by the rules of every plan, and by what the request demands (CN-31, PL-20, PL-30)."""
    validated = validate_derivation(
        {"tasks": value["tasks"]},
        acceptance_ids=tuple(EntityId(name) for name, _ in asked.criteria),
        decision_ids=[k for k, d in bench.state.decisions.items() if d.status == "ACCEPTED"],
        assignable_roles=bench.rules.assignable_roles,
        config=bench.rules.planning,
    )
    met = {str(entry["ref"]) for entry in value.get("addressed", ()) if str(entry["how"]).strip()}
    gates = (
        EvidenceGate(name="plan", ok=isinstance(validated, DerivedPlan)),
        EvidenceGate(name="requirements", ok={name for name, _ in asked.requirements} <= met),
    )
    return _evidence(candidate, gates, cluster=digest_of_json(value["tasks"]).hex[:16])


def plan_text(value: dict[str, Any]) -> str:
    """A proposed plan as voters see it: one paragraph for each task."""
    parts: list[str] = []
    for number, task in enumerate(value["tasks"]):
        needs = ", ".join(map(str, task["depends_on"])) or "none"
        serves = ", ".join(map(str, task["acceptance_refs"]))
        told = f"{task['role']}, {task['kind']}, {task['estimated_hours']} h, needs {needs}, serves {serves}"
        parts.append(f"Task {number}: {task['title']} ({told})\n{task['description']}")
    parts += [f"{entry['ref']}: {entry['how']}" for entry in value.get("addressed", ())]
    return "\n\n".join(parts)


def evidence_of_subject(state: StoryState, subject: Digest) -> Evidence:
    """What is on record of the subject of a gate: of a tree its report and verdict, of a text that it is there."""
    gates = [EvidenceGate(name="recorded", ok=True)]
    report = state.reports.get(subject)
    if report is not None:
        gates.append(EvidenceGate(name="build", ok=report.summary.build_ok is True, run_id=report.run_id))
        gates.append(EvidenceGate(name="verdict", ok=passing_tree(state, subject), run_id=report.run_id))
    evidence = _evidence(SUBJECT_ID, tuple(gates), cluster=subject.hex[:16])
    return (
        evidence
        if report is None
        else evidence.model_copy(update={"tree_digest": subject, "run_ids": (report.run_id,)})
    )


def _evidence(candidate: str, gates: tuple[EvidenceGate, ...], *, cluster: str) -> Evidence:
    return Evidence(
        candidate_id=EntityId(candidate),
        round=0,
        gates=gates,
        gates_ok=all(g.ok for g in gates),
        trusted_passed=0,
        trusted_total=0,
        cluster_id=cluster,
        cluster_size=1,
        lint_errors=0,
        diff_lines=0,
    )


async def subject_text(sitting: Sitting, subject: Digest) -> str:
    """The subject of a gate as voters see it: what a tree changed, or the text itself, cut where it is too long."""
    bench = sitting.bench
    is_tree = subject in bench.state.reports or subject in known_trees(bench.state)
    text = await (_tree_text(bench, subject) if is_tree else _blob_text(bench, subject))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}\n[{len(text) - _SHOWN} more characters are not shown]"


async def _tree_text(bench: Workbench, tree: Digest) -> str:
    base = bench.state.base_tree
    assert base is not None, "a council begins after the base was read"
    before, after = await read_tree(bench.blobs, base), await read_tree(bench.blobs, tree)
    changes = changed_paths(before, after)
    parts, shown = ["\n".join(f"{c.change} {c.path}" for c in changes) or "It changes nothing."], 0
    for change in changes:
        if shown > _SHOWN or change.change == "removed":
            continue
        content = await file_text(bench.blobs, after, change.path, limit=_SHOWN)
        parts.append(f"File {change.path}:\n{content or 'It is no text.'}")
        shown += len(content or "")
    return "\n\n".join(parts)


async def _blob_text(bench: Workbench, subject: Digest) -> str:
    try:
        return (await bench.blobs.get(subject)).decode(errors="replace")
    except ArtifactNotFound:
        return "Its text is not kept any more."
