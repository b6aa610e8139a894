"""A change of a repository in one reply: a fenced block for each file, whole or as replacements."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from fleet.kernel.errors import InvalidInput, ReplyMalformed
from fleet.kernel.types import Frozen
from fleet.models.replies.code_reply import NO_CODE, code_blocks
from fleet.trees.tree import check_path

_SEARCH = re.compile(r"^<{5,9} ?SEARCH[ \t]*$", re.MULTILINE)
_NO_PATH = "a block names no file: write `file: PATH` on the line before it"


class FileEdit(Frozen):
    """What a reply does to one file."""

    path: str
    mode: Literal["file", "replace"]
    """`file`: `content` is the whole file. `replace`: `content` is one or more SEARCH/REPLACE parts."""
    content: str


def change_of(text: str) -> dict[str, Any]:
    """`{"edits": [{"path", "mode", "content"}]}` of a reply, one edit for each file.

    Blocks without a file are passed over where others name one: they show commands or examples.

    Raises:
        ReplyMalformed: no block, no block that names a file, a path outside of the repository, or one file whole in two
            blocks. `problems` holds what to tell the model.
    """
    blocks = code_blocks(text)
    named = [block for block in blocks if block.path is not None]
    if not named:
        problem = _NO_PATH if blocks else NO_CODE.replace("```python", "```")
        raise ReplyMalformed(problem, problems=[problem])
    problems: list[str] = []
    edits: dict[str, FileEdit] = {}
    for block in named:
        path = _plain(str(block.path))
        if path is None:
            problems.append(f"{str(block.path)[:80]} is no path inside the repository")
            continue
        mode = "replace" if _SEARCH.search(block.content) else "file"
        before = edits.get(path)
        if before is not None and "file" in (mode, before.mode):
            problems.append(f"two blocks are for {path}: put everything for a file into one block")
            continue
        content = block.content if before is None else before.content + block.content
        edits[path] = FileEdit(path=path, mode=mode, content=content)
    if problems:
        raise ReplyMalformed("; ".join(problems), problems=problems)
    return {"edits": [edit.model_dump() for edit in edits.values()]}


def _plain(path: str) -> str | None:
    try:
        return check_path(path.removeprefix("./"))
    except InvalidInput:
        return None


def edits_in(value: dict[str, Any]) -> Sequence[FileEdit]:
    """The edits of a value that `change_of` made."""
    return [FileEdit.model_validate(edit) for edit in value["edits"]]
