"""The examples that come with the project: their stories, repositories and recordings."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import yaml

from scripts.distribution import Distribution, committed, fetched, library_repository

ROOT = Path(__file__).resolve().parents[1]
SQLPARSE = Distribution("sqlparse", "0.5.3", "09f67787f56a0b16ecdbde1bfc7f5d9c3371ca683cfeaa8e6ff60b4807ec9272")


class Example(NamedTuple):
    """A story, and the repository that it is about."""

    name: str
    folder: Path
    repository: Callable[[Path], Path]
    """Makes the repository at this path; NotFetched where it comes from a package index and none can be reached."""

    @property
    def story(self) -> Path:
        """The text of the story."""
        return self.folder / "story.yaml"

    @property
    def replies(self) -> Path:
        """The recording."""
        return self.folder / "replies"


def _bundled(repo: Path) -> Path:
    shutil.rmtree(repo, ignore_errors=True)
    shutil.copytree(ROOT / "examples" / "demo" / "repo", repo, ignore=shutil.ignore_patterns("__pycache__"))
    return committed(repo, "Small functions for text")


def _library(repo: Path) -> Path:
    return library_repository(fetched(SQLPARSE), SQLPARSE, repo)


BUNDLED = Example("bundled", ROOT / "examples" / "demo", _bundled)
"""A small repository of ours; its replies come from a model of 1.5 billion parameters, one reply for each draft."""
LIBRARY = Example("library", ROOT / "examples" / "sqlparse", _library)
"""A library of the package index; its replies come from a large model that works in sessions."""
EXAMPLES = {example.name: example for example in (BUNDLED, LIBRARY)}


def configuration(folder: Path, *, engines: tuple[dict[str, object], ...] = (), timeout_s: int | None = None) -> Path:
    """A folder for FLEET_CONFIG in which only that differs from the packaged files which an example needs.

    The branch of a library holds nothing but its own files: the documents of a story stay in the blob store.

    Args:
        engines: further engines, as models.yaml has them.
        timeout_s: how long one call may take.
    """
    packaged = ROOT / "config"
    folder.mkdir(parents=True, exist_ok=True)
    planning = yaml.safe_load((packaged / "planning.yaml").read_text())
    (folder / "planning.yaml").write_text(yaml.safe_dump({**planning, "artifacts": "off"}))
    models = yaml.safe_load((packaged / "models.yaml").read_text())
    models["engines"] += engines
    if timeout_s is not None:
        models["policies"]["default"]["chain"][0]["timeout_s"] = timeout_s
    (folder / "models.yaml").write_text(yaml.safe_dump(models))
    return folder
