"""Make a commit of the workspace's files and a pack of what the base lacks (RC-77, PL-43).

Input, `/inputs/commit.json`:
    {"parent": id, "base": id, "message": text, "author_name": text, "author_email": text, "date": "<unix s> +0000"}
`base` (default: the parent) is the commit that the target repository has; `/inputs/pack-*.pack` hold what was made
since.
Output in the folder of `--out`: `commit.txt`, `new.pack`, `new.idx`. The same input gives the same commit id.
Contents and modes are taken as they are; submodules stay as in the parent.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gitdir import COMMIT_ID, GitDir, GitFailed, Row, temporary_git_dir

_DATE = re.compile(r"[0-9]{1,12} [+-][0-9]{4}")
_NAME = re.compile(r"[^\x00-\x1f<>\x7f]{1,200}")


class BadInput(Exception):
    """The input file is not of the documented form."""


@dataclass(frozen=True)
class Request:
    """What to commit, on what, in whose name."""

    parent: str
    base: str
    message: str
    author_name: str
    author_email: str
    date: str


def read_request(path: Path) -> Request:
    """The request; BadInput names the field."""
    document: Any = json.loads(path.read_bytes())
    if not isinstance(document, dict):
        raise BadInput("the document must be an object")
    given = cast("dict[str, Any]", document)
    given.setdefault("base", given.get("parent"))
    values = {name: given.get(name) for name in Request.__dataclass_fields__}
    checks = {"parent": COMMIT_ID, "base": COMMIT_ID, "author_name": _NAME, "author_email": _NAME, "date": _DATE}
    for name, value in values.items():
        if not isinstance(value, str) or (name in checks and not checks[name].fullmatch(value)):
            raise BadInput(f"field {name} is missing or of the wrong form")
    request = Request(**cast("dict[str, str]", values))
    if not request.message.strip() or "\0" in request.message:
        raise BadInput("field message is empty or has a NUL")
    return request


def workspace_rows(git: GitDir, root: Path) -> dict[str, Row]:
    """Every file and link below the root, its bytes stored as a blob."""
    rows: dict[str, Row] = {}
    for path in _files(root):
        info = path.lstat()
        if stat.S_ISLNK(info.st_mode):
            row = Row("120000", git.write_blob(os.fsencode(path.readlink())))
        elif stat.S_ISREG(info.st_mode):
            mode = "100755" if info.st_mode & stat.S_IXUSR else "100644"
            row = Row(mode, git.write_blob(path.read_bytes()))
        else:
            raise GitFailed(f"{path.relative_to(root)} is neither a file nor a link")
        rows[path.relative_to(root).as_posix()] = row
    return rows


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(name for name in folders if name not in links)
        for name in sorted([*files, *links]):
            if name.lower() == ".git":
                raise GitFailed(f"{(here / name).relative_to(root)}: a file of this name cannot be committed")
            yield here / name
        if any(name.lower() == ".git" for name in folders):
            raise GitFailed(f"{here.relative_to(root) / '.git'}: a folder of this name cannot be committed")


def with_submodules(rows: dict[str, Row], parent: dict[str, Row]) -> dict[str, Row]:
    """The rows and the parent's submodules, unless files took their place."""
    kept = {
        path: row
        for path, row in parent.items()
        if row.mode == "160000" and not any(name == path or name.startswith(path + "/") for name in rows)
    }
    return rows | kept


def make_commit(git: GitDir, request: Request, rows: dict[str, Row]) -> str:
    """The id of the commit object."""
    table = b"".join(
        f"{row.mode} {row.object_id}\t".encode() + os.fsencode(path) + b"\0" for path, row in sorted(rows.items())
    )
    git.run("read-tree", "--empty")
    git.run("update-index", "-z", "--index-info", stdin=table)
    # Submodule commits are in no object store of ours, so git must not look for them.
    tree = git.run("write-tree", "--missing-ok").decode().strip()
    people = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", request.author_name), ("EMAIL", request.author_email), ("DATE", request.date))
    }
    message = request.message.rstrip("\n") + "\n"
    argv = ["commit-tree", "--no-gpg-sign", tree, "-p", request.parent]
    return git.run(*argv, stdin=message.encode(), environment=people).decode().strip()


def write_pack(git: GitDir, commit: str, base: str, out: Path) -> None:
    """`new.pack` and `new.idx` hold every object that the commit reaches and the base does not."""
    revisions = f"{commit}\n^{base}\n".encode()
    options = ("--revs", "--threads=1", "--no-reuse-delta", "--quiet")
    name = git.run(
        "-c", "pack.writeReverseIndex=false", "pack-objects", *options, str(git.path / "new"), stdin=revisions
    )
    for ending in ("pack", "idx"):
        shutil.copyfile(git.path / f"new-{name.decode().strip()}.{ending}", out / f"new.{ending}")


def main(argv: Sequence[str]) -> int:
    """Exit 0 with the commit made, 1 with git's words, 2 on bad input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workspace", type=Path, default=Path("/workspace"))
    parser.add_argument("--inputs", type=Path, default=Path("/inputs"))
    parser.add_argument("--repo", type=Path, default=Path("/repo.git"))
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args(argv)
    root: Path = options.workspace.resolve()
    out: Path = (options.out or root / "out").resolve()
    try:
        request = read_request(options.inputs / "commit.json")
        packs = sorted(options.inputs.glob("pack-*.pack"))
        with temporary_git_dir(options.repo.resolve(), root, packs) as git:
            rows = with_submodules(workspace_rows(git, root), git.rows(git.commit_of(request.parent)))
            commit = make_commit(git, request, rows)
            # Only now: the commit must hold the workspace as it was given, its own `out` folder too.
            out.mkdir(parents=True, exist_ok=True)
            write_pack(git, commit, request.base, out)
    except (BadInput, OSError, ValueError, RecursionError) as error:
        print(f"commit.json: {error}", file=sys.stderr)
        return 2
    except GitFailed as error:
        print(f"commit: {error}", file=sys.stderr)
        return 1
    (out / "commit.txt").write_text(commit + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
