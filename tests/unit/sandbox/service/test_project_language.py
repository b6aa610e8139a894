"""Which language a project is written in, and which toolchain its tools run in."""

from __future__ import annotations

import pytest

from fleet.policy.runs.toolchains import Language
from fleet.sandbox.service.runs import language_of, toolchain_for


@pytest.mark.parametrize(
    ("paths", "language"),
    [
        ((), "python"),
        (("README.md",), "python"),
        (("go.mod", "main.go"), "go"),
        (("Cargo.toml", "package.json"), "rust"),
        (("package.json", "scripts/build.py"), "node"),
        (("package.json", "pyproject.toml"), "python"),
        (("package.json", "tool.py"), "python"),
        (("web/package.json", "core/go.mod"), "python"),
    ],
)
def test_language_is_that_of_the_build_file_at_the_root(paths: tuple[str, ...], language: Language) -> None:
    assert language_of(paths) == language


def test_toolchain_follows_the_language_unless_one_was_named() -> None:
    assert toolchain_for("python", "env:/opt/x") == "env:/opt/x"
    assert toolchain_for("go", "python") == toolchain_for("go", "env:/opt/x") == "go"
    assert toolchain_for("go", "go1.22") == "go1.22"
