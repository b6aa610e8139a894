"""Commands of a work session as runs in the sandbox, and what an engineer is told of them. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from shlex import join
from typing import NamedTuple

from fleet.engineering.tools import MAX_TIMEOUT_S, SessionCall, checked_glob
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Digest
from fleet.policy.arguments import glob_matches
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.calls import command_of
from fleet.policy.runs.spec import Limits, RunReason, RunResult, RunSpec
from fleet.policy.runs.toolchains import Language
from fleet.trees.tree import PathChange, check_path

_DEFAULT_S, _TESTS_S, _SEARCH_S = 120, 600, 30
_MAX_COMMAND = 100_000
_MAX_PATTERN = 1_000
_CLEAN: dict[str, str] = {
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "CI": "1",
    "PIP_PROGRESS_BAR": "off",
    "PIP_NO_INDEX": "1",
    "UV_OFFLINE": "1",
    "NPM_CONFIG_OFFLINE": "true",
    "GOPROXY": "off",
    "PYTHONHASHSEED": "0",
    "PYTHONPATH": "/workspace:/workspace/src",
    "PYTEST_ADDOPTS": "-p no:cacheprovider",
    "TZ": "UTC",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "COLUMNS": "80",
}
"""The environment of every command, so that its output is the same on another day and machine."""
_LIMITS = Limits(memory_bytes=2 << 30, pids=512, output_bytes=8 << 20)
_TESTS: dict[str, str] = {"python": "pytest", "go": "go_test", "node": "npm_test", "rust": "cargo_test"}
_FAILED = re.compile(r"\bFAIL(?:ED|URE)?\b|\bERROR\b|\w+(?:Error|Exception)\b|\bpanicked\b|^--- FAIL", re.MULTILINE)
_NUMBERS = re.compile(r"\d+")
_WORDS = re.compile(r"[\s;|&<>()=,]+")
_MAX_NAMED = 12


def spec_of(call: SessionCall, head: Digest, *, toolchain: str, language: Language) -> RunSpec:
    """The run that carries the call out on these files: without a network, with an empty input.

    Raises:
        InvalidInput: the call asks for what no run can be; the message says what to send instead.
    """
    match call.name:
        case "run":
            return _shell(call, head, toolchain)
        case "search":
            return _search(call, head, toolchain)
        case _:
            return _tests(call, head, toolchain, language)


def _shell(call: SessionCall, head: Digest, toolchain: str) -> RunSpec:
    command = call.text("command")
    if len(command) > _MAX_COMMAND or "\0" in command:
        raise InvalidInput(f"the command is longer than {_MAX_COMMAND} characters or holds NUL: put it into a file")
    cwd = call.text("cwd").removeprefix("/workspace").strip("/").removeprefix("./") or "."
    seconds = min(call.number("timeout_s", _DEFAULT_S), MAX_TIMEOUT_S)
    return RunSpec(
        argv=("bash", "-c", command),
        tree=head,
        env=_CLEAN,
        limits=_LIMITS.model_copy(update={"overall_s": seconds, "idle_s": seconds}),
        keep_tree=True,
        discard=(),
        toolchain=toolchain,
        cwd=cwd if cwd == "." else check_path(cwd),
    )


def _search(call: SessionCall, head: Digest, toolchain: str) -> RunSpec:
    pattern, glob = call.text("pattern"), checked_glob(call.text("glob"))
    path = call.text("path").removeprefix("/workspace/").removeprefix("./") or "."
    if not pattern or len(pattern) > _MAX_PATTERN or "\n" in pattern:
        raise InvalidInput(f"the pattern must be one line of 1 to {_MAX_PATTERN} characters")
    where = "." if path == "." else f"./{check_path(path)}"
    # grep gives up on a pattern that explodes, and it does so inside: no expression of a model runs in this process.
    include = (f"--include={glob.rpartition('/')[2]}",) if glob else ()
    fixed = ("grep", "-rnHIP", "--max-count=200", "--exclude-dir=.git", *include, "-e", pattern, "--", where)
    limits = _LIMITS.model_copy(update={"overall_s": _SEARCH_S, "idle_s": _SEARCH_S, "output_bytes": 1 << 20})
    return RunSpec(argv=fixed, tree=head, env=_CLEAN, limits=limits, toolchain=toolchain)


def _tests(call: SessionCall, head: Digest, toolchain: str, language: Language) -> RunSpec:
    select = call.args.get("select")
    paths = [str(one).removeprefix("./") for one in select] if isinstance(select, list) else []
    if any(path.startswith("-") for path in paths):
        raise InvalidInput("select takes paths and node ids, no options: use run for a command of your own")
    found = command_of(
        ToolCall(tool="tests", op=_TESTS.get(language, "pytest"), args={"paths": [*paths]}), language=language
    )
    seconds = min(call.number("timeout_s", _TESTS_S), MAX_TIMEOUT_S)
    return RunSpec(
        argv=found.argv,
        tree=head,
        env={**_CLEAN, **found.env},
        limits=_LIMITS.model_copy(update={"overall_s": seconds, "idle_s": seconds}),
        artifacts=found.artifacts,
        toolchain=toolchain,
    )


class ToldOfTests(NamedTuple):
    """What a run of the tests says: one line for the engineer, and what of it is the engineer's to mend."""

    line: str
    failure: Digest | None
    """Equal for the same new failures; None when there are none."""


_FORMATTERS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "ruff": ((".py", ".pyi"), "ruff format --no-cache --quiet --diff --"),
    "black": ((".py", ".pyi"), "black --quiet --diff --"),
    "prettier": (
        (".js", ".jsx", ".ts", ".tsx", ".mjs", ".cjs", ".css", ".scss", ".json", ".yaml", ".yml", ".vue"),
        "prettier --list-different --",
    ),
    "gofmt": ((".go",), "gofmt -d"),
    "rustfmt": ((".rs",), "rustfmt --check --edition 2021 --"),
}
"""Endings of the files that a formatter is for, and what says what it would change without changing it."""
_CONFIGURED: Mapping[str, str] = {
    **dict.fromkeys(("ruff.toml", ".ruff.toml"), "ruff"),
    **dict.fromkeys(("rustfmt.toml", ".rustfmt.toml", "Cargo.toml"), "rustfmt"),
    "go.mod": "gofmt",
}
_LINTERS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "ruff": ((".py", ".pyi"), "ruff check --no-cache --quiet --output-format concise --"),
    "eslint": ((".js", ".jsx", ".ts", ".tsx", ".mjs", ".cjs"), "eslint --no-color --"),
}
"""Endings of the files that a linter is for, and what says what is wrong with them without changing them."""
_MOST_ASKED = 50


def formatters_of(paths: Collection[str], pyproject: str) -> tuple[str, ...]:
    """The formatters that a repository is formatted with, by the files at its top and the text of pyproject.toml."""
    named = {_CONFIGURED[path] for path in paths if path in _CONFIGURED}
    named |= {"prettier" for path in paths if path.startswith((".prettierrc", "prettier.config."))}
    named |= {name for name in ("ruff", "black") if re.search(rf"^\[tool\.{name}[\].]", pyproject, re.MULTILINE)}
    # Ruff stands beside black as a linter.
    return tuple(sorted(named - {"ruff"} if "black" in named else named))


def linters_of(paths: Collection[str], pyproject: str) -> tuple[str, ...]:
    """The linters that a repository configures, as `formatters_of`."""
    named = set[str]()
    if {"ruff.toml", ".ruff.toml"} & set(paths) or re.search(r"^\[tool\.ruff[\].]", pyproject, re.MULTILINE):
        named.add("ruff")
    if any(path.startswith((".eslintrc", "eslint.config.")) for path in paths):
        named.add("eslint")
    return tuple(sorted(named))


def format_call(formatters: Sequence[str], changed: Sequence[str]) -> SessionCall | None:
    """A command that fails with what the formatters would change in these files; None when there is nothing to ask.

    A formatter that is not installed, or cannot say, says nothing.
    """
    return _asking({name: _FORMATTERS[name] for name in formatters}, changed)


def lint_call(linters: Sequence[str], changed: Sequence[str]) -> SessionCall | None:
    """A command that fails with what the linters say of these files; as `format_call`."""
    return _asking({name: _LINTERS[name] for name in linters}, changed)


def _asking(programs: Mapping[str, tuple[tuple[str, ...], str]], changed: Sequence[str]) -> SessionCall | None:
    lines: list[str] = []
    for name, (endings, command) in programs.items():
        files = [path for path in changed if path.endswith(endings)][:_MOST_ASKED]
        if files:
            named = join(f"./{path}" for path in files)
            lines.append(f"command -v {name} > /dev/null && {command} {named} 2> /dev/null")
    if not lines:
        return None
    asked = "; ".join(lines)
    line = f'said=$(PATH="$PATH:./node_modules/.bin"; {asked}); if [ -n "$said" ]; then echo "$said"; exit 1; fi'
    return SessionCall(name="run", args={"command": line})


def told_of_tests(passed: int, failing: Mapping[str, str], known: Collection[str]) -> ToldOfTests:
    """How many tests passed and failed; failures that the base has too are told apart.

    Args:
        failing: id of each test that failed or errored -> its message.
        known: ids of the tests that fail on the base.
    """
    new = sorted(set(failing) - set(known))
    old = sorted(set(failing) & set(known))
    parts = [f"{passed} passed"]
    if new:
        parts.append(f"{len(new)} failed: {_listed(new)}")
    if old:
        parts.append(f"{len(old)} failed that fail without your changes too, and are not yours: {_listed(old)}")
    said = [[test, _NUMBERS.sub("0", failing[test])[:200]] for test in new]
    return ToldOfTests("; ".join(parts), digest_of_json(said) if new else None)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more


_ENDED: dict[RunReason, str] = {
    "ok": "exit 0",
    "oom_killed": "killed: out of memory",
    "pids_limit": "killed: too many processes",
    "disk_limit": "more was left on disk than is allowed, so the files are as they were before",
    "output_limit": "killed: it printed more than is kept",
    "cancelled": "it was ended from outside, and the files are as they were before; make the call again",
    "sandbox_lost": "the sandbox was lost, and the files are as they were before; make the call again",
    "image_unavailable": "the toolchain is not on this machine; nothing was started",
    "mount_refused": "nothing was started",
    "service_unavailable": "nothing was started",
}


def ended_as(result: RunResult, spec: RunSpec) -> str:
    """How the command ended, in words that say what to do."""
    if result.reason in ("timeout", "idle_timeout"):
        return (
            f"timed out after {spec.limits.overall_s} s; the output so far is below, and what it changed was kept. "
            "Give timeout_s, or run it in parts"
        )
    if result.reason == "config":
        return "nothing was started: see the output" if result.exit_code is None else f"exit {result.exit_code}"
    return _ENDED.get(result.reason, f"exit {result.exit_code}")


def _place_of_hit(hit: str) -> tuple[str, int]:
    """File and line: `grep` goes through a folder in the order of its disk."""
    path, _, rest = hit.partition(":")
    number = rest.partition(":")[0]
    return path, int(number) if number.isdecimal() else 0


def changed_line(changes: Sequence[PathChange]) -> str:
    """Which files the command changed, in one line; "" when it changed none."""
    signs = {"added": "+", "removed": "-", "modified": "~"}
    # A name may hold anything, also what looks like a line of ours.
    named = [signs[change.change] + " ".join(change.path.split())[:200] for change in changes[:_MAX_NAMED]]
    more = f" and {len(changes) - _MAX_NAMED} more" if len(changes) > _MAX_NAMED else ""
    return f"changed: {', '.join(named)}{more}" if changes else ""


def failure_of(result: RunResult, lines: Sequence[str]) -> Digest | None:
    """Equal for failures that say the same, whatever their numbers and order; None for a command that passed."""
    if result.reason == "ok":
        return None
    said = [line for line in lines if _FAILED.search(line)] or [line for line in lines if line.strip()][-3:]
    folded = sorted({_NUMBERS.sub("0", " ".join(line.split())) for line in said})
    return digest_of_json({"reason": result.reason, "said": folded[:100]})


def named_files(command: str, cwd: str, paths: Collection[str]) -> tuple[str, ...]:
    """The files of the repository that a command names, as `cat` and `sed` are told what to show."""
    below = "" if cwd in ("", ".") else f"{cwd.strip('/')}/"
    words = dict.fromkeys(
        word.strip("'\"").removeprefix("/workspace/").removeprefix("./") for word in _WORDS.split(command)
    )
    found = [path for word in words for path in (f"{below}{word}", word) if word and path in paths]
    return tuple(dict.fromkeys(found))[:_MAX_NAMED]


def found_by(lines: Sequence[str], *, glob: str, most: int, chars: int) -> str:
    """The hits of a search: how many in which file first, then the first of them; "" when there are none.

    Args:
        glob: of the whole path where it has a slash; names alone were compared by the search itself.
    """
    hits = sorted((line.removeprefix("./") for line in lines if line.strip()), key=_place_of_hit)
    if "/" in glob:
        hits = [hit for hit in hits if glob_matches(glob, hit.partition(":")[0])]
    if not hits:
        return ""
    files: dict[str, int] = {}
    for hit in hits:
        files[hit.partition(":")[0]] = files.get(hit.partition(":")[0], 0) + 1
    listed = ", ".join(f"{path} ({count})" for path, count in list(files.items())[:20])
    more = f", and {len(files) - 20} more files" if len(files) > 20 else ""
    shown, room = list[str](), chars
    for hit in hits[:most]:
        room -= min(len(hit), 300) + 1
        if room < 0:
            break
        shown.append(hit[:300])
    left = len(hits) - len(shown)
    tail = [f"[{left} more hits: narrow the pattern, or give glob or path]"] if left else []
    return "\n".join([f"{len(hits)} hits in {len(files)} files: {listed}{more}", *shown, *tail])
