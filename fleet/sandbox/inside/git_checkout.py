"""Write the files of one commit of the staged repository into the empty workspace (RC-70).

`git_checkout.py COMMIT`: every file as committed, `export-ignore` ones too, no filter, no end-of-line conversion.
Output in the folder of `--out`: `checkout.json` (commit, tree, committed_at, files) and `submodules.json`, which names
the submodules; their content is not part of a run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from gitdir import GitDir, GitFailed, temporary_git_dir


def checkout(git: GitDir, name: str) -> tuple[dict[str, object], list[dict[str, str]]]:
    """The workspace holds the commit's files; facts of the commit, and its submodules."""
    commit = git.commit_of(name)
    rows = git.rows(commit)
    git.run("read-tree", commit)
    git.run("checkout-index", "--all", "--force", "--quiet")
    tree, committed_at = git.run("log", "-1", "--no-show-signature", "--format=%T %ct", commit).decode().split()
    submodules = [{"path": p, "commit": row.object_id} for p, row in sorted(rows.items()) if row.mode == "160000"]
    facts: dict[str, object] = {"schema": 1, "commit": commit, "tree": tree, "committed_at": int(committed_at)}
    return facts | {"files": len(rows) - len(submodules)}, submodules


def main(argv: Sequence[str]) -> int:
    """Exit 0 when the files are there, 1 with git's words otherwise."""
    parser = argparse.ArgumentParser()
    parser.add_argument("commit")
    parser.add_argument("--workspace", type=Path, default=Path("/workspace"))
    parser.add_argument("--repo", type=Path, default=Path("/repo.git"))
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args(argv)
    workspace: Path = options.workspace.resolve()
    try:
        with temporary_git_dir(options.repo.resolve(), workspace) as git:
            facts, submodules = checkout(git, options.commit)
    except GitFailed as error:
        print(f"checkout: {error}", file=sys.stderr)
        return 1
    out: Path = options.out or workspace / "out"
    out.mkdir(parents=True, exist_ok=True)
    (out / "checkout.json").write_text(json.dumps(facts))
    (out / "submodules.json").write_text(json.dumps(submodules))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
