"""Operator patterns of context.yaml are in use from the start of a process, or stop it (CX-76)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.config.files import ConfigFiles, packaged_directory
from fleet.kernel.errors import ConfigError
from fleet.redaction.redact import redact, use_operator_patterns
from fleet.wiring.stores.redaction import use_configured_redaction


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    yield
    use_operator_patterns([])


def files_with(folder: Path, part: str) -> ConfigFiles:
    shipped = (packaged_directory() / "context.yaml").read_text()
    (folder / "context.yaml").write_text(f"{shipped}\n{part}\n")
    return ConfigFiles(packaged_directory(), folder)


@pytest.mark.rule("CX-76")
def test_patterns_of_the_site_are_used(tmp_path: Path) -> None:
    part = 'redaction: {patterns: [{name: BADGE, expression: "badge-[0-9]{6}", samples: ["badge-123456"]}]}'
    use_configured_redaction(files_with(tmp_path, part))
    assert redact("badge-777777").text == "[REDACTED:BADGE]"
    use_configured_redaction(ConfigFiles(packaged_directory()))
    assert redact("badge-777777").text == "badge-777777", "none are shipped"


@pytest.mark.rule("CX-76", "GL-22")
def test_pattern_without_a_bound_stops_the_start_and_changes_nothing(tmp_path: Path) -> None:
    part = 'redaction: {patterns: [{name: BADGE, expression: "(a+)+b", samples: ["aab"]}]}'
    with pytest.raises(ConfigError, match="without a bound") as caught:
        use_configured_redaction(files_with(tmp_path, part))
    assert "context.yaml" in str(caught.value)
    assert redact("aab").text == "aab"
