"""The desk's sources: what computes is tested by node alone, and nothing draws markup that somebody stored."""

from __future__ import annotations

import json
import re

import pytest

from scripts import desk

SOURCES = [path for path in sorted((desk.UI / "src").rglob("*.ts*")) if path != desk.TYPES]
# Ways from a text to markup or to a program, and ways to other hosts.
FORBIDDEN = re.compile(
    r"dangerouslySetInnerHTML|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|"
    r"localStorage|document\.cookie|srcdoc|window\.open|https?://(?!www\.w3\.org/)"
)


def test_sources_draw_no_markup_and_name_no_other_host() -> None:
    assert SOURCES
    assert [f"{p.name}: {m.group()}" for p in SOURCES for m in FORBIDDEN.finditer(p.read_text())] == []


def test_lock_names_no_host_and_has_a_hash_for_every_package() -> None:
    packages = json.loads((desk.UI / "package-lock.json").read_text())["packages"]
    del packages[""]

    assert packages
    assert [name for name, one in packages.items() if "resolved" in one or not one.get("integrity")] == []


def test_page_loads_two_libraries_alone() -> None:
    project = json.loads((desk.UI / "package.json").read_text())

    assert sorted(project["dependencies"]) == ["react", "react-dom"]


def test_unit_tests_of_the_desk_pass(capfd: pytest.CaptureFixture[str]) -> None:
    desk.unit_tests()

    assert "Failed" not in capfd.readouterr().out


@pytest.mark.wide
@pytest.mark.network
@pytest.mark.timeout(600)
def test_sources_fit_the_types_of_the_interface() -> None:
    try:
        desk.install()
    except desk.Failed as error:
        pytest.skip(f"no package registry is in reach: {error}")
    desk.check()
