"""The launcher of a container keeps no right of the namespace in which it hides paths."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.inside import INSIDE

SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import enter
try:
    enter.hide(sys.argv[2:])
    said = ""
except OSError as error:
    said = error.strerror
with open("/proc/self/status") as file:
    status = dict(line.split(":", 1) for line in file)
rights = {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
print(json.dumps({"said": said, "rights": rights}))
"""


@pytest.mark.rule("RC-31")
def test_launcher_that_cannot_hide_what_it_should_has_no_rights_left() -> None:
    assert not Path("/workspace").exists(), "the last step has to fail here"
    command = [sys.executable, "-c", SCRIPT, str(INSIDE), "/proc/kallsyms"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    seen = json.loads(done.stdout)
    if seen["said"].startswith("unshare"):
        pytest.skip(f"no user namespace can be made here: {seen['said']}")
    assert seen["said"].startswith("mount")
    assert seen["rights"] == dict.fromkeys(seen["rights"], 0)
