"""Tool calls as commands: pure translations of tests, build, lint and exec (RT-43, RT-44, RT-45, RT-53)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from fleet.kernel.errors import PolicyDenied
from fleet.policy.arguments import texts_of
from fleet.policy.rules.calls import ToolCall

JUNIT = "test-reports/junit.xml"
PACKAGES = "out/packages"
_INSIDE = "/fleet/inside"
_OFFLINE: Mapping[str, str] = {"PIP_NO_INDEX": "1", "NPM_CONFIG_OFFLINE": "true", "UV_OFFLINE": "1"}
_SECURITY_RULES = "S,B,PLE,F82,E9"
"""bandit's rules, bug patterns, errors that pylint calls fatal, undefined names, syntax errors."""


class RunCommand(NamedTuple):
    """What to start for a call, and which files it leaves."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = _OFFLINE
    artifacts: tuple[str, ...] = ()
    reads: Literal["nothing", "junit", "json"] = "nothing"
    """What of its result is data: a JUnit file, or JSON on standard output."""
    keeps_tree: bool = False
    """Whether what it changes in the workspace is recorded."""


def command_of(call: ToolCall, *, language: str) -> RunCommand:
    """The command that carries this call out in a workspace of this language.

    Raises:
        PolicyDenied: the program of `exec.run` is a path (RT-55), or the language has no program for the operation.
    """
    args = _Args(call.args)
    match call.tool:
        case "tests":
            return _TESTS[call.op](args)
        case "build":
            return _by_language(call, args, language, _BUILD if call.op == "build" else _PACKAGE)
        case "lint":
            return _by_language(call, args, language, _LINT[call.op])
        case _:
            return _exec(args)


class _Args:
    """Arguments of a call whose types were checked before."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        self._args = args

    def texts(self, name: str) -> tuple[str, ...]:
        """The items of a list argument; none when it was left out."""
        return texts_of(self._args.get(name))

    def paths(self, default: Sequence[str] = (".",)) -> tuple[str, ...]:
        """The paths, written so that no program takes one for an option."""
        return tuple(f"./{path}" if path != "." else path for path in self.texts("paths")) or tuple(default)


_Translation = Callable[[_Args], RunCommand]


def _by_language(call: ToolCall, args: _Args, language: str, translations: Mapping[str, _Translation]) -> RunCommand:
    if language not in translations:
        raise PolicyDenied(
            f"{call.tool}.{call.op} has no program for {language}: use it for {', '.join(sorted(translations))}, or "
            "exec.run with a program of the project",
            rule_id="language_unsupported",
            language=language,
        )
    return translations[language](args)


def _pytest(args: _Args) -> RunCommand:
    fixed = (
        "python",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={JUNIT}",
        "-o",
        "junit_family=xunit1",
    )
    return RunCommand((*fixed, *args.texts("options"), *args.paths(())), artifacts=(JUNIT,), reads="junit")


def _go_test(args: _Args) -> RunCommand:
    return RunCommand(("go", "test", *args.texts("options"), *args.paths(("./...",))), _go_env())


def _npm_test(args: _Args) -> RunCommand:
    return RunCommand(("npm", "test", "--", *args.texts("options"), *args.paths(())), artifacts=(JUNIT,), reads="junit")


def _cargo_test(args: _Args) -> RunCommand:
    # cargo selects by name, not by file: a path names the integration test of its file.
    names = tuple(
        part for path in args.texts("paths") for part in ("--test", path.rpartition("/")[2].removesuffix(".rs"))
    )
    return RunCommand(("cargo", "test", "--offline", *names, *args.texts("options")))


def _make_test(args: _Args) -> RunCommand:
    return RunCommand(("make", "test", *args.texts("options")), artifacts=(JUNIT,), reads="junit")


def _go_env() -> Mapping[str, str]:
    return {**_OFFLINE, "GOFLAGS": "-mod=mod", "GOPROXY": "off"}


def _plain(*argv: str, env: Mapping[str, str] = _OFFLINE, artifacts: tuple[str, ...] = ()) -> _Translation:
    """A command that takes the options of the call at its end."""
    return lambda args: RunCommand((*argv, *args.texts("options")), env, artifacts)


def _on_paths(*argv: str, keeps_tree: bool = False, reads: Literal["nothing", "json"] = "nothing") -> _Translation:
    """A command that takes the paths of the call at its end."""
    return lambda args: RunCommand((*argv, *args.paths()), keeps_tree=keeps_tree, reads=reads)


def _exec(args: _Args) -> RunCommand:
    argv = args.texts("argv")
    if not argv or "/" in argv[0]:
        raise PolicyDenied(
            f"{argv[0][:80] if argv else ''!r} is no name of a program: name one of the role's commands without a path",
            rule_id="command_not_listed",
        )
    return RunCommand(argv)


_RUFF = ("python", "-m", "ruff")
_TESTS: Mapping[str, _Translation] = {
    "pytest": _pytest,
    "go_test": _go_test,
    "npm_test": _npm_test,
    "cargo_test": _cargo_test,
    "make_test": _make_test,
}
_BUILD: Mapping[str, _Translation] = {
    # The shim makes the folder of its result files; compiling takes no options.
    "python": lambda _: RunCommand(
        ("python", f"{_INSIDE}/agent_task.py"),
        {**_OFFLINE, "TASK": "build", "TASK_LANG": "python"},
        ("out/build.json",),
    ),
    "go": _plain("go", "build", "./...", env=_go_env()),
    "node": _plain("npm", "run", "build", "--if-present"),
    "rust": _plain("cargo", "build", "--offline"),
}
_PACKAGE: Mapping[str, _Translation] = {
    "python": _plain("python", "-m", "build", "--no-isolation", "--outdir", PACKAGES, artifacts=(PACKAGES,)),
    "go": _plain("go", "build", "-o", f"{PACKAGES}/", "./...", env=_go_env(), artifacts=(PACKAGES,)),
    "rust": _plain("cargo", "package", "--offline", "--no-verify", "--target-dir", PACKAGES, artifacts=(PACKAGES,)),
}
_LINT: Mapping[str, Mapping[str, _Translation]] = {
    "lint": {
        "python": _on_paths(*_RUFF, "check", "--output-format", "json", "--no-cache", reads="json"),
        "go": _on_paths("gofmt", "-l"),
        "node": _on_paths("npm", "exec", "--no", "--", "eslint", "--format", "json", reads="json"),
        "rust": _plain("cargo", "clippy", "--offline"),
    },
    "typecheck": {
        "python": _on_paths("python", "-m", "mypy", "--no-incremental"),
        "go": _plain("go", "vet", "./...", env=_go_env()),
        "node": _plain("npm", "exec", "--no", "--", "tsc", "--noEmit"),
        "rust": _plain("cargo", "check", "--offline"),
    },
    "format_check": {
        "python": _on_paths(*_RUFF, "format", "--check", "--no-cache"),
        "go": _on_paths("gofmt", "-d"),
        "node": _on_paths("npm", "exec", "--no", "--", "prettier", "--check"),
        "rust": _plain("cargo", "fmt", "--check"),
    },
    "code_scan": {
        "python": _on_paths(
            *_RUFF,
            "check",
            "--output-format",
            "json",
            "--no-cache",
            "--isolated",
            "--select",
            _SECURITY_RULES,
            reads="json",
        ),
        "go": _plain("go", "vet", "./...", env=_go_env()),
    },
    "dependency_scan": {
        "python": _on_paths("python", f"{_INSIDE}/dependency_scan.py", reads="json"),
        "go": _on_paths("python", f"{_INSIDE}/dependency_scan.py", reads="json"),
        "node": _on_paths("python", f"{_INSIDE}/dependency_scan.py", reads="json"),
        "rust": _on_paths("python", f"{_INSIDE}/dependency_scan.py", reads="json"),
    },
    "format_write": {
        "python": _on_paths(*_RUFF, "format", "--no-cache", keeps_tree=True),
        "go": _on_paths("gofmt", "-w", keeps_tree=True),
        "node": _on_paths("npm", "exec", "--no", "--", "prettier", "--write", keeps_tree=True),
    },
    "fix_write": {
        "python": _on_paths(*_RUFF, "check", "--fix", "--no-cache", keeps_tree=True),
        "node": _on_paths("npm", "exec", "--no", "--", "eslint", "--fix", keeps_tree=True),
    },
}
