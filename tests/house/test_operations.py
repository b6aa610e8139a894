"""The page for operators names what exists: metrics, and the keys of the blobs' store."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fleet.config import S3BlobSettings
from fleet.observability import CATALOGUE, EXPORTED_PREFIX

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()
pytestmark = pytest.mark.rule("GL-24")


def test_every_metric_of_the_page_exists() -> None:
    named = set(re.findall(rf"`({EXPORTED_PREFIX}fleet_\w+)`", PAGE))
    assert len(named) > 8
    assert named - {EXPORTED_PREFIX + name for name in CATALOGUE} == set()


def test_every_key_of_the_bucket_is_described() -> None:
    keys = S3BlobSettings.model_fields.keys() - {"kind"}
    assert {key for key in keys if f"`{key}`" not in PAGE} == set()
