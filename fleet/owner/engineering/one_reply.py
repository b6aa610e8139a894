"""A change of the repository in one reply: what its author is shown, and the files that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fleet.engineering.changes import blocked_by
from fleet.engineering.one_reply import Made, make_files
from fleet.engineering.shown import is_binary, untrusted
from fleet.engineering.terms import BYTES_PER_TOKEN
from fleet.events.council import RosterMember
from fleet.kernel.digest import digest_of, digest_of_json
from fleet.kernel.errors import ReplyMalformed
from fleet.kernel.ids import Digest, StepId
from fleet.models.replies.change_reply import FileEdit, edits_in
from fleet.owner.duties.members import Sitting, request_of, task_paths, work_of
from fleet.owner.duties.texts import WHOLE_FILE
from fleet.owner.engineering.desk import new_syntax_errors
from fleet.owner.engineering.seats import Delivered, candidate_of, facts_of, shared_material
from fleet.owner.journal.steps import Computed
from fleet.trees.service import file_text, read_changes, read_tree, signatures
from fleet.trees.tree import FileEntry, Tree, encode_tree

_SHOWN_PERCENT = 40
"""Of the window, for the files themselves; the rest is for pack, listing, rules and the reply."""
_MOST_READ = 2 << 20
_MOST_CHOSEN = 12
"""Files that are shown where nobody named any: those that the task seems to be about."""


async def change(
    sitting: Sitting,
    member: RosterMember,
    *,
    step: str,
    base: Digest,
    own: str = "",
    temperature: str | None = None,
    draw: int = 0,
    must_parse: bool = False,
) -> Delivered:
    """The candidate that the member's reply makes of the files of `base`. Blocks that do not fit are told once.

    Args:
        step: name of the reply below its council; the second one is named `<step>/again`.
        own: what this reply alone is told.
        must_parse: a reply after which a file is no valid code any more does not fit.

    Raises:
        ReplyMalformed: twice no blocks that fit, or no change.
    """
    bench, tokens = sitting.bench, 0
    tree = await read_tree(bench.blobs, base)
    shown = await _shown(sitting, member, base, tree)
    shared = f"{await shared_material(sitting, base)}\n\n{shown}"
    told = own
    problems: Sequence[str] = ("the council is over",)
    for name in (step, f"{step}/again"):
        if must_parse and sitting.is_closing and not is_done(sitting, name):
            break
        request = await request_of(
            bench, sitting.record, member, "change", shared=shared, own=told, temperature=temperature, draw=draw
        )
        output = facts_of(bench, member).output
        request = replace(request, sampling=request.sampling.model_copy(update={"max_tokens": output}))
        # For policy and budgets it is a draft, however it is written.
        work = work_of(sitting.record, member, "draft")
        answer = await bench.journal.ask(f"{sitting.council_id}/{name}", request, work)
        tokens += answer.usage.tokens_in + answer.usage.tokens_out
        made = await _made(sitting, tree, edits_in(answer.value))
        if must_parse and not made.problems:
            made = made._replace(problems=await _unparsed(sitting, member, name, tree, made))
        if not made.problems:
            candidate = await candidate_of(bench, await _stored(sitting, tree, made), _subject(sitting))
            if candidate is not None:
                return Delivered(candidate, tokens)
        problems = made.problems or ("it leaves the repository as it was before the task",)
        listed = "\n".join(f"- {problem}" for problem in problems)
        again = f"Your last change was not made, because:\n{untrusted(listed)}\nWrite the whole change again."
        told = "\n\n".join(part for part in (own, again) if part)
    raise ReplyMalformed(f"the change of {member.member_id} does not fit: {'; '.join(problems)[:500]}")


def is_done(sitting: Sitting, step: str) -> bool:
    """Whether this step of the council has its result."""
    record = sitting.bench.state.steps.get(StepId(f"{sitting.council_id}/{step}"))
    return record is not None and record.finished is not None


async def _unparsed(sitting: Sitting, member: RosterMember, name: str, tree: Tree, made: Made) -> tuple[str, ...]:
    """What is no valid code any more. It is on record: whoever reads the files again may have less time."""
    blobs = sitting.bench.blobs

    async def effect() -> Computed:
        texts = {
            path: (await file_text(blobs, tree, path, limit=_MOST_READ) or "", text)
            for path, text in made.texts.items()
        }
        return Computed({"problems": await new_syntax_errors(texts)})

    work = replace(work_of(sitting.record, member, "draft"), tool="files", op="read", about="whether the change parses")
    request = digest_of_json({"base": digest_of(encode_tree(tree)), "texts": dict(made.texts)})
    recorded = await sitting.bench.journal.compute(f"{sitting.council_id}/{name}/parsed", request, work, effect)
    return tuple(recorded["problems"])


def _subject(sitting: Sitting) -> Digest:
    assert sitting.opened.subject_digest is not None, "councils on tasks are opened on a tree"
    return sitting.opened.subject_digest


async def _shown(sitting: Sitting, member: RosterMember, base: Digest, tree: Tree) -> str:
    """The files that the task is about, whole as far as the engine's window goes, and what longer ones define."""
    bench = sitting.bench
    room = facts_of(bench, member).window * _SHOWN_PERCENT // 100 * BYTES_PER_TOKEN
    parts: list[str] = []
    before, after = await read_changes(bench.blobs, _subject(sitting), base)
    for path in dict.fromkeys([*sorted({*before, *after}), *await _paths(sitting, tree)]):
        text = await file_text(bench.blobs, tree, path, limit=WHOLE_FILE)
        if text is None:
            parts.append(f"File {path} does not exist yet.")
            continue
        part = f"File {path}:\n{untrusted(text)}"
        if len(part) > room:
            part = f"File {path} is long; it defines:\n{untrusted(signatures(text))}"
        if len(part) <= room:
            room -= len(part)
            parts.append(part)
    return "\n\n".join(parts)


async def _paths(sitting: Sitting, tree: Tree) -> tuple[str, ...]:
    """What the task names; else what it seems to be about."""
    bench, named = sitting.bench, await task_paths(sitting.bench, sitting.record)
    is_named = any(path not in tree for path in named) or len(named) <= _MOST_CHOSEN
    if named and is_named:
        return named
    assert sitting.opened.task_id is not None
    if bench.knowledge is None:
        return named[:_MOST_CHOSEN]
    task = bench.state.tasks[sitting.opened.task_id].task
    ranked = await bench.knowledge.choose_files(
        _subject(sitting), f"{task.title}\n{task.description}", limit=_MOST_CHOSEN
    )
    return tuple(file.path for file in ranked if file.path in tree) or named[:_MOST_CHOSEN]


async def _made(sitting: Sitting, tree: Tree, edits: Sequence[FileEdit]) -> Made:
    """The texts of the files after the edits, or what is wrong with these."""
    present: dict[str, str] = {}
    for edit in edits:
        if blocked := blocked_by(tree, edit.path):
            return Made({}, (f"{edit.path}: {blocked}",))
        entry = tree.get(edit.path)
        if entry is None:
            continue
        data = await sitting.bench.blobs.get(entry.blob)
        if is_binary(data) or entry.mode == "120000":
            return Made({}, (f"{edit.path} is no text file, so a reply cannot change it",))
        present[edit.path] = data.decode()
    return make_files(edits, present)


async def _stored(sitting: Sitting, tree: Tree, made: Made) -> Digest:
    blobs, after = sitting.bench.blobs, dict(tree)
    for path, text in made.texts.items():
        mode = tree[path].mode if path in tree else "100644"
        after[path] = FileEntry(mode, await blobs.put(text.encode(errors="replace")))
    return await blobs.put(encode_tree(after))
