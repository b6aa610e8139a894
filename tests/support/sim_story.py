"""A small story that a scripted team can carry from its text to its branch, without any model or operating system.

`answer` plays every role agent, `toolchain` every program of the sandbox; both are functions of their input alone, so
that a run that was interrupted and one that was not come to the same end.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from typing import Any

from fleet.context.scope import ContextConfig
from fleet.kernel.ids import Principal
from fleet.models.port import AgentRequest
from fleet.owner.budgets import Budgeting
from fleet.owner.commands.handler import CommandHandler
from fleet.planning.coach_config import CoachConfig
from fleet.planning.project_state import ProjectState, fold_project
from fleet.sandbox.memory import ProgramEnd, ProgramStart
from fleet.workspace.service import specs
from tests.support.rules import files
from tests.support.sessions import Script, models, reply_of, shell, turn_of

PERSON = Principal("user:ana")
REPOSITORY = "/srv/git/textkit"
BASE_COMMIT = "0a" * 20
_PATH = "textkit/words.py"
_WRONG = "# a slip"
_IN_STEPS = "It is done in two steps."
_BASE = {
    _PATH: b'"""Words."""\n\n\ndef shout(text: str) -> str:\n    return text.upper()\n',
    "tests/test_words.py": b"from textkit.words import shout\n\n\ndef test_shout():\n    assert shout('a') == 'A'\n",
}


def story_text(number: int, *, tasks: int = 1) -> dict[str, Any]:
    """The text of one story; each number has its own. Of two tasks, the second needs the first."""
    return {
        "title": f"As a blog author, I want a slug made from title {number}",
        "description": (
            "Add a function slugify(text) to textkit/words.py, so that a link to an article can be read by people. "
            "A slug is lower case; every run of other characters becomes one hyphen."
            + (f" {_IN_STEPS}" if tasks > 1 else "")
        ),
        "acceptance_criteria": [
            'Given the title "Hello, World!", when slugify is called, then the result is "hello-world"',
            "Given a title without letters or digits, when slugify is called, then the result is the empty string",
        ],
        "constraints": {"paths": [_PATH]},
        "rigor": "L1",
    }


@cache
def commands() -> CommandHandler:
    """A command handler that lets the one person do everything."""
    roles = frozenset({"po", "qa", "architect", "devops", "admin"})
    return CommandHandler(
        roles_of=lambda principal: roles if principal.is_human else frozenset[str](),
        coach=files().load("coach.yaml", CoachConfig),
        config_digests=files().digests(),
        projects=built_in_project,
    )


async def built_in_project(project_id: str) -> ProjectState:
    """The project as it is without any event."""
    return fold_project(project_id, ())


@cache
def context_config() -> ContextConfig:
    """config/context.yaml, read once."""
    return files().load("context.yaml", ContextConfig)


def answer(request: AgentRequest) -> dict[str, Any]:
    """What a role agent answers; the third developer makes a mistake that it can repair."""
    match request.kind:
        case "propose":
            return _proposal(request)
        case "critique":
            return {"severity": "minor", "problem": "digits are not mentioned"}
        case "vote":
            return _ballot(request)
        case "derive":
            return {"tasks": [_TASK, _SECOND] if _IN_STEPS in request.own + request.shared else [_TASK]}
        case "draft":
            return _edit(_WRONG if request.variant == 2 else f"# variant {request.variant}")
        case "repair":
            return _edit(f"# variant {request.variant}, repaired")
        case "tests":
            return {"code": _TESTS, "names": ["test_ac_1", "test_ac_2"]}
        case "review":
            return {"broken_criterion": "none", "reason": "the tests pass"}
        case "summarize":
            return {"summary": "One way was proposed, and nobody spoke against it."}
        case "engineer":
            return _turn(request)
        case "document":
            return {"title": "Slugs", "summary": "slugify makes a slug.", "usage": "slugify(text)"}


_TESTS = (
    "from textkit.words import slugify\n\n\n"
    'def test_ac_1():\n    assert slugify("Hello, World!") == "hello-world"\n\n\n'
    'def test_ac_2():\n    assert slugify("!!!") == ""\n'
)
_TASK: dict[str, Any] = {
    "title": "Add slugify to the words module",
    "description": "Add slugify(text) to textkit/words.py.",
    "role": "developer",
    "kind": "code",
    "estimated_hours": 2,
    "priority": 1,
    "keywords": ["slug", "text"],
    "depends_on": [],
    "acceptance_refs": ["ac-1", "ac-2"],
    "paths": [_PATH],
}


_SECOND = _TASK | {
    "title": "Use slugify in the words module",
    "description": "Use slugify(text) where textkit/words.py joins words.",
    "priority": 2,
    "depends_on": [0],
}


def _proposal(request: AgentRequest) -> dict[str, Any]:
    return {
        "summary": f"Join the runs of letters, as {request.role} sees it",
        "interface": "slugify(text: str) -> str" if request.role != "devops" else "slugify(text) -> str",
        "path": _PATH,
        "criteria": [{"ac": f"ac-{n}", "how": "a test checks it"} for n in (1, 2)],
        "risk": "none",
    }


def _ballot(request: AgentRequest) -> dict[str, Any]:
    labels = [label for label in "ABCDE" if f"Candidate {label}:" in request.own]
    votes = [{"label": label, "vote": "approve", "reason": "it fits"} for label in labels]
    # The better candidate is known by its text, so that both orders of asking agree.
    best = sorted(labels, key=lambda label: request.own.split(f"Candidate {label}:")[1].strip()[:200])
    return {"votes": votes} | ({"ranking": best} if len(labels) > 1 else {})


def session_budgeting() -> Budgeting:
    """Budgets and one engine for all, on which developers work in sessions."""
    config = models()
    return Budgeting(limits=config.budgets, models=config)


def _turn(request: AgentRequest) -> dict[str, Any]:
    """A turn of an engineer: looks, an edit, a command that fails, tests, and its submission; or a repair."""
    remark = _WRONG if request.variant == 2 else f"# variant {request.variant}"
    submit = [("submit", {"summary": "slugify is there"})]
    if "You worked on this task before" in request.own:
        mended = {"path": _PATH, "old": _WRONG, "new": f"# variant {request.variant}, repaired"}
        script: Script = ([("edit", mended), ("tests", {})], submit, submit)
    else:
        body = f'def slugify(text: str) -> str:  {remark}\n    """The text as a slug."""\n    return text.lower()\n'
        added = {"path": _PATH, "old": "    return text.upper()\n", "new": f"    return text.upper()\n\n\n{body}"}
        script = (
            [("read", {"path": _PATH}), ("search", {"pattern": "def "})],
            [("edit", added), ("run", {"command": "put notes.txt half; fail"})],
            [("run", {"command": "rm notes.txt; say done"}), ("tests", {})],
            submit,
            submit,
        )
    number = turn_of(request)
    return reply_of(script[min(number, len(script)) - 1], number)


def _edit(remark: str) -> dict[str, Any]:
    code = f'def slugify(text: str) -> str:  {remark}\n    """The text as a slug."""\n    return text.lower()\n'
    return {"edits": [{"path": _PATH, "mode": "definitions", "content": code}]}


def toolchain(start: ProgramStart) -> ProgramEnd:
    """What the programs inside the sandbox would do on such a tree."""
    script = next((a for a in start.argv if a.endswith(".py")), start.argv[0]).rsplit("/", 1)[-1]
    return {
        "git_checkout.py": _checkout,
        "apply_edits.py": _apply,
        "agent_task.py": _pipeline,
        "run_tests.py": _run_tests,
        "git_commit.py": _commit,
        "bash": shell,
        "grep": shell,
        "python": shell,
    }[script](start)


def _checkout(start: ProgramStart) -> ProgramEnd:
    return ProgramEnd(written={**_BASE, specs.CHECKOUT: b"{}", specs.SUBMODULES: b"[]"})


def _apply(start: ProgramStart) -> ProgramEnd:
    request = json.loads(start.inputs["/inputs/edits.json"])
    written: dict[str, bytes | None] = {}
    for edit in request["edits"]:
        before = start.files.get(edit["path"], b"") if edit["mode"] == "definitions" else b""
        written[edit["path"]] = before + edit["content"].encode()
    text = b"".join(value or b"" for value in written.values())
    report = {
        "applied": True,
        "files": sorted(written),
        "normal_digest": hashlib.sha256(text).hexdigest(),
        "diff_lines": text.count(b"\n"),
        "added": text.count(b"\n"),
    }
    return ProgramEnd(written={**written, specs.EDITS: json.dumps(report).encode(), specs.DIFF: b"+ " + text})


def _pipeline(start: ProgramStart) -> ProgramEnd:
    stages = start.env["STAGES"].split(",")
    case = b'<testcase name="test_shout" classname="tests.test_words" file="tests/test_words.py"/>'
    junit = b"<testsuites>" + case + b"</testsuites>"
    lines = start.files[_PATH].count(b"\n")
    hits = "".join(f'<line number="{n}" hits="1"/>' for n in range(1, lines + 1))
    written = {
        specs.SUMMARY: _json(
            {
                "schema": 1,
                "exit_code": 0,
                "stages": [{"name": n, "status": "passed", "exit_code": 0} for n in stages],
            }
        ),
        specs.JUNIT: junit,
        specs.COVERAGE: f'<coverage><class filename="{_PATH}">{hits}</class></coverage>'.encode(),
        specs.LINT: b"[]",
        specs.STATIC: b"[]",
        specs.E2E_JUNIT: junit,
    }
    return ProgramEnd(written=written)


def _run_tests(start: ProgramStart) -> ProgramEnd:
    # A tree without any candidate may not have the file.
    code_under_test = start.files.get(_PATH)
    is_wrong = code_under_test is not None and _WRONG.encode() in code_under_test
    found: list[dict[str, Any]] = []
    for path, code in start.inputs.items():
        names = re.findall(r"^def (test_\w+)", code.decode(), re.MULTILINE)
        tests = [
            _outcome(name, is_wrong=code_under_test is None or (is_wrong and name.endswith("2"))) for name in names
        ]
        found.append({"name": path.rsplit("/", 1)[-1], "collected": True, "tests": tests})
    return ProgramEnd(written={specs.TESTS: _json({"files": found})})


def _outcome(name: str, *, is_wrong: bool) -> dict[str, Any]:
    if not is_wrong:
        return {"id": name, "outcome": "passed"}
    return {"id": name, "outcome": "failed", "exception": "AssertionError", "message": f"{name}: assert '!!!' == ''"}


def _commit(start: ProgramStart) -> ProgramEnd:
    # Without the date, which is when the story was created.
    request = {k: v for k, v in json.loads(start.inputs["/inputs/commit.json"]).items() if k != "date"}
    told = hashlib.sha1(_json(request), usedforsecurity=False)
    for path, data in sorted(start.files.items()):
        told.update(path.encode() + b"\0" + data)
    name = told.hexdigest()
    pack = {specs.PACK: f"pack of {name}".encode(), specs.INDEX: f"index of {name}".encode()}
    return ProgramEnd(written={specs.COMMIT: f"{name}\n".encode(), **pack})


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
