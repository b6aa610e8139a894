"""Three ways through the code enter no more files than they did: `python -m scripts.walks -v` names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.walks import WALKS

CEILINGS = {"story to first event": 61, "draft to merged tree": 164, "tool call": 98}
"""Files that one enters today in a fresh process, and one or two that only a slow machine enters. They only fall."""


@pytest.mark.parametrize("name", WALKS)
async def test_walk_enters_no_more_files_than_before(name: str, tmp_path: Path) -> None:
    files = (await WALKS[name](tmp_path)).files
    ceiling = CEILINGS[name]
    assert len(files) <= ceiling, f"{name}: at most {ceiling} files, now {len(files)}: {sorted(files)}"
