"""Push one branch to one repository over HTTP(S) or SSH, under an expected old commit, never by force (RC-77, RT-58).

`/repo.git` holds what the base has, `/inputs/pack-*.pack` what was made since.

Exit: 0 the branch is at the commit (`pushed` or `present`), 75 the repository did not answer and the same may be asked
again, 77 the token is refused or may not do this, 1 the push is refused for good, 2 bad input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from git_remote import BAD_INPUT, OK, REFUSED, Ended, Remote, add_remote_arguments, is_remote, judged, open_remote
from gitdir import COMMIT_ID, GitDir, GitFailed, temporary_git_dir


class Branch:
    """One branch of the repository."""

    def __init__(self, remote: Remote, ref: str) -> None:
        self._remote, self._ref = remote, ref

    def commit(self) -> str | None:
        """Where the branch is, None when it does not exist."""
        out = self._remote.ask("ls-remote", "--refs", self._remote.url, self._ref).decode()
        commits = {name: commit for commit, _, name in (line.partition("\t") for line in out.splitlines())}
        return commits.get(self._ref)

    def push(self, commit: str, expected: str | None) -> None:
        """The branch moves from `expected` (None: it does not exist) to the commit."""
        lease = f"--force-with-lease={self._ref}:{expected or ''}"
        self._remote.ask("push", "--no-verify", "--atomic", lease, self._remote.url, f"{commit}:{self._ref}")


def push(git: GitDir, branch: Branch, commit: str, expected: str | None) -> Ended:
    """See the module. What is at the commit already is left alone, so the same may be asked again (KEYED)."""
    present = branch.commit()
    if present == commit:
        return Ended(OK, "present")
    if present != expected:
        return Ended(REFUSED, f"the branch is at {present or 'no commit'} and was expected at {expected or 'none'}")
    # A lease alone would let a push throw commits away; `merge-base` ends with 1 when it is none.
    if expected is not None:
        git.run("merge-base", "--is-ancestor", expected, commit)
    branch.push(commit, expected)
    return Ended(OK, "pushed")


def main(argv: Sequence[str]) -> int:
    """The exit codes of the module."""
    parser = argparse.ArgumentParser()
    add_remote_arguments(parser)
    parser.add_argument("--ref", required=True)
    parser.add_argument("--commit", required=True)
    parser.add_argument("--expected")
    parser.add_argument("--inputs", type=Path, default=Path("/inputs"))
    parser.add_argument("--repo", type=Path, default=Path("/repo.git"))
    options = parser.parse_args(argv)
    ids = [options.commit, *([options.expected] if options.expected else [])]
    if not is_remote(options) or not all(COMMIT_ID.fullmatch(i) for i in ids):
        print("push: the address or a commit id is of the wrong form", file=sys.stderr)
        return BAD_INPUT
    packs = sorted(options.inputs.glob("pack-*.pack"))
    try:
        with temporary_git_dir(options.repo.resolve(), Path.cwd(), packs) as git:
            git.commit_of(options.commit)
            git.run("check-ref-format", options.ref)
            with open_remote(git, options) as remote:
                ended = push(git, Branch(remote, options.ref), options.commit, options.expected)
    except GitFailed as error:
        ended = judged(str(error))
    print(ended.text, file=sys.stdout if ended.code == OK else sys.stderr)
    return ended.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
