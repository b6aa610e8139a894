"""Merging definitions into a Python source, and comparing sources by meaning."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.inside import load

edits: Any = load("edits")

TARGET = '''#!/usr/bin/env python
"""Shapes."""

from __future__ import annotations

import math

__all__ = ["area"]

# How round it is.
PI = math.pi


# Area of a circle.
@staticmethod
def area(r):
    return PI * r * r


class Box:
    side = 1


if __name__ == "__main__":
    print(area(2))
'''


def merge(content: str, target: str = TARGET, path: str = "shapes/core.py") -> str:
    merged: str = edits.merge_definitions(target, content, path=path)
    ast.parse(merged)
    return merged


def test_merge_known_function_replaces_it_with_decorator_and_keeps_its_comment() -> None:
    merged = merge("def area(r):\n    return 3 * r\n")
    assert "# Area of a circle.\ndef area(r):\n    return 3 * r\n" in merged
    assert "@staticmethod" not in merged
    assert merged.count("def area") == 1


def test_merge_known_function_with_own_comment_replaces_the_comment() -> None:
    merged = merge("# Better.\ndef area(r):\n    return 3 * r\n")
    assert "# Better." in merged
    assert "# Area of a circle." not in merged


def test_merge_new_function_is_appended_before_the_main_block_and_joins_all() -> None:
    merged = merge("def volume(r):\n    return r ** 3\n\n\ndef _hidden():\n    pass\n")
    assert merged.index("def volume") < merged.index("if __name__")
    assert merged.index("class Box") < merged.index("def volume")
    assert '__all__ = ["area", "volume"]' in merged


def test_merge_main_block_of_the_edit_replaces_the_old_one() -> None:
    merged = merge('if __name__ == "__main__":\n    print("new")\n')
    assert merged.count("__main__") == 1
    assert 'print("new")' in merged


def test_merge_main_block_in_the_middle_is_replaced_in_place() -> None:
    merged = merge('if __name__ == "__main__":\n    b()\n', 'if __name__ == "__main__":\n    a()\nX = 1\n', "m.py")
    assert merged == 'if __name__ == "__main__":\n    b()\nX = 1\n'


def test_merge_main_block_into_a_file_without_one_is_appended_last() -> None:
    assert merge('if __name__ == "__main__":\n    a()\n\n\ndef a(): pass\n', "", "m.py").endswith("    a()\n")


def test_merge_assignment_and_class_are_replaced() -> None:
    merged = merge("PI = 3\n\nclass Box:\n    side = 2\n")
    assert "PI = 3" in merged
    assert "math.pi" not in merged
    assert "side = 2" in merged
    assert "side = 1" not in merged


def test_merge_imports_are_added_once_below_the_present_ones() -> None:
    merged = merge("import math\nimport json\nfrom os import path, sep\n\ndef area(r):\n    return json\n")
    assert merged.count("import math") == 1
    assert merged.index("from __future__") < merged.index("import json") < merged.index("__all__")
    assert "from os import path, sep" in merged


def test_merge_import_of_the_module_itself_is_left_out() -> None:
    content = "from shapes.core import Box\nfrom .core import area\nimport shapes.core\n\ndef two():\n    return Box\n"
    merged = merge(content, path="src/shapes/core.py")
    assert "shapes.core" not in merged
    assert ".core" not in merged


def test_merge_future_import_goes_above_every_other_import() -> None:
    merged = merge("from __future__ import annotations\nimport os\n\nX = 1\n", '"""Doc."""\nimport sys\n', "m.py")
    lines = [line for line in merged.splitlines() if "import" in line]
    assert lines == ["from __future__ import annotations", "import sys", "import os"]
    assert merged.startswith('"""Doc."""\n')


def test_merge_guarded_import_is_placed_with_the_imports_once() -> None:
    content = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from x import Y\n\ndef f(a: Y): ...\n"
    once = merge(content, "import os\n\nA = 1\n", "m.py")
    assert once.index("if TYPE_CHECKING") < once.index("A = 1")
    assert merge(content, once, "m.py").count("if TYPE_CHECKING") == 1


def test_merge_overloads_replace_one_definition_by_all() -> None:
    content = "@overload\ndef area(r: int): ...\n\n\ndef area(r):\n    return 0\n"
    assert merge(content).count("def area") == 2
    assert merge("def area(r):\n    return 1\n", merge(content)).count("def area") == 1


def test_merge_into_a_missing_file_keeps_docstring_and_imports() -> None:
    merged = merge('"""New."""\n\nimport os\n\n\ndef cwd():\n    return os.getcwd()\n', "", "new.py")
    assert merged.startswith('"""New."""')
    assert merged.index("import os") < merged.index("def cwd")


def test_merge_into_a_file_with_a_licence_comment_keeps_it_first() -> None:
    merged = merge("import os\n\ndef f():\n    return os\n", "# Licence\n\nX = 1\n", "m.py")
    assert merged.startswith("# Licence\n")
    assert merged.index("import os") < merged.index("X = 1")


def test_merge_statement_that_is_there_already_is_not_repeated() -> None:
    target = "import app\n\napp.register(1)\n"
    assert merge("app.register(1)\n", target, "m.py").count("register") == 1
    assert merge("app.register(2)\n", target, "m.py").count("register") == 2


def test_merge_multiline_and_tuple_all_keep_their_form() -> None:
    content = "def b(): ...\n"
    assert '    "b",\n' in merge(content, '__all__ = [\n    "z",\n    "a",\n]\n', "m.py")
    assert '__all__ = ("a", "b")' in merge(content, '__all__ = ("a",)\n', "m.py")
    assert '__all__ = ("b",)' in merge(content, "__all__ = ()\n", "m.py")


def test_merge_computed_or_own_all_is_left_alone() -> None:
    assert "__all__ = names()" in merge("def b(): ...\n", "__all__ = names()\n", "m.py")
    assert '__all__ = ["a", X]' in merge("def b(): ...\n", '__all__ = ["a", X]\n', "m.py")
    assert '__all__ = ["c"]' in merge('__all__ = ["c"]\n\ndef b(): ...\n', '__all__ = ["a"]\n', "m.py")


@pytest.mark.parametrize(
    ("content", "target", "message"),
    [
        ("def f(:\n", "", "line 1"),
        ("", "", "holds no definition"),
        ("X = 1\n", "def (\n", "no valid Python"),
        ("X = 1; Y = 2\n", "", "one statement per line"),
        ("X = 1\0\n", "", "m.py"),
    ],
)
def test_merge_bad_source_is_refused_with_its_reason(content: str, target: str, message: str) -> None:
    with pytest.raises(edits.EditProblem, match=message):
        edits.merge_definitions(target, content, path="m.py")


NAMES = st.sampled_from(["alpha", "beta", "gamma", "delta"])


@settings(max_examples=60, deadline=None)
@given(old=st.lists(NAMES, unique=True), new=st.lists(NAMES, min_size=1, unique=True))
def test_merge_any_definitions_gives_each_name_once_and_is_idempotent(old: list[str], new: list[str]) -> None:
    target = "\n\n".join(f"def {n}():\n    return 'old'\n" for n in old)
    content = "\n\n".join(f"def {n}():\n    return 'new'\n" for n in new)
    merged = merge(content, target, "m.py")
    functions = {node.name: ast.unparse(node.body[0]) for node in ast.parse(merged).body}  # type: ignore[attr-defined]
    assert functions == {n: "return 'new'" if n in new else "return 'old'" for n in {*old, *new}}
    assert merge(content, merged, "m.py") == merged


@pytest.mark.rule("CN-34")
def test_normal_form_ignores_layout_comments_and_docstrings() -> None:
    one = 'def f(a):\n    """Doc."""\n    return a + 1  # why\n'
    two = "def f( a ):\n\n    return (a+1)\n"
    assert edits.normal_form("a.py", one) == edits.normal_form("a.py", two)
    assert edits.normal_form("a.py", one) != edits.normal_form("a.py", one.replace("1", "2"))
    assert edits.normal_form("a.txt", "a  b\n") == edits.normal_form("a.txt", "a b")
    assert edits.normal_form("a.py", "def (") == "def ("


def test_normal_form_digest_leaves_out_files_that_mean_the_same() -> None:
    changed = ("a.py", "X = 1\n", "X = 2\n")
    digest = edits.normal_form_digest
    assert digest([changed]) == digest([("b.py", "Y = 1\n", "Y=1\n"), changed])
    assert digest([changed]) != digest([("b.py", "X = 1\n", "X = 2\n")])
