"""A fleet home that the first edition made, as `tests/golden/homes` holds it, and what that edition said of it.

`first_edition.tar.xz` was made with commit b1bc195, the last of the first edition: a fleet came up in a folder with the
example repository `repo` (`scripts/demo.py`); stories were made of `examples/demo/story.yaml` and started over HTTP
with `"repo": "repo"`, so that no path of a machine is in it. Then all processes of the fleet were killed at once. Of
its home the archive holds what the page of operations backs up (log, blobs, audit, principals and token, all made for
this alone); the graph is left out. `first_edition.json` says what that program found in the log:

    finished  replies recorded from a model, gates decided by the team; its councils had wrong candidates
    approved  finished too, each gate decided by a person
    parked    in the council of its design, with a budget too small for one reply
    waiting   for a person, at the acceptance of its task
    running   in the council of its task: a run of the tests had started and has no result

The open step of `running` is a run in the sandbox, whose request does not depend on a prompt. A model's call that was
open under prompts of another edition is not covered, nor is a home with projects or archived stories.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

from tests.support.team_models import ROOT

_HOMES = ROOT / "tests" / "golden" / "homes"

TOLD: dict[str, dict[str, Any]] = json.loads((_HOMES / "first_edition.json").read_text())
"""Story id, version, state, hash, digests and open steps of each story, by the names above."""


def unpack(folder: Path) -> Path:
    """The home, below the folder; the repository that its stories name lies beside it as `repo`."""
    with tarfile.open(_HOMES / "first_edition.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "home"
