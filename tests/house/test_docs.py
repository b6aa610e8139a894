"""The documentation is executed: blocks run or parse; commands, options, variables and endpoints exist (GL-24)."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.main
import yaml

from fleet.cli.app import app
from fleet.config.environment import config_files, load_settings, settings_keys
from fleet.config.secrets import SecretsSettings
from fleet.config.settings import FleetSettings
from fleet.models.profiles import load_models
from fleet.policy.workspace_file import parse_workspace_file
from fleet.story.text import parse
from scripts import docs, openapi
from tests.support.kubernetes_jobs import deny_all_policy

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BIN = Path(sys.executable).parent
pytestmark = pytest.mark.rule("GL-24")


class Block(NamedTuple):
    """One fenced block: where, in which language, marked to be run or not, and its text."""

    place: str
    language: str
    is_run: bool
    text: str


def blocks_of(page: Path) -> list[Block]:
    """Every fenced block of a page."""
    text = page.read_text()
    pattern = re.compile(r"^(<!-- run -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [
        Block(f"{page.name}:{text.count(chr(10), 0, m.start()) + 1}", m.group(2), m.group(1) is not None, m.group(3))
        for m in pattern.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def of(*languages: str) -> pytest.MarkDecorator:
    """One test per block of these languages."""
    chosen = [block for block in BLOCKS if block.language in languages]
    return pytest.mark.parametrize("block", chosen, ids=[block.place for block in chosen])


def test_every_block_names_a_language_that_is_checked() -> None:
    assert {block.language for block in BLOCKS} <= {"bash", "python", "yaml", "json", "toml", "text"}
    assert any(block.is_run for block in BLOCKS)


@of("bash")
def test_bash_block_runs_or_is_at_least_a_script(block: Block, tmp_path: Path) -> None:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(tmp_path), "FLEET_HOME": str(tmp_path / "fleet"), "LANG": "C.UTF-8"}
    command = ["bash", "-euo", "pipefail", *([] if block.is_run else ["-n"]), "-c", block.text]

    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr


@of("python")
def test_python_block_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: most of what a process of its own would do is to import the fleet again."""
    monkeypatch.chdir(tmp_path)

    exec(compile(block.text, block.place, "exec"), {"__name__": "__main__"})


@of("json")
def test_json_block_parses(block: Block) -> None:
    assert isinstance(json.loads(block.text), dict)


@of("toml")
def test_toml_block_is_a_valid_declaration_of_a_repository(block: Block) -> None:
    assert parse_workspace_file(block.text.encode()) is not None


@of("yaml")
def test_yaml_block_is_a_valid_story_or_configuration(block: Block) -> None:
    for document in yaml.safe_load_all(block.text):
        check_document(document, block.place)


def check_document(document: dict[str, Any], place: str) -> None:
    """The document is what its page says that it is."""
    if "title" in document:
        parse(document)
    elif "engines" in document:
        packaged = config_files(load_settings({"HOME": "/tmp"})).document("models.yaml")
        load_models({**packaged, **document})
    elif {"forge", "models", "deploy", "notifications", "sandbox"} & set(document):
        FleetSettings.model_validate({"home": "/tmp", **document})
    elif "providers" in document:
        SecretsSettings.model_validate(document)
    elif document.get("kind") == "NetworkPolicy":
        assert document == deny_all_policy(document["metadata"]["namespace"])
    elif document.get("kind") == "Role":
        assert all(rule["verbs"] and rule["resources"] for rule in document["rules"])
    else:
        assert place.startswith("CONTRIBUTING"), f"{place}: nothing checks this block"


def commands() -> dict[str, set[str]]:
    """`story list` -> its options, for every command that exists."""

    def below(command: Any, path: str) -> dict[str, set[str]]:
        options = {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}
        found = {path: options | {"--help", "-h"}}
        for name, child in getattr(command, "commands", {}).items():
            found |= below(child, f"{path} {name}".strip())
        return found

    return below(typer.main.get_command(app), "")


def problems_of_line(line: str, known: dict[str, set[str]]) -> list[str]:
    """What is wrong with the `fleet ...` calls of one line of shell."""
    wrong: list[str] = []
    for call in re.findall(r"(?:^|[\s;&|(])(?:\.venv/bin/)?fleet((?: [^\s;&|)`]+)*)", line):
        words = call.split()
        path = ""
        while words and f"{path} {words[0]}".strip() in known:
            path = f"{path} {words.pop(0)}".strip()
        if not path and words and not words[0].startswith("-"):
            wrong.append(f"no command: fleet {words[0]}")
        if path == "story" and words:
            wrong.append(f"no command: fleet story {words[0]}")
        wrong += [
            f"no option: fleet {path} {w}" for w in words if w.startswith("-") and w.split("=")[0] not in known[path]
        ]
    return wrong


@of("bash")
def test_commands_of_bash_blocks_exist(block: Block) -> None:
    known = commands()
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert [problem for line in block.text.splitlines() for problem in problems_of_line(line, known)] == []
    assert set(re.findall(r"^make ([a-z0-9-]+)", block.text, re.MULTILINE)) <= targets


def test_wrong_commands_are_found() -> None:
    known = commands()

    assert problems_of_line("fleet run a.yaml --repo x && .venv/bin/fleet story list --json", known) == []
    assert problems_of_line("fleet runn a.yaml", known) == ["no command: fleet runn"]
    assert problems_of_line("fleet story lst", known) == ["no command: fleet story lst"]
    assert problems_of_line("fleet up --detatch", known) == ["no option: fleet up --detatch"]


def _section(page: str, heading: str) -> str:
    text = (ROOT / "docs" / page).read_text()
    return text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]


def test_command_line_page_documents_exactly_the_commands_that_exist() -> None:
    documented = {
        " ".join(w for w in call.split()[1:] if re.fullmatch(r"[a-z][a-z-]*", w))
        for call in re.findall(r"^\| `(fleet [^`]+)`", _section("cli.md", "Commands"), re.MULTILINE)
    }

    known = commands()
    groups = {path for path in known if any(other.startswith(f"{path} ") for other in known)}
    assert documented == known.keys() - groups - {""}


def test_command_line_page_documents_exactly_the_options_of_run() -> None:
    documented = set(re.findall(r"^\| `(--[a-z-]+)", _section("cli.md", "Commands"), re.MULTILINE))

    assert documented == commands()["run"] - {"--help", "-h"}


def test_planned_commands_do_not_exist_yet() -> None:
    calls = re.findall(r"^\| `fleet ([^`]+)`", _section("cli.md", "Planned commands"), re.MULTILINE)
    planned = {" ".join(w for w in call.split() if re.fullmatch(r"[a-z][a-z-]*", w)) for call in calls}

    assert planned.isdisjoint(commands())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_variables_of_a_page_exist(page: Path) -> None:
    known = {key.variable for key in settings_keys()} | set(docs.model_variables())

    assert set(re.findall(r"\bFLEET_[A-Z0-9_]+\b(?!\*)", page.read_text())) <= known


def test_every_model_variable_is_accepted_as_a_setting() -> None:
    load_settings({"HOME": "/tmp", **dict.fromkeys(docs.model_variables(), "http://127.0.0.1:1/v1")})


def test_configuration_page_is_up_to_date() -> None:
    assert docs.main(["--check"]) == 0


@pytest.mark.parametrize(
    ("page", "section"), [(openapi.GATEWAY, "Endpoints"), (openapi.MODELS, "Models for other programs: `/v1`")]
)
def test_every_endpoint_is_documented_and_every_documented_one_exists(page: str, section: str) -> None:
    document = openapi.documents()[page]
    paths: dict[str, dict[str, Any]] = document["paths"]
    prefix = document.get("servers", [{"url": ""}])[0]["url"]
    exist = {f"{method.upper()} {prefix}{path}" for path, item in paths.items() for method in item}
    documented = re.findall(r"^\| `((?:GET|POST|PUT|PATCH|DELETE) [^`]+)`", _section("api.md", section), re.MULTILINE)

    assert sorted(documented) == sorted(exist)


@pytest.mark.rule("AP-11")
def test_openapi_documents_in_the_repository_are_those_of_the_running_front() -> None:
    assert openapi.main(["--check"]) == 0


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    pages = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))

    assert sorted(re.findall(r": (\S+\.md)$", nav, re.MULTILINE)) == pages


@pytest.mark.parametrize("page", [*PAGES, *(ROOT / "docs").glob("*/*.md")], ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_scripts_say_what_they_do() -> None:
    for path in sorted((ROOT / "scripts").glob("*.py")):
        assert ast.get_docstring(ast.parse(path.read_text())), path.name


def test_every_name_that_outsiders_may_import_is_where_the_page_says() -> None:
    page = (ROOT / "docs" / "extending.md").read_text().split("## What you may import")[1]
    rows = re.findall(r"^\| `(fleet\.[\w.]+)` \| (.+) \|$", page, re.MULTILINE)
    missing = [
        f"{module}.{name}"
        for module, names in rows
        for name in re.findall(r"`(\w+)`", names)
        if getattr(importlib.import_module(module), name, None) is None
    ]
    assert missing == []
    assert len(rows) >= 15


def test_examples_import_only_what_outsiders_may() -> None:
    page = (ROOT / "docs" / "extending.md").read_text().split("## What you may import")[1]
    allowed = set(re.findall(r"^\| `(fleet\.[\w.]+)` \|", page, re.MULTILINE))
    found = {
        node.module
        for path in (ROOT / "examples" / "extend").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fleet.")
    }
    assert found - allowed == set()
