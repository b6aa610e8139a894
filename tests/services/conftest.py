"""What the tests of this folder share: one whole story costs more than most of their files."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.demo_run import DemoRun, run_demo


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """The example story from its text to its branch, run once for all tests that only look at what it left."""
    return asyncio.run(run_demo(tmp_path_factory.mktemp("demo")))
