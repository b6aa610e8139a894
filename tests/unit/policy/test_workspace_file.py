"""What a repository declares of its workspace, and how a wrong line is named."""

from __future__ import annotations

import pytest

from fleet.kernel.errors import InvalidInput
from fleet.policy.workspace_file import WorkspaceFile, command_variables, parse_workspace_file

WHOLE = b"""
root = "services/api"

[commands]
build = "make"
test = "make test"
e2e = "make e2e"

[[services]]
name = "cache"
kind = "redis"
env_prefix = "TEST_REDIS"
"""
SERVICE = '[[services]]\nname = "a"\nkind = "redis"\nenv_prefix = "A"\n'


@pytest.mark.rule("RC-110")
def test_declared_commands_services_and_root_are_read() -> None:
    declared = parse_workspace_file(WHOLE)
    assert (declared.root, declared.services[0].kind) == ("services/api", "redis")
    assert command_variables(declared.commands, "go") == {
        "BUILD_CMD": "make",
        "GO_TEST_CMD": "make test",
        "E2E_CMD": "make e2e",
    }
    assert parse_workspace_file(b"") == WorkspaceFile()


@pytest.mark.rule("RC-110")
@pytest.mark.parametrize(
    ("text", "line", "field", "words"),
    [
        ('root = "."\n[commands]\ntset = "x"\n', 3, "commands.tset", "no such key"),
        ("[commands]\n\ntest = 3\n", 3, "commands.test", "string"),
        ('[commands]\nlint = "a\\nb"\n', 2, "commands.lint", "one line"),
        ('root = "../x"\n', 1, "root", "folder of the repository"),
        ('root = "/x"\n', 1, "root", "folder of the repository"),
        (
            '[[services]]\nname = "a"\nkind = "redis"\nenv_prefix = "A"\n[[services]]\nname = "B-2"\n',
            6,
            "services[1].name",
            "match",
        ),
        ('[[services]]\nname = "a"\nkind = "redis"\n', 1, "services[0].env_prefix", "required"),
        ("commands.test = 3\n", 1, "commands.test", "string"),
        (SERVICE * 2, None, "services", "twice"),
        ('other = "x"\n', 1, "other", "no such key"),
    ],
)
def test_wrong_line_is_refused_by_key_and_line(text: str, line: int | None, field: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_workspace_file(text.encode())
    problem = refused.value.details["problems"][0]
    assert words in problem["message"]
    if line is not None:
        assert (problem["field"], problem["line"]) == (field, str(line))
        assert f"line {line}: {field}" in refused.value.message
