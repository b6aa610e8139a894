"""Put a real transcript into README.md: `make demo 2>&1 | python scripts/transcript.py`.

Names of this machine are replaced; nothing else is changed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
_PLACE = re.compile(r"(<!-- transcript -->\n).*?(<!-- /transcript -->)", re.DOTALL)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def placed(readme: str, transcript: str, *, root: str = str(ROOT), home: str = str(Path.home())) -> str:
    """The README with this transcript between its two marks."""
    plain = _COLOUR.sub("", transcript).replace(root + "/", "").replace(root, ".").replace(home, "~")
    lines = "\n".join(line.rstrip() for line in plain.strip().splitlines())
    return _PLACE.sub(lambda m: f"{m[1]}```text\n$ make demo\n{lines}\n```\n{m[2]}", readme)


def main() -> int:
    """Read the transcript from standard input and write the README."""
    README.write_text(placed(README.read_text(), sys.stdin.read()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
