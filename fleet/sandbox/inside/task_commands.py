"""Which commands a TASK of agent_task runs in which language, and which result files they must leave (RC-40..RC-45)."""

from __future__ import annotations

import configparser
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from language_stages import language_stage
from marked_files import can_have
from stages import (
    BUILD_JSON,
    COVERAGE,
    E2E_JUNIT,
    INSIDE,
    JUNIT,
    LINT_JSON,
    PREVIEW_JUNIT,
    STATIC_JSON,
    UNAVAILABLE,
    Stage,
)

TASKS = ("unit", "integration", "e2e", "build", "lint", "static", "pipeline")
LANGUAGES = ("python", "go", "node", "rust")
PIPELINE = ("build", "unit", "lint", "static", "e2e")
"""Order of the stages; the variable STAGES (names with commas) asks the pipeline for some of them."""
DECLARED = ("preview",)
"""Stages that come after those, and that only STAGES asks for: the repository declares what they look at."""
TEST_VARIABLE = {"python": "TEST_CMD", "go": "GO_TEST_CMD", "node": "NODE_TEST_CMD", "rust": "RUST_TEST_CMD"}
VARIABLE = {"build": "BUILD_CMD", "lint": "LINT_CMD", "static": "STATIC_CMD", "e2e": "E2E_CMD"}
SECURITY_RULES = "S,B,PLE,F82,E9"
"""Security (bandit's rules), bug patterns, errors pylint calls fatal, undefined names, syntax errors."""
KEPT_OPTIONS = ("--import-mode", "--doctest-modules", "--doctest-glob", "--ignore", "--ignore-glob", "--deselect")
RUFF_CONFIGS = ("ruff.toml", ".ruff.toml")


def override(name: str, lang: str, env: dict[str, str]) -> str | None:
    """The command line that the environment sets for a stage (RC-44)."""
    return env.get(variable_of(name, lang)) or None


def chosen(env: dict[str, str]) -> tuple[str, ...]:
    """The stages that the pipeline runs, in its own order; empty when STAGES names an unknown one."""
    names = env["STAGES"].split(",") if env.get("STAGES") else list(PIPELINE)
    every = (*PIPELINE, *DECLARED)
    return tuple(name for name in every if name in names) if set(names) <= set(every) else ()


def variable_of(name: str, lang: str) -> str:
    """The variable of RC-44 that replaces the stage's command."""
    return TEST_VARIABLE[lang] if name in ("unit", "integration") else VARIABLE[name]


def missing_command(task: str, lang: str, env: dict[str, str], root: Path) -> str | None:
    """The variable that must be set because the language has no default for a required command (RC-46)."""
    if lang == "python":
        return None
    names = [name for name in ("build", "unit") if name in chosen(env)] if task == "pipeline" else [task]
    for name in names:
        if not override(name, lang, env) and language_stage(name, lang, root, in_pipeline=False) is None:
            return variable_of(name, lang)
    return None


def stages_of(task: str, lang: str, env: dict[str, str], root: Path) -> list[Stage]:
    """The stages of a task in their order: build, unit, lint, static, e2e for `pipeline`."""
    names = chosen(env) if task == "pipeline" else (task,)
    in_pipeline = task == "pipeline"
    stages = [_stage(name, lang, env, root, in_pipeline=in_pipeline) for name in names]
    if lang == "python" and env.get("PY_SETUP"):
        stages[0].before.append(_shell(env["PY_SETUP"]))
    return stages


def _stage(name: str, lang: str, env: dict[str, str], root: Path, *, in_pipeline: bool) -> Stage:
    if name == "preview":
        return _preview()
    if command := override(name, lang, env):
        return _overridden(name, command, variable_of(name, lang))
    if lang != "python":
        return language_stage(name, lang, root, in_pipeline=in_pipeline) or Stage(name, [])
    if name == "build":
        return Stage(name, [sys.executable, "-I", str(INSIDE / "compile_files.py"), BUILD_JSON], expects=(BUILD_JSON,))
    if name == "lint":
        argv = _ruff(in_pipeline, *([] if _has_ruff_config(root) else ["--extend-select", "I"]))
        return Stage(name, argv, expects=(LINT_JSON,), stdout=LINT_JSON, tool="ruff")
    if name == "static":
        argv = _ruff(in_pipeline, "--isolated", "--select", SECURITY_RULES, "--ignore", "S101")
        return Stage(name, argv, expects=(STATIC_JSON,), stdout=STATIC_JSON, tool="ruff")
    return _covered_tests(env, root) if name == "unit" else _marked_tests(name, env, root, in_pipeline=in_pipeline)


def _preview() -> Stage:
    # -E: what the project has on PYTHONPATH must not stand in for a module that this script imports.
    argv = [sys.executable, "-E", "-s", str(INSIDE / "preview_check.py")]
    return Stage("preview", argv, expects=(PREVIEW_JUNIT,), part_of="e2e", unavailable=UNAVAILABLE)


def _marked_tests(name: str, env: dict[str, str], root: Path, *, in_pipeline: bool) -> Stage:
    marker = env.get("MARKERS") or {"integration": "integ"}.get(name, name)
    junit = E2E_JUNIT if name == "e2e" else JUNIT
    # What a setup command adds is not there yet, so it cannot be looked at.
    if in_pipeline and not env.get("PY_SETUP") and not can_have(root, marker):
        return Stage(name, [], expects=(junit,))
    argv = [sys.executable, "-m", "pytest", *_pytest(root, marker, junit)]
    return Stage(name, argv, expects=(junit,), may_be_empty=in_pipeline, tool="pytest")


def _overridden(name: str, command: str, variable: str) -> Stage:
    # A command of the project leaves its result files where RC-47 says, or gives no evidence (RC-79).
    files = {"unit": (JUNIT,), "integration": (JUNIT,), "e2e": (E2E_JUNIT,)}
    stdout = {"lint": LINT_JSON, "static": STATIC_JSON}.get(name)
    expects = (stdout,) if stdout else files.get(name, ())
    also = (COVERAGE,) if name == "unit" else ()
    return Stage(name, _shell(command), expects=expects, also=also, stdout=stdout, tool=variable)


def _covered_tests(env: dict[str, str], root: Path) -> Stage:
    config = INSIDE / "coverage.ini"
    coverage = [sys.executable, "-m", "coverage"]
    return Stage(
        "unit",
        [*coverage, "run", f"--rcfile={config}", "-m", "pytest", *_pytest(root, UNIT_MARKER, JUNIT)],
        expects=(JUNIT,),
        also=(COVERAGE, "out/.coverage"),
        after=[[*coverage, "xml", f"--rcfile={config}", "-q", "-i", "-o", COVERAGE]],
        tool="pytest",
    )


UNIT_MARKER = "not e2e and not integ"


def judged_options(root: Path) -> list[str]:
    """The options of pytest for the unit tests, without those that write reports.

    Nobody reads why a test fails there, and finding the source of each call takes longer than most tests.
    """
    return [*_options(root, UNIT_MARKER), "--tb=no", "--show-capture=no"]


def _pytest(root: Path, marker: str, junit: str) -> list[str]:
    # xunit1 is the form that names file and line of a test.
    return [*_options(root, marker), f"--junitxml={junit}", "-o", "junit_family=xunit1"]


def _options(root: Path, marker: str) -> list[str]:
    return [
        *("-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--continue-on-collection-errors", "-m", marker),
        *("-o", "addopts=", *kept_options(root)),
        *("-W", "ignore::pytest.PytestUnknownMarkWarning", "-W", "ignore::pytest.PytestConfigWarning"),
    ]


def kept_options(root: Path) -> list[str]:
    """Those of the project's own pytest options that decide what is a test.

    The others are left out: they often name plugins that the toolchain does not have (coverage, parallel runs).
    """
    kept: list[str] = []
    words = iter(_own_options(root))
    for word in words:
        if word == "-p":
            plugin = next(words, "")
            kept += ["-p", plugin] if plugin.startswith("no:") else []
        elif word.split("=", 1)[0] in KEPT_OPTIONS:
            bare = "=" not in word and word != "--doctest-modules"
            kept += [word, next(words, "")] if bare else [word]
    return kept


def _own_options(root: Path) -> list[str]:
    for name, section in (("pytest.ini", "pytest"), ("tox.ini", "pytest"), ("setup.cfg", "tool:pytest")):
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(root / name)
            if parser.has_section(section):
                return shlex.split(parser.get(section, "addopts", fallback=""))
        except (configparser.Error, ValueError):
            return []
    value: Any = _pyproject(root).get("pytest", {})
    value = (value.get("ini_options") or value).get("addopts", "") if isinstance(value, dict) else ""  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    try:
        return [str(word) for word in value] if isinstance(value, list) else shlex.split(str(value))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    except ValueError:
        return []


def _pyproject(root: Path) -> dict[str, Any]:
    try:
        import tomllib  # absent from toolchains older than 3.11

        return dict(tomllib.loads((root / "pyproject.toml").read_text()).get("tool", {}))
    except (ImportError, OSError, ValueError, AttributeError, TypeError):
        return {}


def _has_ruff_config(root: Path) -> bool:
    return "ruff" in _pyproject(root) or any((root / name).is_file() for name in RUFF_CONFIGS)


def _ruff(in_pipeline: bool, *options: str) -> list[str]:
    # In the pipeline a finding is no failure of the stage: only findings that the base tree lacks count (RC-65).
    zero = ["--exit-zero"] if in_pipeline else []
    return [
        sys.executable,
        "-I",
        "-m",
        "ruff",
        "check",
        "--output-format",
        "json",
        "--no-cache",
        *zero,
        *options,
        os.curdir,
    ]


def _shell(command: str) -> list[str]:
    return ["/bin/sh", "-c", command]
