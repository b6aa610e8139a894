"""The tools of a work session as a model is offered them, and its uses of them as calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, JsonValue

from fleet.engineering.edits import Refused
from fleet.engineering.patches import parse_patch
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Digest
from fleet.kernel.types import Frozen
from fleet.models.chat import ToolOffer, ToolUse
from fleet.models.replies.tool_calls import ToolProblem, arguments_of

ToolName = Literal["run", "read", "search", "files", "symbols", "edit", "write", "patch", "tests", "note", "submit"]
LOOKS: frozenset[ToolName] = frozenset({"read", "search", "files", "symbols"})
"""The tools that leave the files as they are and run nothing of the repository: several may be at work at once."""
MAX_TIMEOUT_S = 600
"""Seconds that one command may take."""
_ABOUT_CHARS = 160
_SAYS_MOST = ("command", "name", "path", "pattern", "select", "url", "tool", "server", "database")
"""Arguments, the one that stands for a call first."""
_MAX_GLOB, _MAX_STARS = 200, 8
_TEXT: dict[str, Any] = {"type": "string"}
_PATH: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 4096}
_NAME: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 200}
_LINE: dict[str, Any] = {"type": "integer", "minimum": 1}
_TIMEOUT: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_S}


OutsideName = Annotated[str, Field(pattern=r"^[a-z0-9_-]+?__[a-z0-9_-]+$")]
"""`<tool>__<op>` of an operation of the policy."""


class SessionCall(Frozen):
    """One use of a tool whose arguments have the form that was offered."""

    name: ToolName | OutsideName
    args: dict[str, JsonValue]

    @property
    def digest(self) -> Digest:
        """Equal for the same tool with the same arguments, and for no others."""
        return digest_of_json({"name": self.name, "args": self.args})

    @property
    def is_outside(self) -> bool:
        """Whether it looks at something outside of the files."""
        return "__" in self.name

    @property
    def about(self) -> str:
        """The argument that says most, in one short line."""
        value = next((self.args[name] for name in _SAYS_MOST if name in self.args), "")
        if self.name == "patch":
            value = list(self.paths)
        text = " ".join(str(part) for part in value) if isinstance(value, list) else str(value)
        line = " ".join(text.split())
        return line if len(line) <= _ABOUT_CHARS else f"{line[: _ABOUT_CHARS - 3]}..."

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that it names, as they are written in a tree."""
        if self.name != "patch":
            path = self.text("path").removeprefix("./")
            return (path,) if path else ()
        patches = parse_patch(self.text("patch"))
        return () if isinstance(patches, Refused) else tuple(one.path for one in patches)

    def text(self, name: str) -> str:
        """The text of this argument; "" when it was left out."""
        value = self.args.get(name)
        return value if isinstance(value, str) else ""

    def number(self, name: str, default: int) -> int:
        """The number of this argument."""
        value = self.args.get(name)
        return value if isinstance(value, int) else default


def _offer(
    name: ToolName, description: str, required: Sequence[str] = (), /, **properties: dict[str, Any]
) -> ToolOffer:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
    return ToolOffer(name=name, description=description, parameters=schema)


_REPLACEMENT = {
    "type": "object",
    "properties": {"old": _TEXT, "new": _TEXT, "all": {"type": "boolean"}},
    "required": ["old", "new"],
    "additionalProperties": False,
}
OFFERS: tuple[ToolOffer, ...] = (
    _offer(
        "run",
        "Runs one shell line with bash in a fresh sandbox over the files as they are now. No network, no input, no "
        "terminal, no git repository; `cd` and variables do not last to the next call. What it changes in the files is "
        f"kept, also when it fails. timeout_s: at most {MAX_TIMEOUT_S}, else 120; cwd: a folder of the repository.",
        ["command"],
        command=_TEXT,
        timeout_s=_TIMEOUT,
        cwd=_PATH,
    ),
    _offer(
        "read",
        "Shows lines of a file with their numbers: from line `from`, at most `lines` of them. With `output` instead of "
        "`path` it shows an output that was cut, by its id.",
        path=_PATH,
        output={"type": "string", "pattern": "^o[0-9]+$"},
        **{"from": _LINE, "lines": _LINE},
    ),
    _offer(
        "search",
        "Lists the lines of files that match a Perl-style regular expression; glob narrows it to file names, path to a "
        "file or folder.",
        ["pattern"],
        pattern=_TEXT,
        glob=_TEXT,
        path=_PATH,
    ),
    _offer("files", "Lists the files of the repository; glob as in `src/**/*.py`.", glob=_TEXT),
    _offer(
        "symbols",
        "Lists classes, functions, methods, types and values with the lines they take: all those of a file or folder, "
        "or where `name` (as in `parse` or `Parser.parse`) is defined.",
        path=_PATH,
        name=_NAME,
    ),
    _offer(
        "edit",
        "Replaces exact text in one file: `old` must be there once, or give `all`. Several replacements go into "
        "`edits`; all of them are made, or none.",
        ["path"],
        path=_PATH,
        old=_TEXT,
        new=_TEXT,
        all={"type": "boolean"},
        edits={"type": "array", "items": _REPLACEMENT, "minItems": 1, "maxItems": 50},
    ),
    _offer(
        "write",
        "Writes a whole file, new or instead of one that you have read.",
        ["path", "content"],
        path=_PATH,
        content=_TEXT,
    ),
    _offer(
        "patch",
        "Applies a unified diff, over several files if need be: all of it, or nothing. Files can be made, removed and "
        "renamed, as `git diff` writes it. Line numbers may be wrong where the old lines stand only once.",
        ["patch"],
        patch=_TEXT,
    ),
    _offer(
        "tests",
        "Runs the tests: all, or those named in `select` (paths or pytest node ids).",
        select={"type": "array", "items": _PATH, "maxItems": 50},
        timeout_s=_TIMEOUT,
    ),
    _offer("note", "Keeps a plan or finding in front of you for the whole session.", ["text"], text=_TEXT),
    _offer(
        "submit",
        "Ends the work. The first time it answers with a review of everything that you changed; call it again when "
        "that is right. Say in summary what was done and what is missing.",
        ["summary"],
        summary=_TEXT,
    ),
)
"""The same for every session, in this order: they stand in the part of the prompt that an engine caches."""
TOOL_NAMES: tuple[str, ...] = get_args(ToolName)


def checked_glob(glob: str) -> str:
    """The glob itself; InvalidInput for one that could take long to match."""
    if len(glob) > _MAX_GLOB or glob.count("*") > _MAX_STARS:
        raise InvalidInput(f"the glob is too long: at most {_MAX_GLOB} characters and {_MAX_STARS} stars")
    return glob


def call_of(use: ToolUse, outside: Sequence[ToolOffer] = ()) -> SessionCall | ToolProblem:
    """The call that a use stands for, or what the model is told instead of a result (MB-14).

    Args:
        outside: what the session is offered beside the tools of every session.
    """
    args = arguments_of(use, (*OFFERS, *outside))
    if isinstance(args, ToolProblem):
        return args
    call = SessionCall.model_validate({"name": use.name, "args": args})
    if wrong := _inconsistent(call):
        return ToolProblem(use.id, use.name, f"Not executed: {wrong}.")
    return call


def _inconsistent(call: SessionCall) -> str:
    """What no schema of the subset can say; "" when nothing is wrong."""
    args = call.args
    if call.name == "read" and ("path" in args) == ("output" in args):
        return "read takes either path or output"
    if call.name == "symbols" and not args:
        return "symbols takes path, name or both"
    if call.name == "edit" and ("edits" in args) == ("old" in args):
        return "edit takes either old and new, or edits"
    if call.name == "edit" and "old" in args and "new" not in args:
        return "edit needs new beside old; an empty text deletes"
    return ""
