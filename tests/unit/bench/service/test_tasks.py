"""Task sets: what each form gives, and what is refused with file and line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from typing import Any

import pytest

from fleet.bench.service.source import (
    calls_in,
    defined_tests,
    examples_in,
    expectations_in,
    normal_form,
    one_assertion_each,
    without_examples,
)
from fleet.bench.service.tasks import MAX_SET_BYTES, parse_documents, parse_lines, plain_bytes
from fleet.bench.task import BenchTask
from fleet.kernel.errors import InvalidInput

HUMAN = {
    "task_id": "H/1",
    "entry_point": "add",
    "prompt": 'import math\n\ndef add(a, b):\n    """Add.\n    >>> add(1, 2)\n    3\n    add(0, 0) -> 0\n    """\n',
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(2, 2) == 4\n",
}
MBPP = {
    "task_id": 7,
    "text": "Add two.",
    "code": "def add(a, b): ...",
    "test_list": ["assert add(1, 2) == 3", "assert 1"],
}
OWN = {
    "task_id": "o/1",
    "prompt": "Add.",
    "entry_point": "add",
    "visible": ["assert add(1, 1) == 2"],
    "hidden": ["h()"],
}
REPO = {
    "task_id": "r/1",
    "prompt": "Mend it.",
    "repository": "repo",
    "targets": ["calc.py"],
    "command": ("python", "t.py"),
    "hidden": {"folder": "judge"},
}
FOLDERS = {
    "repo": {"calc.py": b"x", "t.py": b"y", "copy_of_test.py": b"secret", "__init__.py": b""},
    "judge": {"hidden_test.py": b"secret", "t.py": b"stricter", "__init__.py": b""},
}


def folder(name: str) -> Mapping[str, bytes]:
    return FOLDERS[name]


def read(*documents: Any) -> tuple[BenchTask, ...]:
    lines = "\n".join(json.dumps(d) for d in documents)
    return parse_lines(lines.encode(), source="set.jsonl", folder=folder)


def test_human_eval_gives_examples_as_visible_tests_and_a_prompt_without_them():
    (task,) = parse_lines(gzip.compress(json.dumps(HUMAN).encode()), source="s", folder=folder)
    assert task.public.visible == ("assert add(1, 2) == 3", "assert add(0, 0) == 0")
    assert task.public.setup == "import math\n\n"
    assert task.hidden.tests[0].endswith("check(add)\n")
    assert ">>>" in task.public.prompt
    assert ">>>" not in task.public.blind_prompt
    assert "add(0, 0)" not in task.public.blind_prompt
    assert "return a + b" in task.solution


def test_mbpp_shows_its_first_test_and_judges_by_all():
    (task,) = read(MBPP)
    assert (task.public.task_id, task.public.entry_point, task.public.visible) == (
        "MBPP/7",
        "add",
        ("assert add(1, 2) == 3",),
    )
    assert task.hidden.tests == ("assert add(1, 2) == 3", "assert 1")
    assert "takes 2 argument(s)" in task.public.blind_prompt
    assert "assert" not in task.public.blind_prompt


def test_own_form_is_read_from_lines_and_documents():
    assert read(OWN) == parse_documents({"format": 1, "tasks": [OWN]}, source="s", folder=folder)
    (task,) = read(OWN)
    assert "assert add(1, 1) == 2" in task.public.prompt
    assert "h()" not in task.public.prompt


def test_repository_keeps_the_judges_files_out_of_the_tree_of_an_arm():
    (task,) = read(REPO)
    assert task.public.files == {"calc.py": b"x", "t.py": b"y", "__init__.py": b""}
    assert (set(task.hidden.files), task.hidden.command) == ({"hidden_test.py", "t.py", "__init__.py"}, REPO["command"])


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([1], "is no object"),
        ({**HUMAN, "prompt": ""}, "prompt"),
        ({**HUMAN, "entry_point": "a b"}, "entry_point"),
        ({**MBPP, "test_list": []}, "test_list"),
        ({**MBPP, "test_list": ["assert 1"]}, "calls no function"),
        ({**OWN, "extra": 1}, "extra"),
        ({**OWN, "hidden": []}, "list of `hidden` tests"),
        ({**OWN, "entry_point": ""}, "neither"),
        ({**REPO, "entry_point": "f"}, "a repository task has"),
        ({**REPO, "hidden": {}}, "no hidden folder"),
        ({**REPO, "repository": "../x"}, "outside the task set"),
        ({**REPO, "targets": ["/etc/passwd"]}, "no path inside"),
    ],
)
def test_bad_task_is_refused_by_line(document: Any, says: str):
    with pytest.raises(InvalidInput, match=says):
        read(OWN, document)


def test_bad_sets_are_refused():
    for data, says in ((b"", "holds 0 tasks"), (b"{", "line 1 is no JSON"), (b"\xff", "UTF-8")):
        with pytest.raises(InvalidInput, match=says):
            parse_lines(data, source="s", folder=folder)
    with pytest.raises(InvalidInput, match="twice"):
        read(OWN, OWN)
    with pytest.raises(InvalidInput, match="format: 1"):
        parse_documents({"tasks": []}, source="s", folder=folder)
    packed = gzip.compress(b"x" * 5000)
    with pytest.raises(InvalidInput, match="its end is missing"):
        plain_bytes(packed[:-9], source="s")
    with pytest.raises(InvalidInput, match="no whole gzip"):
        plain_bytes(b"\x1f\x8b" + b"garbage" * 4, source="s")
    with pytest.raises(InvalidInput, match="more than 64 MB"):
        plain_bytes(gzip.compress(b"\0" * (MAX_SET_BYTES + 1), 1), source="s")


def test_examples_need_literals_on_both_sides():
    text = ">>> f(x)\n1\n>>> f(1)\nsomething\nf(2) == 3.\nfor f([1, 2]) returns [1]\n>>> g(1)\n1\nf(1"
    assert [e.test for e in examples_in(text, "f")] == ["assert f(2) == 3", "assert f([1, 2]) == [1]"]
    assert without_examples("a\nExamples:\nf(1) == 2\nb", "f") == "a\nb"


def test_source_is_read_without_being_run():
    tests = "def test_a():\n    assert f(1) == 2\n    assert f(x) == 2\ndef test_b(arg): ...\n"
    assert calls_in(tests, "f") == ("f(1)",)
    assert expectations_in(tests, "f") == {"f(1)": "2"}
    assert defined_tests(tests) == ("test_a",)
    assert calls_in("def (", "f") == defined_tests("def (") == ()
    assert normal_form('def f():\n    "doc"\n    return 1 # c\n') == normal_form("def f():\n  return (1)")
    assert normal_form("def f():\n    'doc'") == "def f():\n    pass"
    assert normal_form("def (") == "def ("


def test_test_of_many_assertions_becomes_as_many_tests_and_an_assertion_counts_once():
    many = '    """Says f."""\n    assert f(1) == 2\n    assert f(2) == 3\n    assert f(1) == 2\n'
    own = "    x = f(3)\n    assert x == 4\n    assert x > 0\n"
    again = "    assert f(2) == 3\n    assert f(9)\n"
    code = f"from m import f\n\ndef test_f():\n{many}\ndef test_g():\n{own}\ndef test_h():\n{again}"
    split = one_assertion_each(code)
    assert defined_tests(split) == ("test_f_1", "test_f_2", "test_g", "test_h")
    assert split.count("f(2) == 3") == 1
    assert one_assertion_each("def (") == "def ("
