"""Uses more processor time and then more memory than it may; whoever started it looks at how it ends.

Argument: bytes to use. Prints one JSON object `{wall_ms, cpu_ms}` before it asks for the memory.
Standard library alone.
"""

from __future__ import annotations

import json
import sys
import time

_BURN_S = 0.3
_WAIT_S = 3


def main() -> int:
    begun, used = time.monotonic(), time.process_time()
    while time.monotonic() < begun + _BURN_S:
        pass
    wall_ms, cpu_ms = (time.monotonic() - begun) * 1000, (time.process_time() - used) * 1000
    print(json.dumps({"wall_ms": int(wall_ms), "cpu_ms": int(cpu_ms)}), flush=True)
    taken = b"x" * int(sys.argv[1])
    time.sleep(_WAIT_S)
    return 0 if taken else 1


if __name__ == "__main__":
    sys.exit(main())
