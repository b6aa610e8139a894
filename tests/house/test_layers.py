"""The import contracts cover every package, and call the layers inside a package what the test of purity calls them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from importlinter.api import read_configuration

from scripts.layout import ADAPTERS, OUTER, PORT, SERVICE

ROOT = Path(__file__).resolve().parents[2]


def contracts() -> dict[str, dict[str, Any]]:
    """The contracts of pyproject.toml, by id."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return {contract["id"]: contract for contract in found}


def words(layers: list[str]) -> set[str]:
    """What the layers name."""
    return set(re.findall(r"[\w.]+", " ".join(layers)))


def packages() -> set[str]:
    """Every package of `fleet` that ships modules."""
    return {f"fleet.{path.parent.name}" for path in (ROOT / "fleet").glob("*/__init__.py")}


def test_every_package_has_its_place_in_the_order() -> None:
    assert {name for name in words(contracts()["packages"]["layers"]) if name.startswith("fleet.")} == packages()


def test_package_is_a_folder() -> None:
    assert [path.name for path in (ROOT / "fleet").glob("*.py")] == ["__init__.py"]


def test_package_with_a_port_keeps_the_layers() -> None:
    layered = {f"fleet.{path.relative_to(ROOT / 'fleet').parts[0]}" for path in (ROOT / "fleet").glob("*/port*")}
    assert layered - set(contracts()["layers"]["containers"]) - {f"fleet.{name}" for name in OUTER} == set()
    assert words(contracts()["layers"]["layers"]) == PORT | SERVICE | ADAPTERS


def test_configuration_of_the_contracts_is_readable() -> None:
    configuration = read_configuration(str(ROOT / "pyproject.toml"))

    assert len(configuration["contracts_options"]) >= 10
