"""Calls as commands, and differences of texts: pure translations."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleet.kernel.errors import PolicyDenied
from fleet.policy.catalogue import TOOL_OPS
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.calls import command_of
from fleet.trees.text_diff import unified_diff


def command(tool: str, op: str, language: str = "python", **args: Any) -> tuple[str, ...]:
    return command_of(ToolCall(tool=tool, op=op, args=args), language=language).argv


@pytest.mark.rule("RT-43", "RT-44", "RT-45")
@pytest.mark.parametrize(("tool", "op"), [(t, o) for t in ("tests", "build", "lint") for o in sorted(TOOL_OPS[t])])
def test_every_operation_has_a_command(tool: str, op: str) -> None:
    if op != "secret_scan":
        assert command(tool, op)


def test_paths_never_look_like_options_and_options_keep_their_order() -> None:
    argv = command("tests", "pytest", options=["-x", "-q"], paths=["tests/a.py", "."])
    assert argv[-4:] == ("-x", "-q", "./tests/a.py", ".")
    assert command("tests", "go_test") == ("go", "test", "./...")
    assert command("tests", "cargo_test", paths=["tests/api.rs"]) == ("cargo", "test", "--offline", "--test", "api")
    assert command("lint", "lint", "go", paths=["pkg"])[-1] == "./pkg"


@pytest.mark.rule("RT-55")
@pytest.mark.parametrize("argv", [["/bin/sh"], ["./run"], []])
def test_program_that_is_a_path_is_refused(argv: list[str]) -> None:
    with pytest.raises(PolicyDenied) as caught:
        command("exec", "run", argv=argv)
    assert caught.value.details["rule_id"] == "command_not_listed"
    assert command("exec", "run", argv=["ls", "-l"]) == ("ls", "-l")


def test_operation_without_a_program_for_the_language_is_refused_by_name() -> None:
    with pytest.raises(PolicyDenied, match="no program for rust"):
        command("lint", "code_scan", "rust")


LINES = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "\x0cd\u2028\n"]), max_size=12)


@settings(max_examples=15, deadline=None)
@example(old=["a\n", *["b\n"] * 9], new=["b\n"] * 10, ends=True)
@given(old=LINES, new=LINES, ends=st.booleans())
def test_patch_turns_the_old_text_into_the_new_one(
    tmp_path_factory: pytest.TempPathFactory, old: list[str], new: list[str], ends: bool
) -> None:
    before, after = "".join(old), "".join(new) + ("" if ends else "tail")
    diff = unified_diff(before, after, path="f.txt")
    assert (diff == "") == (before == after)
    if diff and before:
        folder = tmp_path_factory.mktemp("patch")
        (folder / "f.txt").write_bytes(before.encode())
        subprocess.run(["git", "apply", "-p1", "-"], cwd=folder, input=diff.encode(), check=True, capture_output=True)
        target: Path = folder / "f.txt"
        assert target.read_bytes() == after.encode()


def test_two_long_texts_are_one_hunk() -> None:
    old, new = "".join(f"{n}\n" for n in range(3000)), "".join(f"x{n}\n" for n in range(3000))
    diff = unified_diff("same\n" + old, "same\n" + new, path="f")
    assert diff.count("@@ -1,3001 +1,3001 @@\n") == 1
