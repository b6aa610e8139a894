"""Procedures at the end of a story: documents, report, branch, close (LC-48, PL-43, PL-53, RP-3)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fleet.events.payload import Payload
from fleet.events.report import ReportGenerated
from fleet.events.story import StoryClosed
from fleet.events.task import TreeMerged
from fleet.events.workspace import DocFile, DocsProduced
from fleet.forge.port import Commit
from fleet.kernel.errors import ModelError
from fleet.kernel.ids import Digest, EntityId
from fleet.models.chat import AS_LONG_AS_FITS, Sampling
from fleet.models.port import AgentRequest
from fleet.models.replies.replies import document_schema
from fleet.owner.duties.change_request import open_change_request
from fleet.owner.duties.checkpoints import checkpoint
from fleet.owner.duties.procedure import criteria_evidence, measure, workspace_of
from fleet.owner.duties.push import push_to_source
from fleet.owner.duties.summaries import keep_summary
from fleet.owner.duties.tasks import commit_tree
from fleet.owner.duties.texts import pack_text
from fleet.owner.journal.steps import Work
from fleet.owner.story_repository import hosted_at
from fleet.owner.tools.tool_calls import end_calls
from fleet.owner.workbench import Workbench, seat
from fleet.report.render.runbook import runbook
from fleet.story.intents import CloseStory, GenerateReport, ProduceDocs, Publish

DESIGNER = seat("designer")


async def produce_docs(bench: Workbench, intent: ProduceDocs) -> None:
    """The documents are part of the tree, which was measured again; each criterion names its evidence (LC-48).

    With `artifacts: off` they are in the blob store only, and the tree stays as it is (PL-53).
    """
    state = bench.state
    prefix = bench.anew(f"docs/{Digest(intent.tree).hex[:16]}")
    files = await _documents(bench, prefix)
    tree = Digest(intent.tree)
    if bench.rules.planning.artifacts == "on":
        tree = await _written(bench, tree, files, prefix)
    merged: TreeMerged | None = None
    if state.tree != tree:
        message = f"Document {state.content.title}\n\nStory: {state.story_id}"
        merged = await commit_tree(bench, tree, prefix=prefix, message=message, who=DESIGNER, task_id=None)
    if tree not in bench.state.scores:
        commit = merged.commit if merged else None
        await measure(bench, tree, prefix=f"{prefix}/measure", task_id=None, commit=commit)
    docs = tuple([DocFile(path=p, artifact_digest=await bench.blobs.put(t.encode())) for p, t in files.items()])
    produced = DocsProduced(docs=docs, tree_digest=tree, criteria=criteria_evidence(bench, tree))
    # One append: a tree that moved without its documents would be documented again after a crash, on top of itself.
    name = f"{prefix}/produced"
    payloads: list[Payload] = [merged, produced] if merged else [produced]
    if merged and state.plan_id:
        payloads.append(checkpoint(bench, name, merged, plan_id=EntityId(state.plan_id), note="after the documents"))
    await bench.journal.record(name, *payloads, actor=DESIGNER.principal)


async def _written(bench: Workbench, tree: Digest, files: Mapping[str, str], prefix: str) -> Digest:
    """The tree with the documents in it."""
    work = Work(seat=DESIGNER, tool="files", op="write")
    edits = [{"path": path, "mode": "file", "content": text} for path, text in files.items()]
    applied = await workspace_of(bench, f"{prefix}/write", work).apply(tree, edits, toolchain=bench.toolchain)
    if applied.tree is None:
        raise ModelError(f"the documents could not be written: {'; '.join(applied.problems)}")
    return applied.tree


async def _documents(bench: Workbench, prefix: str) -> dict[str, str]:
    state = bench.state
    folder = f"docs/stories/{state.story_id}"
    decisions = [
        d for d in state.decisions.values() if d.status == "ACCEPTED" and d.proposed.category == "ARCHITECTURE"
    ]
    narrative = await _narrative(bench, prefix)
    files = {
        f"{folder}/requirements.md": _requirements(bench),
        f"{folder}/plan.json": _json(
            [json.loads(t.task.model_dump_json(exclude_none=True)) for t in state.tasks.values()]
        ),
        f"{folder}/design.md": narrative,
        f"{folder}/test-report.json": _json(_test_report(bench)),
    }
    if state.deployments:
        files[f"{folder}/runbook.md"] = runbook(state, bench.rules.targets)
    for number, decision in enumerate(decisions, 1):
        files[f"{folder}/adr/{number:04d}-design.md"] = _adr(number, decision.proposed)
    return files


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _requirements(bench: Workbench) -> str:
    content = bench.state.content
    lines = [f"# {content.title}", "", content.description, "", "## Acceptance criteria", ""]
    lines += [f"- **{c.ac_id}** {c.text}" for c in content.acceptance_criteria]
    return "\n".join(lines) + "\n"


def _adr(number: int, proposed: Any) -> str:
    lines = [
        f"# {number}. {proposed.title}",
        "",
        "Status: accepted",
        "",
        "## Decision",
        "",
        proposed.rationale,
        "",
        "## Alternatives",
        "",
        *([f"- {a}" for a in proposed.alternatives] or ["None were proposed."]),
    ]
    return "\n".join(lines) + "\n"


def _test_report(bench: Workbench) -> dict[str, Any]:
    state = bench.state
    report = state.reports.get(state.tree) if state.tree else None
    score = state.scores.get(state.tree) if state.tree else None
    return {
        "summary": json.loads(report.summary.model_dump_json(exclude_none=True)) if report else {},
        "score": score.score if score else None,
        "verdict": score.verdict if score else None,
    }


async def _narrative(bench: Workbench, prefix: str) -> str:
    title, text, usage = bench.state.content.title, bench.state.content.description, ""
    await keep_summary(bench, DESIGNER.role, "DOCS", before=f"{prefix}/document")
    request = AgentRequest(
        kind="document",
        role=DESIGNER.role,
        principal=DESIGNER.principal,
        shared=await pack_text(bench, "designer", "DOCS", None),
        own="",
        sampling=Sampling(temperature="0", max_tokens=AS_LONG_AS_FITS, seed=1),
        model=bench.model,
        json_schema=document_schema(),
    )
    try:
        answer = await bench.journal.ask(
            f"{prefix}/document", request, Work(seat=DESIGNER, tool="model", op="document")
        )
        title, text, usage = (str(answer.value[k]) for k in ("title", "summary", "usage"))
    except ModelError as error:
        # Documents are made from facts; a model only words them, so a malformed reply must not stop the story.
        if error.retry.value == "later":
            raise
    return f"# {title}\n\n{text}\n" + (f"\n## Usage\n\n{usage}\n" if usage else "")


async def generate_report(bench: Workbench, intent: GenerateReport) -> None:
    """The technical report of the present version is stored and on record (RP-3)."""
    await bench.journal.record(f"report/{bench.state.version}", await _report(bench))


async def _report(bench: Workbench) -> ReportGenerated:
    version = bench.state.version
    digest, report, _ = await bench.reports.generate(bench.journal.story_id, format="md", as_of=version)
    return ReportGenerated(
        report_id=bench.new_id("rp", f"report/{version}"),
        report_digest=digest,
        as_of=version,
        format="md",
        stats=report.stats,
        traceability=report.traceability,
    )


async def publish(bench: Workbench, intent: Publish) -> None:
    """The branch `fleet/<story>` of the repository is at the story's last commit; nothing else changed (PL-43)."""
    state = bench.state
    assert state.start is not None
    assert state.base_commit is not None
    commit = _last_commit(bench, intent.commit)
    branch = f"fleet/{state.story_id}"
    url = state.start.repo.url

    async def send() -> dict[str, Any]:
        if (address := hosted_at(bench)) is None:
            await bench.forge.publish(url, branch, commit, expected_old=None)
        else:
            await push_to_source(bench, address, branch, commit.commit)
        return {"branch": branch, "commit": commit.commit}

    args = {"branch": branch, "commit": commit.commit}
    work = Work(seat=seat("devops"), tool="git", op="push_branch", args=args)
    await bench.journal.act("publish", {**args, "repo": url}, work, send)


def _last_commit(bench: Workbench, commit: str) -> Commit:
    pack, index = Digest("sha256:" + "0" * 64), Digest("sha256:" + "0" * 64)
    for step in bench.state.steps.values():
        for artifact in step.finished.artifacts if step.finished else ():
            if artifact.path == "out/new.pack":
                pack = artifact.artifact_digest
            if artifact.path == "out/new.idx":
                index = artifact.artifact_digest
    assert bench.state.base_commit is not None
    return Commit(commit=commit, base_commit=bench.state.base_commit, pack=pack, pack_index=index)


async def close_story(bench: Workbench, intent: CloseStory) -> None:
    """The story is over: its last report and its end are on record, and its stream leaves the open set."""
    await open_change_request(bench)
    await end_calls(bench)
    report = await _report(bench)
    closed = StoryClosed(final_state=bench.state.state, report_id=report.report_id)
    await bench.journal.record("close", report, closed, closes=True)
