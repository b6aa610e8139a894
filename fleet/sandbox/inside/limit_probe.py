"""Uses more processor time and then more memory than it may; whoever started it looks at how it ends.

Argument: bytes to use. Prints one JSON object `{wall_ms, cpu_ms}` before it asks for the memory.
Standard library alone.
"""

from __future__ import annotations

import json
import os
import sys
import time

_BURN_S = 0.3
_WAIT_S = 3
_PIECE = 4 << 20


def main() -> int:
    begun, used = time.monotonic(), time.process_time()
    while time.monotonic() < begun + _BURN_S:
        pass
    wall_ms, cpu_ms = (time.monotonic() - begun) * 1000, (time.process_time() - used) * 1000
    print(json.dumps({"wall_ms": int(wall_ms), "cpu_ms": int(cpu_ms)}), flush=True)
    taken = _take(int(sys.argv[1]))
    time.sleep(_WAIT_S)
    return 0 if taken else 1


def _take(size: int) -> object:
    """Memory of no process, which only a cgroup counts; memory of this one where that is refused."""
    files, piece = list[int](), b"x" * _PIECE
    try:
        while len(files) * _PIECE < size:
            # One file for each piece: how long one may be has a limit of its own.
            files.append(os.memfd_create("probe"))
            os.write(files[-1], piece)
    except OSError:
        return b"x" * size
    return files


if __name__ == "__main__":
    sys.exit(main())
