"""`make demo` without a package index: it says so, and works on the bundled example."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from scripts import demo
from scripts.distribution import Distribution, NotFetched, fetched
from scripts.examples import BUNDLED, LIBRARY


@pytest.fixture
def no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is cached, and the index that is configured does not answer."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr(demo, "STAGE", tmp_path / "stage")
    return tmp_path


def test_library_that_cannot_be_had_gives_way_to_the_bundled_example_and_says_so(
    no_index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example, repo = demo.example_at_hand(LIBRARY)
    assert example is BUNDLED
    assert (repo / "textkit" / "words.py").is_file()
    told = capsys.readouterr().err
    assert "neither in the cache nor to be had from a package index" in told
    assert "runs the bundled example" in told


def test_archive_of_another_digest_is_not_taken(no_index: Path) -> None:
    wanted = Distribution("slugs", "1.0", "0" * 64)
    cached = no_index / "cache" / "swe-fleet" / "archives" / wanted.file
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"something else")
    with pytest.raises(NotFetched):
        fetched(wanted)


def test_cached_archive_needs_no_index(no_index: Path) -> None:
    cached = no_index / "cache" / "swe-fleet" / "archives" / "slugs-1.0.tar.gz"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"the archive")
    digest = hashlib.sha256(b"the archive").hexdigest()
    assert fetched(Distribution("slugs", "1.0", digest)) == cached
