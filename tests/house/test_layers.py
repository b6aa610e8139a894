"""The import contracts hold, and cover every package of the core."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from importlinter.api import read_configuration

ROOT = Path(__file__).resolve().parents[2]
OUTER = {"adapters", "cli", "config", "ports", "services", "wiring"}
LOADER = "fleet.on_demand"
"""How packages are imported; it lies below all of them."""


def core_modules() -> set[str]:
    """Every part of `fleet` that is no outer layer."""
    found = {path.stem for path in (ROOT / "fleet").glob("*.py")}
    found |= {path.parent.name for path in (ROOT / "fleet").glob("*/__init__.py")}
    return {f"fleet.{name}" for name in found - OUTER - {"__init__"}} - {LOADER}


def test_every_part_of_the_core_is_in_its_layer() -> None:
    contracts = {
        c["id"]: c for c in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    }

    *_, core, lowest = contracts["layers"]["layers"]
    assert set(core.split(" : ")) == core_modules()
    assert lowest == LOADER
    for name in ("cluster-users", "settings", "drivers", "ray", "core-libraries"):
        assert core_modules() <= set(contracts[name]["source_modules"]), name


def test_core_of_the_purity_test_is_the_core_of_the_layers() -> None:
    source = (ROOT / "tests" / "house" / "test_core_is_pure.py").read_text()
    named = re.findall(
        r'"([a-z]+)(?:\.py)?"',
        "".join(re.findall(r"^(?:FILES|PACKAGES) = \((.*?)\)", source, re.MULTILINE | re.DOTALL)),
    )

    assert {f"fleet.{name}" for name in named} == core_modules()


def test_configuration_of_the_contracts_is_readable() -> None:
    configuration = read_configuration(str(ROOT / "pyproject.toml"))

    assert len(configuration["contracts_options"]) >= 10
