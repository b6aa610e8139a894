"""Code in fenced blocks: which file each block is for, and the tests it defines."""

from __future__ import annotations

import posixpath
import re
from ast import parse
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from fleet.kernel.errors import InvalidInput, ReplyMalformed
from fleet.trees.tree import check_path

_OPEN = re.compile(r"^ {0,3}(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n`]*$")
_PATH = r"[A-Za-z0-9_.\-/]*[A-Za-z0-9_\-]\.[A-Za-z0-9]{1,8}"
_SAID = r"(?:file(?:name)?|path)\s*:\s*"
_ANY_PATH = r"[A-Za-z0-9_.\-/]+"
# Said to be a file, a name needs no ending: Makefile, LICENSE.
_PATH_INSIDE = re.compile(
    rf"^\s*(?:#|//|--|<!--|/\*)\s*(?:{_SAID}(?P<said>{_ANY_PATH})|(?P<path>{_PATH}))\s*(?:-->|\*/)?\s*$", re.I
)
_PATH_BEFORE = re.compile(
    rf"^[\s#>*_\-]*(?:\d+\.\s*)?[`*\"']*(?:{_SAID}[`*\"']*(?P<said>{_ANY_PATH})|(?P<path>{_PATH}))"
    r"[`*\"']*\s*:?\**\s*$",
    re.I,
)
_TEST_NAME = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+(test_\w+)[ \t]*\(", re.MULTILINE)
_NOT_CODE = frozenset({"bash", "sh", "shell", "console", "text", "txt", "plaintext", "output", "diff", "json", "yaml"})
_MOST_CUT = 40
"""Lines that the one statement in which a reply ended may have."""
NO_CODE = "the reply holds no code block: put the code between ```python and ```"


class CodeBlock(NamedTuple):
    """One fenced block: its language, the file it names (if any), and its content with a final newline."""

    language: str
    path: str | None
    content: str


def code_blocks(text: str) -> tuple[CodeBlock, ...]:
    """The fenced blocks in order. A block that is never closed reaches to the end of the text."""
    blocks: list[CodeBlock] = []
    lines = text.replace("\r\n", "\n").split("\n")
    index, before = 0, ""
    while index < len(lines):
        opened = _OPEN.match(lines[index])
        if opened is None:
            before = lines[index] if lines[index].strip() else before
            index += 1
            continue
        end = _closing(lines, index + 1, opened.group(1))
        blocks.append(_block(opened.group(2).lower(), before, lines[index + 1 : end]))
        index, before = end + 1, ""
    return tuple(block for block in blocks if block.content.strip())


def _closing(lines: Sequence[str], start: int, fence: str) -> int:
    for index in range(start, len(lines)):
        stripped = lines[index].strip()
        if len(stripped) >= len(fence) and set(stripped) == {fence[0]}:
            return index
    return len(lines)


def _block(language: str, before: str, body: list[str]) -> CodeBlock:
    path: str | None = None
    if body and (inside := _PATH_INSIDE.match(body[0])):
        path, body = inside["said"] or inside["path"], body[1:]
    elif outside := _PATH_BEFORE.match(before):
        path = outside["said"] or outside["path"]
    return CodeBlock(language, path, "\n".join(body).strip("\n") + "\n")


def edits_of(text: str, *, target_paths: Sequence[str], new_paths: Sequence[str] = ()) -> dict[str, Any]:
    """`{"edits": [{"path", "mode", "content"}]}` of a draft or repair.

    A block that names no file is for the single target path; when there are several such blocks, the first counts,
    because small models like to add an example of use. Mode is `file` for paths in `new_paths`, else `definitions`.

    Raises:
        ReplyMalformed: no code block, a block without a file, a file outside `target_paths`, two blocks for one file.
    """
    blocks = [block for block in code_blocks(text) if block.path or block.language not in _NOT_CODE]
    if not blocks:
        raise ReplyMalformed(NO_CODE, problems=[NO_CODE])
    problems: list[str] = []
    edits: dict[str, str] = {}
    for block in blocks:
        path = _target(block.path, target_paths)
        if path is None:
            problems.append(_no_target(block.path, target_paths))
        elif path not in edits:
            edits[path] = block.content
        elif block.path is not None:
            problems.append(f"two code blocks are for {path}: put everything for a file into one block")
    if problems:
        raise ReplyMalformed("; ".join(problems), problems=problems)
    return {
        "edits": [
            {"path": path, "mode": "file" if path in new_paths else "definitions", "content": content}
            for path, content in edits.items()
        ]
    }


def _target(named: str | None, target_paths: Sequence[str]) -> str | None:
    if named is None:
        return target_paths[0] if len(target_paths) == 1 else None
    plain = named.removeprefix("./")
    if plain in target_paths:
        return plain
    if target_paths:
        # Small models often name the file without its folder; one target of that name leaves no doubt.
        same = [path for path in target_paths if posixpath.basename(path) == posixpath.basename(plain)]
        return same[0] if len(same) == 1 else None
    try:
        return check_path(plain)
    except InvalidInput:
        return None


def _no_target(named: str | None, target_paths: Sequence[str]) -> str:
    if named is None:
        return "a code block names no file: make its first line `# file: PATH`"
    allowed = ", ".join(target_paths) or "paths inside the repository"
    return f"{named[:80]} is not a file of this task: use {allowed}"


def authored_tests(text: str, *, is_cut: bool = False) -> dict[str, Any]:
    """`{"code", "names"}` of a test author's reply: the blocks that define tests, and the tests' names in order.

    Args:
        is_cut: the reply ended at its length limit: small models often write one more test until they are stopped.
            What is whole before the end counts.

    Raises:
        ReplyMalformed: no code block, or none that defines a (whole) function `test_...`.
    """
    blocks = [block.content for block in code_blocks(text)]
    if not blocks:
        raise ReplyMalformed(NO_CODE, problems=[NO_CODE])
    if is_cut:
        blocks[-1] = _whole_part(blocks[-1])
    code = "\n\n".join(content for content in blocks if _TEST_NAME.search(content))
    if not code:
        problem = "the code block defines no test: write functions named test_..."
        raise ReplyMalformed(problem, problems=[problem])
    return {"code": code, "names": list(dict.fromkeys(_TEST_NAME.findall(code)))}


TestLanguage = Literal["node", "go", "rust"]
"""The languages beside Python in which tests are written."""


class _TestForm(NamedTuple):
    """What a test file of a language looks like."""

    path: re.Pattern[str]
    example: str
    test: re.Pattern[str]
    said: str


_TEST_FORMS: Mapping[TestLanguage, _TestForm] = {
    "node": _TestForm(
        re.compile(r"(?!(?:.*/)?node_modules/).+\.test\.[cm]?js"),
        "test/NAME.test.mjs",
        re.compile(
            r"^(?:await[ \t]+)?(?:test|it)\([ \t]*(?:'([^'\n]*)'|\"([^\"\n]*)\"|`([^`\n]*)`)[ \t]*,", re.MULTILINE
        ),
        "write top-level calls test('ac-1 ...', () => {...})",
    ),
    "go": _TestForm(
        re.compile(r"(?!(?:.*/)?(?:vendor|testdata)/).+_test\.go"),
        "FOLDER/NAME_test.go",
        re.compile(r"^func[ \t]+(Test(?![a-z])\w+)[ \t]*\([ \t]*t[ \t]+\*testing\.T[ \t]*\)", re.MULTILINE),
        "write functions func Test_ac_1_...(t *testing.T)",
    ),
    "rust": _TestForm(
        re.compile(r"(?!(?:.*/)?target/)(?:.+/)?tests/[^/]+\.rs"),
        "tests/NAME.rs",
        re.compile(r"^#\[test\][ \t]*\n(?:#\[[^\n]*\][ \t]*\n)*fn[ \t]+(\w+)[ \t]*\([ \t]*\)", re.MULTILINE),
        "write top-level functions fn ac_1_...() below #[test]",
    ),
}
_PLAIN_NAME = re.compile(r"[\w .,:;()+=/-]{1,200}")
_MOST_TESTS = 200


def authored_test_file(text: str, language: TestLanguage) -> dict[str, Any]:
    """`{"language", "path", "code", "names"}` of a test author's reply in another language than Python.

    The names are all that will ever count: what else a run says of itself shows nothing.

    Raises:
        ReplyMalformed: no code block, not one file of tests, no path that a test file has, or no tests whose names are
            plain and differ.
    """
    form = _TEST_FORMS[language]
    blocks = code_blocks(text)
    if not blocks:
        problem = NO_CODE.replace("```python", f"```{language}")
        raise ReplyMalformed(problem, problems=[problem])
    found = [(block, _names(form, block.content)) for block in blocks]
    files = [(block, names) for block, names in found if names]
    if len(files) != 1:
        problem = (
            f"the code block defines no test: {form.said}"
            if not files
            else "several code blocks define tests: put all of them into one"
        )
        raise ReplyMalformed(problem, problems=[problem])
    block, names = files[0]
    problems = [f"{name[:80]!r} is no plain name of a test" for name in names if not _PLAIN_NAME.fullmatch(name)]
    problems += [f"two tests are named {name[:80]!r}" for name in dict.fromkeys(names) if names.count(name) > 1]
    if len(names) > _MOST_TESTS:
        problems.append(f"more than {_MOST_TESTS} tests: write fewer")
    path = (block.path or "").removeprefix("./")
    if not form.path.fullmatch(path) or not _is_inside(path):
        problems.append(f"the first line of the code block names its file: `// file: {form.example}`")
    if problems:
        raise ReplyMalformed("; ".join(problems), problems=problems)
    return {"language": language, "path": path, "code": block.content, "names": names}


def _names(form: _TestForm, code: str) -> list[str]:
    return [next(group for group in found.groups() if group is not None) for found in form.test.finditer(code)]


def _is_inside(path: str) -> bool:
    try:
        check_path(path)
    except InvalidInput:
        return False
    return True


def _whole_part(code: str) -> str:
    """The code up to its last line that ends a statement; empty where none does. Its end is a line that was cut."""
    lines = code.rstrip("\n").split("\n")[:-1]
    for _ in range(min(len(lines), _MOST_CUT)):
        whole = "\n".join(lines) + "\n"
        try:
            parse(whole)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            lines.pop()
        else:
            return whole
    return ""
