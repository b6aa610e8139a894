"""What the stages of a TASK run for Go, Node and Rust (RC-40..RC-45). A command that the project names goes first.

The programs come with the toolchain; nothing is fetched. What a language has no built-in tool for is no stage of it:
Node has a linter only when the project brings ESLint, and no static analysis.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stages import COVERAGE, E2E_JUNIT, INSIDE, JUNIT, LINT_JSON, STATIC_JSON, Stage

_BUILDS = {
    "go": ["go", "build", "-o", os.devnull, "./..."],
    "node": [sys.executable, str(INSIDE / "node_build.py")],
    "rust": ["cargo", "build", "--offline", "--workspace"],
}
TEST_TOOLS = {"go": "go test", "node": "node --test", "rust": "cargo test"}
_DRIVERS = {"go": "go_tests.py", "node": "node_tests.py", "rust": "cargo_tests.py"}
_ANALYSERS = {
    ("go", "lint"): "gofmt",
    ("go", "static"): "vet",
    ("rust", "lint"): "rustfmt",
    ("rust", "static"): "clippy",
}
_TOOL_NAMES = {"vet": "go vet"}
COVERAGE_TOOLS = {"python": "coverage", "go": "go cover", "node": "node"}
"""What measures coverage; stable Rust has no profile reader of its own, so it has none."""
VERSIONS = {"go": ["go", "version"], "node": ["node", "--version"], "rust": ["rustc", "--version"]}


def language_stage(name: str, lang: str, root: Path, *, in_pipeline: bool) -> Stage | None:
    """The stage of one of the three languages, None when the language has nothing for it."""
    if name == "build":
        return Stage(name, _BUILDS[lang])
    if name in ("unit", "integration", "e2e"):
        return _tests(name, lang, in_pipeline=in_pipeline)
    analyser = _ANALYSERS.get((lang, name)) or _project_linter(name, lang, root)
    if analyser is None:
        return None
    target = LINT_JSON if name == "lint" else STATIC_JSON
    # In the pipeline a finding is no failure of the stage: only findings that the base tree lacks count (RC-65).
    zero = ["--exit-zero"] if in_pipeline else []
    argv = [sys.executable, str(INSIDE / "find_problems.py"), analyser, target, *zero]
    return Stage(name, argv, expects=(target,), tool=_TOOL_NAMES.get(analyser, analyser))


def _tests(name: str, lang: str, *, in_pipeline: bool) -> Stage:
    junit = E2E_JUNIT if name == "e2e" else JUNIT
    return Stage(
        name,
        [sys.executable, str(INSIDE / _DRIVERS[lang]), name, junit],
        expects=(junit,),
        also=(COVERAGE,) if name == "unit" else (),
        may_be_empty=in_pipeline and name != "unit",
        tool=TEST_TOOLS[lang],
    )


def _project_linter(name: str, lang: str, root: Path) -> str | None:
    has_eslint = lang == "node" and name == "lint" and (root / "node_modules/.bin/eslint").is_file()
    return "eslint" if has_eslint else None


def language_environment(lang: str, root: Path) -> dict[str, str]:
    """The variables of the work: caches below `out`, nothing is fetched, nothing is configured from outside."""
    match lang:
        case "go":
            cache = {"GOCACHE": str(root / "out/.go-cache"), "GOPATH": "/tmp/go"}  # noqa: S108
            return cache | {"GOENV": "off", "GOPROXY": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
        case "node":
            return {"NO_UPDATE_NOTIFIER": "1", "npm_config_offline": "true", "npm_config_cache": "/tmp/npm"}  # noqa: S108
        case "rust":
            home = {"CARGO_HOME": "/tmp/cargo", "CARGO_TARGET_DIR": str(root / "out/target")}  # noqa: S108
            return home | {"CARGO_NET_OFFLINE": "true", "CARGO_INCREMENTAL": "0", "RUST_BACKTRACE": "0"}
        case _:
            return {}
