"""Task sets of the solve benchmark: own form, HumanEval and MBPP style. What is wrong is named with file and line."""

from __future__ import annotations

import json
import posixpath
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet.bench.service.source import arguments_in, examples_in, without_examples
from fleet.bench.task import SOLUTION, BenchTask, HiddenTests, SolveTask
from fleet.kernel.errors import InvalidInput
from fleet.kernel.types import Frozen
from fleet.trees.tree import check_path

MAX_SET_BYTES = 64 << 20
"""Of a task set after unpacking, in bytes."""
MAX_TASKS = 10_000
_TEXT = 200_000
_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,99}$"

FolderReader = Callable[[str], Mapping[str, bytes]]
"""The files of a folder that a task names, by path below it; InvalidInput when it cannot be read."""


class _HumanEval(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    task_id: str = Field(min_length=1, max_length=200)
    prompt: str = Field(min_length=1, max_length=_TEXT)
    entry_point: str = Field(pattern=_NAME)
    test: str = Field(min_length=1, max_length=_TEXT)
    canonical_solution: str = Field(default="", max_length=_TEXT)


class _Mbpp(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    task_id: int | str
    text: str = Field(min_length=1, max_length=_TEXT)
    code: str = Field(default="", max_length=_TEXT)
    test_list: tuple[str, ...] = Field(min_length=1, max_length=200)
    test_setup_code: str = Field(default="", max_length=_TEXT)
    challenge_test_list: tuple[str, ...] = ()


class _OwnHidden(Frozen):
    tests: tuple[str, ...] = Field(default=(), max_length=200)
    folder: str | None = None
    """Folder whose files are laid over the repository for the judge."""
    command: tuple[str, ...] = Field(default=(), max_length=64)


class _Own(Frozen):
    task_id: str = Field(min_length=1, max_length=200)
    prompt: str = Field(min_length=1, max_length=_TEXT)
    entry_point: str = Field(default="", pattern=rf"^$|{_NAME}")
    setup: str = Field(default="", max_length=_TEXT)
    visible: tuple[str, ...] = Field(default=(), max_length=200)
    hidden: _OwnHidden | tuple[str, ...]
    solution: str = Field(default="", max_length=_TEXT)
    repository: str | None = None
    targets: tuple[str, ...] = Field(default=(), max_length=50)
    command: tuple[str, ...] = Field(default=(), max_length=64)


def plain_bytes(data: bytes, *, source: str) -> bytes:
    """The bytes, unpacked when they are gzip; InvalidInput when they are too large or damaged."""
    if data[:2] == b"\x1f\x8b":
        unpacking = zlib.decompressobj(wbits=31)
        try:
            data = unpacking.decompress(data, MAX_SET_BYTES + 1)
        except zlib.error as error:
            raise InvalidInput(f"{source} is no whole gzip file: {error}", file=source) from error
        if len(data) <= MAX_SET_BYTES and not unpacking.eof:
            raise InvalidInput(f"{source} is no whole gzip file: its end is missing", file=source)
    if len(data) > MAX_SET_BYTES:
        raise InvalidInput(f"{source} holds more than {MAX_SET_BYTES >> 20} MB of tasks: split it", file=source)
    return data


def parse_lines(data: bytes, *, source: str, folder: FolderReader) -> tuple[BenchTask, ...]:
    """The tasks of a JSONL file (plain or gzip), one object a line; the form is seen from the fields.

    Raises:
        InvalidInput: a line is no task; file and line are named, and nothing of the set is returned.
    """
    documents: list[tuple[str, Any]] = []
    try:
        lines = plain_bytes(data, source=source).decode().split("\n")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{source} is no UTF-8 text: {error}", file=source) from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{source} line {number}"
            try:
                documents.append((where, json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise InvalidInput(f"{where} is no JSON: {error}", file=source, line=number) from error
    return _tasks(documents, source, folder)


def parse_documents(document: Any, *, source: str, folder: FolderReader) -> tuple[BenchTask, ...]:
    """The tasks of a document `{format: 1, tasks: [...]}`, as YAML holds it. Raises InvalidInput."""
    known = cast(dict[str, Any], document) if isinstance(document, dict) else {}
    tasks = known.get("tasks")
    if known.get("format") != 1 or not isinstance(tasks, list) or known.keys() - {"format", "tasks"}:
        raise InvalidInput(f"{source} must hold `format: 1` and a list `tasks`, nothing else", file=source)
    entries = cast(list[Any], tasks)
    return _tasks([(f"{source} task {n}", entry) for n, entry in enumerate(entries, start=1)], source, folder)


def _tasks(documents: list[tuple[str, Any]], source: str, folder: FolderReader) -> tuple[BenchTask, ...]:
    if not 0 < len(documents) <= MAX_TASKS:
        raise InvalidInput(f"{source} holds {len(documents)} tasks; 1..{MAX_TASKS} are possible", file=source)
    tasks = [_task(value, where, folder) for where, value in documents]
    seen: set[str] = set()
    for task in tasks:
        if task.public.task_id in seen:
            raise InvalidInput(f"{source} holds task {task.public.task_id!r} twice", file=source)
        seen.add(task.public.task_id)
    return tuple(tasks)


def _task(value: Any, where: str, folder: FolderReader) -> BenchTask:
    if not isinstance(value, dict):
        raise InvalidInput(f"{where} is no object with the fields of a task", where=where)
    fields = cast(dict[str, Any], value)
    try:
        if "test_list" in fields:
            text = fields.get("text", fields.get("prompt"))
            return _of_mbpp(_Mbpp.model_validate({**fields, "text": text}), where)
        if "test" in fields:
            return _of_human_eval(_HumanEval.model_validate(fields))
        return _of_own(_Own.model_validate(fields), where, folder)
    except ValidationError as error:
        found = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors(include_url=False)]
        raise InvalidInput(f"{where} is no task: {'; '.join(found[:5])}", where=where, problems=found) from error


def _of_human_eval(found: _HumanEval) -> BenchTask:
    examples = examples_in(found.prompt, found.entry_point)
    setup = _before(found.prompt, found.entry_point)
    solution = f"{found.prompt}{found.canonical_solution}" if found.canonical_solution else ""
    return BenchTask(
        public=SolveTask(
            task_id=found.task_id,
            prompt=_complete(found.prompt, found.entry_point),
            blind_prompt=_complete(without_examples(found.prompt, found.entry_point), found.entry_point),
            entry_point=found.entry_point,
            setup=setup,
            visible=tuple(dict.fromkeys(e.test for e in examples)),
        ),
        hidden=HiddenTests(tests=(f"{found.test}\n\ncheck({found.entry_point})\n",), setup=setup),
        solution=solution,
    )


def _before(prompt: str, entry_point: str) -> str:
    """Imports and helper functions that stand above the function."""
    found = re.search(rf"^(?:async )?def {entry_point}\b", prompt, re.MULTILINE)
    return prompt[: found.start()] if found else ""


def _complete(prompt: str, entry_point: str) -> str:
    return f"Complete the function {entry_point}.\n\n{prompt.strip()}"


def _of_mbpp(found: _Mbpp, where: str) -> BenchTask:
    entry_point = _called(found.test_list[0])
    if not entry_point:
        raise InvalidInput(f"{where} is no task: its first test calls no function", where=where)
    visible = found.test_list[:1]
    # A task of this form has no signature: without the number of arguments nobody could solve it blind.
    arguments = arguments_in(found.test_list[0], entry_point)
    blind = f"{found.text}\n\nThe function is named {entry_point} and takes {arguments} argument(s)."
    return BenchTask(
        public=SolveTask(
            task_id=f"MBPP/{found.task_id}" if isinstance(found.task_id, int) else found.task_id,
            prompt=f"{blind}\nIt must pass this test:\n{visible[0]}",
            blind_prompt=blind,
            entry_point=entry_point,
            setup=found.test_setup_code,
            visible=visible,
        ),
        hidden=HiddenTests(tests=(*found.test_list, *found.challenge_test_list), setup=found.test_setup_code),
        solution=found.code,
    )


def _called(test: str) -> str:
    names = re.findall(r"([A-Za-z_][A-Za-z0-9_]*)\s*\(", test)
    outer = frozenset({"assert", "set", "sorted", "list", "tuple", "round", "str", "int", "float", "abs", "not", "len"})
    return next((name for name in names if name not in outer), "")


def _of_own(found: _Own, where: str, folder: FolderReader) -> BenchTask:
    hidden = found.hidden if isinstance(found.hidden, _OwnHidden) else _OwnHidden(tests=found.hidden)
    if found.repository is None:
        return _own_function(found, hidden, where)
    if found.entry_point or not found.command or not found.targets:
        raise InvalidInput(
            f"{where} is no task: a repository task has `command` and `targets`, and no `entry_point`", where=where
        )
    files = dict(folder(_inside(found.repository, where)))
    judged = dict(folder(_inside(hidden.folder, where))) if hidden.folder else {}
    if not (judged or hidden.command):
        raise InvalidInput(f"{where} is no task: it has no hidden folder and no hidden command", where=where)
    # What judges never lies in the tree of an arm, even where the set's author left it there under some name.
    secret = {data for data in judged.values() if data.strip()}
    shown = {path: data for path, data in files.items() if data not in secret}
    public = SolveTask(
        task_id=found.task_id,
        prompt=found.prompt,
        blind_prompt=found.prompt,
        files=shown,
        targets=tuple(check_path(p) for p in found.targets),
        command=found.command,
    )
    return BenchTask(public=public, hidden=HiddenTests(files=judged, command=hidden.command or found.command))


def _own_function(found: _Own, hidden: _OwnHidden, where: str) -> BenchTask:
    if not found.entry_point:
        raise InvalidInput(f"{where} is no task: it names neither an `entry_point` nor a `repository`", where=where)
    if not hidden.tests or hidden.folder or hidden.command or found.command or found.targets:
        raise InvalidInput(
            f"{where} is no task: a function has a list of `hidden` tests, and no folder, command or targets",
            where=where,
        )
    listed = "\n".join(found.visible)
    shown = f"{found.prompt.rstrip()}\n\nIt must pass these tests:\n{listed}" if listed else found.prompt
    return BenchTask(
        public=SolveTask(
            task_id=found.task_id,
            prompt=shown,
            blind_prompt=without_examples(found.prompt, found.entry_point),
            entry_point=found.entry_point,
            setup=found.setup,
            visible=found.visible,
            targets=(SOLUTION,),
        ),
        hidden=HiddenTests(tests=hidden.tests, setup=found.setup),
        solution=found.solution,
    )


def _inside(path: str, where: str) -> str:
    try:
        return check_path(posixpath.normpath(path))
    except InvalidInput as error:
        raise InvalidInput(f"{where} names a folder outside the task set: {path[:80]!r}", where=where) from error
