"""A process that lives for long: what is loaded is left alone, what is made later is still collected."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import gc, weakref
import fleet.owner.journal.story_stream
from fleet.kernel.collector import expect_long_life

class Node: pass

def cycle():
    node = Node(); node.itself = node
    return weakref.ref(node)

searched = []
gc.callbacks.append(lambda phase, _: searched.append(phase))
expect_long_life()
before, frozen, lost = len(searched), gc.get_freeze_count(), cycle()
kept = [[] for _ in range(5_000)]
assert len(searched) == before, "a few thousand containers start no search"
kept += [[] for _ in range(10_000)]
assert len(searched) > before and lost() is None, "a cycle is found all the same"
assert frozen > 20_000 and gc.get_freeze_count() == frozen, frozen
print("well")
"""


def test_what_is_loaded_is_left_alone_and_later_cycles_are_found() -> None:
    found = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False, timeout=60)
    assert (found.stdout, found.stderr) == ("well\n", "")
