"""Texts that procedures put into prompts and files. The same story, tree and attempt give the same bytes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from fleet.context.item import fence
from fleet.context.port import CountRequest, Pack, PackRequest, Packs
from fleet.context.token_counter import ESTIMATE
from fleet.engineering.terms import BYTES_PER_TOKEN
from fleet.events.context import ContextPackBuilt, DroppedScope
from fleet.events.decision import DecisionRejected
from fleet.kernel.errors import FleetError
from fleet.kernel.ids import CommandId, Digest, EntityId
from fleet.models.profiles import USUAL_LINK
from fleet.owner.workbench import Workbench
from fleet.trees.service import file_text, is_test, outline, read_tree, signatures

_FILE_PERCENT = 15
"""Of the window: a longer file is shown to a developer by what it defines, and not by all of its text."""


SHOWN_FILES = 30
"""Sources of the repository that a prompt names; in a larger one those are chosen that the story is about."""


WHOLE_FILE = 200_000
"""Characters of a file that are read for its definitions."""


def shown_chars(bench: Workbench, role: str, *, percent: int) -> int:
    """This share of the window, in characters, of the engine that is asked first for the role (MB-44)."""
    budgeting, roles = bench.journal.budgeting, bench.journal.policy.policy.roles
    window = USUAL_LINK.max_context
    if budgeting.models is not None:
        # Who carries the call out says what is wrong with its engines.
        with contextlib.suppress(FleetError):
            own = roles.role(role)
            names = (own.name, *own.lineage)
            window = budgeting.models.chain_for(own.model_policy, bench.model, inherits=names).entries[0].max_context
    return window * percent // 100 * BYTES_PER_TOKEN


async def pack_text(bench: Workbench, role: str, phase: str, task_id: EntityId | None, *, as_of: int = 0) -> str:
    """What this role may see of the story in this phase; that it was shown is on record (CX-6)."""
    request = PackRequest(
        story_id=bench.journal.story_id,
        role=role,
        phase=phase,
        as_of=as_of or bench.state.version,
        task_id=task_id,
    )
    pack = await bench.packs.pack(request)
    name = f"pack/{role}/{phase}/{pack.hash.hex[:16]}"
    if not bench.journal.knows(CommandId(f"{bench.journal.story_id}/{name}")):
        await bench.journal.record(name, _built(bench, name, pack, role, phase, task_id))
    return pack.text


def _built(
    bench: Workbench, name: str, pack: Pack, role: str, phase: str, task_id: EntityId | None
) -> ContextPackBuilt:
    return ContextPackBuilt(
        pack_id=bench.new_id("rp", name),
        as_role=role,
        phase=phase,  # pyright: ignore[reportArgumentType]
        task_id=task_id,
        scopes=pack.scopes,
        token_count=pack.token_count,
        budget=pack.budget,
        hash=pack.hash,
        dropped=tuple(DroppedScope(scope=s, count=n) for s, n in pack.dropped),
        as_of=pack.as_of,
        counter=None if pack.counter == ESTIMATE.name else pack.counter,
    )


class SittingPacks:
    """Port Packs over another one: for as long as a council sits, the same pack is built for it once.

    Each member is asked several times on one pack, which its request alone decides (CX-25).
    """

    def __init__(self, packs: Packs) -> None:
        self._packs, self._kept = packs, dict[PackRequest, Pack]()

    async def pack(self, request: PackRequest) -> Pack:
        """See `Packs.pack`."""
        if request not in self._kept:
            self._kept[request] = await self._packs.pack(request)
        return self._kept[request]

    async def count(self, request: CountRequest) -> int:
        """See `Packs.count`."""
        return await self._packs.count(request)


async def source_paths(bench: Workbench, tree: Digest) -> tuple[str, ...]:
    """The files that work may change: those the story names, else the sources of the repository (30 at most)."""
    named = bench.state.content.constraints.get("paths")
    if isinstance(named, list) and named:
        return tuple(str(p) for p in named)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    files = await read_tree(bench.blobs, tree)
    sources = tuple(sorted(p for p in files if p.endswith(".py") and not is_test(p)))
    return sources if len(sources) <= SHOWN_FILES else await _chosen(bench, tree, sources)


async def _chosen(bench: Workbench, tree: Digest, sources: tuple[str, ...]) -> tuple[str, ...]:
    """As many sources as a prompt shows, in order of path: those that the story is about, then the first ones."""
    chosen: list[str] = []
    if bench.knowledge is not None:
        asked = "\n".join(
            [bench.state.content.title, bench.state.content.description, *(c.text for c in bench.criteria)]
        )
        # What is no source for prompts may stand between those that are.
        ranked = await bench.knowledge.choose_files(tree, asked, limit=4 * SHOWN_FILES)
        paths = frozenset(sources)
        chosen = [file.path for file in ranked if file.path in paths]
    return tuple(sorted([*dict.fromkeys([*chosen, *sources])][:SHOWN_FILES]))


async def design_view(bench: Workbench) -> str:
    """What a designer sees of the repository: each source file with its definitions."""
    assert bench.state.tree is not None
    files = await read_tree(bench.blobs, bench.state.tree)
    sources = tuple(sorted(p for p in files if p.endswith(".py") and not is_test(p)))
    if len(sources) <= SHOWN_FILES:
        return "Repository:\n" + await outline(bench.blobs, files)
    chosen = await _chosen(bench, bench.state.tree, sources)
    return "Repository:\n" + await outline(bench.blobs, files, paths=chosen)


_LAST_REFUSALS = 2


async def refusals_text(bench: Workbench) -> str:
    """The last designs that were turned down, and why. Empty where none was."""
    designs = {k: d.proposed for k, d in bench.state.decisions.items() if d.proposed.category == "ARCHITECTURE"}
    if not any(bench.state.decisions[k].status == "REJECTED" for k in designs):
        return ""
    said = [p for p in await bench.journal.payloads() if isinstance(p, DecisionRejected) and p.decision_id in designs]
    parts = [
        f"The design {designs[p.decision_id].title!r} was turned down: make another one that meets the reason.\n"
        f"It was:\n{designs[p.decision_id].rationale}\n" + fence(p.reason, origin="whoever turned it down")
        for p in said[-_LAST_REFUSALS:]
    ]
    return "".join(f"\n\n{part}" for part in parts)


async def task_view(bench: Workbench, paths: tuple[str, ...], *, role: str = "developer") -> str:
    """What a developer sees of the repository: the files to change as they are now."""
    assert bench.state.tree is not None
    files = await read_tree(bench.blobs, bench.state.tree)
    most = shown_chars(bench, role, percent=_FILE_PERCENT)
    parts: list[str] = []
    for path in paths:
        text = await file_text(bench.blobs, files, path, limit=WHOLE_FILE)
        if text is None:
            parts.append(f"File {path} does not exist yet.")
        elif len(text) > most:
            parts.append(f"File {path} is long; it defines:\n{signatures(text)}")
        else:
            parts.append(f"File {path}:\n{text}")
    return "\n\n".join(parts)


def examples_module(constraints: Mapping[str, Any]) -> str:
    """A test module made from `constraints.examples`; empty when the story gives none.

    The expressions are the requester's own words; they are evaluated inside the sandbox only.
    """
    examples = _examples(constraints)
    if not examples:
        return ""
    lines = [str(examples.get("import", "")).strip(), ""]
    for number, case in _cases(examples):
        lines += ["", f"def test_example_{number}():", f"    assert {case.get('call')} == {case.get('equals')}", ""]
    return "\n".join(lines).strip() + "\n"


def example_criteria(constraints: Mapping[str, Any], criteria: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Test of `examples_module` -> the criteria that its case names under `criterion`: one id, or a list of them."""
    named: dict[str, tuple[str, ...]] = {}
    for number, case in _cases(_examples(constraints)):
        said: Any = case.get("criterion", ())
        ids = cast("list[Any]", said) if isinstance(said, list) else [said]
        if about := tuple(ac_id for ac_id in criteria if ac_id in ids):
            named[f"test_example_{number}"] = about
    return named


def _examples(constraints: Mapping[str, Any]) -> Mapping[str, Any]:
    examples = constraints.get("examples")
    return cast("Mapping[str, Any]", examples) if isinstance(examples, Mapping) else {}


def _cases(examples: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The cases with their numbers, from 1; what is no mapping is passed over."""
    cases: Any = examples.get("cases", [])
    for number, case in enumerate(cast("list[Any]", cases) if isinstance(cases, list) else [], 1):
        if isinstance(case, Mapping):
            yield number, cast("Mapping[str, Any]", case)


async def test_path(bench: Workbench, tree: Digest, title: str) -> str:
    """Where new tests of a task go: beside the tests that are there, else below tests/."""
    files = await read_tree(bench.blobs, tree)
    folders = [p.rsplit("/", 1)[0] if "/" in p else "" for p in files if is_test(p) and p.endswith(".py")]
    folder = max(sorted(set(folders)), key=folders.count) if folders else "tests"
    slug = "_".join(re.findall(r"[a-z0-9]+", title.lower()))[:40].strip("_") or "task"
    stem = f"{folder}/test_{slug}" if folder else f"test_{slug}"
    number, path = 1, f"{stem}.py"
    while path in files:
        number += 1
        path = f"{stem}_{number}.py"
    return path
