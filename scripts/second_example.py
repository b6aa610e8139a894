"""The second example: a well-known library of one module, as a git repository with one commit."""

from __future__ import annotations

import sys
from pathlib import Path

from scripts.distribution import Distribution, NotFetched, fetched, library_repository

INFLECTION = Distribution("inflection", "0.5.1", "1a29730d366e996aaacffb2f1f1cb9593dc38e2ddd30c91250c6dde09ea9b417")


def main(folder: Path) -> int:
    """Make the repository below this folder; 1 when no package index can be reached."""
    try:
        archive = fetched(INFLECTION)
    except NotFetched as error:
        print(error, file=sys.stderr)
        return 1
    print(library_repository(archive, INFLECTION, folder / "repo"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
