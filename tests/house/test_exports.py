"""The public names of every package are pinned: adding or dropping one is a decision."""

from __future__ import annotations

import importlib
import json

import pytest

from scripts.exports import SNAPSHOT, exports, listed_in, packages

MEND = "decide whether this is meant, then run `python scripts/exports.py`"


def test_exports_equal_the_snapshot() -> None:
    assert exports() == json.loads(SNAPSHOT.read_text()), MEND


@pytest.mark.parametrize("name", packages())
def test_package_has_an_explicit_list_of_names_that_exist(name: str) -> None:
    module = importlib.import_module(name)

    assert hasattr(module, "__all__"), f"{name} has no __all__"
    assert [export for export in module.__all__ if not hasattr(module, export)] == []
    assert len(set(module.__all__)) == len(module.__all__)


def test_names_are_read_from_either_form_of_assignment() -> None:
    assert listed_in('__all__ = ["b", "a"]') == listed_in('__all__: list[str] = ["a", "b"]') == ["a", "b"]
    assert listed_in("x = 1") == []
