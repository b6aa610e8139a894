"""Children are found with theirs and ended by pid."""

from __future__ import annotations

import os
import subprocess
import sys

from fleet.models.engines.children import descendants, end


def test_children_and_theirs_are_found_and_ended() -> None:
    code = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        found = descendants(os.getpid())
        mine = {pid: found[pid] for pid in (child.pid, grandchild)}
        assert end(mine) == []
        assert end({grandchild: "another start"}) == []
    assert not {child.pid, grandchild} & set(descendants(os.getpid()))
