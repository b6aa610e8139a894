# ruff: noqa: PTH100, PTH118, PTH120
"""Puts the tree of a deployed program in place, before it starts: `tree_in_place.py REQUEST FOLDER SHA256`.

REQUEST holds the files `part-*`, which together are one gzipped tar of that SHA-256 with members `workspace/...`.
Standard library alone.
"""

from __future__ import annotations

import os
import sys
import tarfile
from collections.abc import Sequence

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import job_inputs  # noqa: E402  # pyright: ignore


def main(arguments: Sequence[str]) -> int:
    request, folder, digest = arguments
    os.umask(0o022)
    try:
        # A container that is started again finds what it left: nothing of it may be there twice.
        empty(folder)
        job_inputs.check_digest(request, digest)
        job_inputs.ROOTS["workspace"] = folder
        job_inputs.unpack(request)
    except (OSError, ValueError, KeyError, tarfile.TarError) as error:
        print(f"the tree cannot be put in place: {type(error).__name__}: {error}"[:2000], flush=True)
        return 70
    return 0


def empty(folder: str) -> None:
    """Nothing is in the folder."""
    for place, folders, names in os.walk(folder, topdown=False):
        for name in names:
            os.unlink(os.path.join(place, name))  # noqa: PTH108
        for name in folders:
            path = os.path.join(place, name)
            if os.path.islink(path):  # noqa: PTH114
                os.unlink(path)  # noqa: PTH108
            else:
                os.rmdir(path)  # noqa: PTH106


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
