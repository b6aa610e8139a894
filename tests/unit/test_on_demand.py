"""Packages that import a module when one of its names is asked for."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fleet.on_demand import on_demand
from scripts.exports import ROOT, listed_in

ON_DEMAND = sorted(path for path in ROOT.glob("*/**/__init__.py") if "on_demand(__name__" in path.read_text())


def test_a_module_is_imported_when_its_name_is_asked_for_and_no_other_with_it(tmp_path: Path) -> None:
    package = tmp_path / "lazypack"
    package.mkdir()
    (package / "__init__.py").write_text(
        textwrap.dedent("""
            from typing import TYPE_CHECKING
            from fleet.on_demand import on_demand
            if TYPE_CHECKING:
                from lazypack.one import first
                from lazypack.two import second
            else:
                __getattr__ = on_demand(__name__, __file__)
        """)
    )
    (package / "one.py").write_text("first = 1")
    (package / "two.py").write_text("raise RuntimeError('two was imported')")
    code = "import lazypack; from lazypack import first; assert first == lazypack.first == 1; from lazypack import none"

    environ = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True)

    assert "ImportError: cannot import name 'none' from 'lazypack'" in found.stderr
    assert "two was imported" not in found.stderr


def test_a_name_that_is_not_listed_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'x' has no attribute 'y'"):
        on_demand("x", __file__)("y")


@pytest.mark.parametrize("file", ON_DEMAND, ids=lambda file: file.parent.relative_to(ROOT).as_posix())
def test_no_exported_name_is_that_of_a_submodule(file: Path) -> None:
    """Python sets a submodule as an attribute of its package: the name would be hidden by it."""
    modules = {path.stem for path in file.parent.iterdir()}
    assert not modules & set(listed_in(file.read_text()))
