"""The folders of the machine in which sandboxes of root keep their files, when the homes are temporary ones."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from fleet.sandbox.backends import identity

_SURELY_LOST_S = 3600
"""A home that is not there may be one that another run is just about to make."""


def remove_sandbox_files_of(temporary: Path) -> None:
    """Removes those of homes below `temporary`, and of temporary homes that have long been gone."""
    for noted in identity.SHARED_STATE.glob("*/home"):
        home = Path(noted.read_text().rstrip("\n"))
        is_ours = home.is_relative_to(temporary)
        is_lost = home.is_relative_to(tempfile.gettempdir()) and not home.parent.exists()
        if is_ours or (is_lost and time.time() - noted.stat().st_mtime > _SURELY_LOST_S):
            shutil.rmtree(noted.parent, ignore_errors=True)
