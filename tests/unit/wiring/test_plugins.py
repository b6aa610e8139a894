"""Entry points are found by group and name; what does not fit says what, where and what to do."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from fleet.kernel.errors import ConfigError
from fleet.kernel.plugin import Plugin
from fleet.wiring.plugins import Group, choose, find, names

PACKAGE = """
from tests.unit.wiring.test_plugins import Options, Thing

THING = Thing(name="thing", options=Options, make=lambda options, parts: options)
OTHER = Thing(name="another", options=Options, make=lambda options, parts: options)
NUMBER = 5
"""
_numbers = itertools.count(1)


class Options(BaseModel):
    """Options that a test gives."""

    size: int
    folder: Path = Path("/srv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing(Plugin[Any, None, Any]):
    """What the groups of these tests hold."""


Install = Callable[[dict[str, str]], Group[Thing]]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a package with these entry points into a group of its own, which is returned."""
    group = f"swe_fleet.of_a_test_{next(_numbers)}"

    def put(entries: dict[str, str]) -> Group[Thing]:
        number = next(_numbers)
        folder = tmp_path / str(number)
        info = folder / f"package_{number}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: package-{number}\nVersion: 1.0\n")
        listed = "".join(
            f"{name} = {value.replace('PACKAGE', f'package_{number}')}\n" for name, value in entries.items()
        )
        (info / "entry_points.txt").write_text(f"[{group}]\n{listed}")
        (folder / f"package_{number}.py").write_text(PACKAGE)
        monkeypatch.syspath_prepend(str(folder))
        return Group(group, "thing", Thing, ("shipped",))

    return put


def problem(caught: pytest.ExceptionInfo[ConfigError]) -> str:
    return caught.value.details["problem"]


@pytest.mark.rule("RT-69")
def test_plugin_is_found_by_name_and_makes_of_checked_options(install: Install) -> None:
    group = install({"thing": "PACKAGE:THING"})
    assert names(group) == {"thing"}
    chosen = choose(group, "thing", {"size": "3"}, where="fleet.yaml: things")
    assert chosen.plugin.make(chosen.options, None) == Options(size=3)
    assert find(group, "thing") is chosen.plugin


@pytest.mark.rule("RT-69", "GL-22")
@pytest.mark.parametrize(
    ("name", "value", "kind", "words"),
    [
        ("thing", "PACKAGE:THING", "unknown", "there is no thing 'gone': use one of shipped, thing"),
        ("gone", "PACKAGE:MISSING", "broken", "cannot be loaded: AttributeError: .*MISSING"),
        ("gone", "no_such_module_of_a_test:X", "broken", "cannot be loaded: ModuleNotFoundError"),
        ("gone", "PACKAGE:NUMBER", "wrong_type", "is no Thing; mend or uninstall it"),
        ("gone", "PACKAGE:OTHER", "wrong_type", "thing 'gone' calls itself 'another': name both alike"),
    ],
)
def test_entry_point_that_does_not_fit_says_why(install: Install, name: str, value: str, kind: str, words: str) -> None:
    group = install({name: value})
    with pytest.raises(match=words) as caught:
        choose(group, "gone", {"size": 3}, where="fleet.yaml: things")
    assert problem(caught) == kind


@pytest.mark.rule("RT-69")
def test_two_packages_of_one_name_are_told_apart_by_nobody(install: Install) -> None:
    install({"thing": "PACKAGE:THING"})
    group = install({"thing": "PACKAGE:THING"})
    for look in (lambda: find(group, "thing"), lambda: names(group)):
        with pytest.raises(match=r"two packages bring a thing 'thing' \(package-\d+, package-\d+\)") as caught:
            look()
        assert problem(caught) == "doubled"


@pytest.mark.rule("GL-22")
def test_wrong_option_is_named_without_its_value(install: Install) -> None:
    group = install({"thing": "PACKAGE:THING"})
    options = {"size": "hunter2", "sise": 4}
    with pytest.raises(
        ConfigError, match=r"fleet\.yaml: things: options of thing 'thing': size: .*; sise: Extra"
    ) as caught:
        choose(group, "thing", options, where="fleet.yaml: things")
    assert "hunter2" not in caught.value.message
