"""A change of the repository in one reply: what its author is shown, and the files that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fleet.engineering.changes import blocked_by
from fleet.engineering.one_reply import Made, make_files
from fleet.engineering.shown import is_binary, untrusted
from fleet.engineering.terms import BYTES_PER_TOKEN
from fleet.events.council import RosterMember
from fleet.kernel.errors import ReplyMalformed
from fleet.kernel.ids import Digest
from fleet.models.replies.change_reply import FileEdit, edits_in
from fleet.owner.duties.members import Sitting, request_of, task_paths, work_of
from fleet.owner.duties.texts import WHOLE_FILE
from fleet.owner.engineering.seats import Delivered, candidate_of, facts_of, shared_material
from fleet.trees.service import file_text, read_changes, read_tree, signatures
from fleet.trees.tree import FileEntry, Tree, encode_tree

_SHOWN_PERCENT = 40
"""Of the window, for the files themselves; the rest is for pack, listing, rules and the reply."""
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
) -> Delivered:
    """The candidate that the member's reply makes of the files of `base`. Blocks that do not fit are told once.

    Args:
        step: name of the reply below its council; the second one is named `<step>/again`.
        own: what this reply alone is told.

    Raises:
        ReplyMalformed: twice no blocks that fit, or no change.
    """
    bench, tokens = sitting.bench, 0
    tree = await read_tree(bench.blobs, base)
    shown = await _shown(sitting, member, base, tree)
    shared = f"{await shared_material(sitting, base)}\n\n{shown}"
    told = own
    for name in (step, f"{step}/again"):
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
        if not made.problems:
            candidate = await candidate_of(bench, await _stored(sitting, tree, made), _subject(sitting))
            if candidate is not None:
                return Delivered(candidate, tokens)
        problems = made.problems or ("it leaves the repository as it was before the task",)
        listed = "\n".join(f"- {problem}" for problem in problems)
        again = f"Your last change was not made, because:\n{untrusted(listed)}\nWrite the whole change again."
        told = "\n\n".join(part for part in (own, again) if part)
    raise ReplyMalformed(f"the change of {member.member_id} does not fit: {'; '.join(problems)[:500]}")


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
