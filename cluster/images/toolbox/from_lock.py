"""Print the entries of a lock for the packages of a list, with their hashes. Standard library only."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def main(lock: Path, wanted: Path) -> int:
    """1 when the lock lacks one of them."""
    entries = re.split(r"\n(?=\S)", lock.read_text())
    found = {re.split(r"[= ]", entry)[0].lower(): entry for entry in entries}
    names = wanted.read_text().split()
    if missing := [name for name in names if name not in found]:
        sys.stderr.write(f"{lock} lacks {', '.join(missing)}: run `make lock`\n")
        return 1
    sys.stdout.write("\n".join(found[name] for name in names) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2])))
