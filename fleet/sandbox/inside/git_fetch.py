"""Asks one repository over HTTP(S) or SSH for its refs. It can also bring one ref as a pack (RC-70, RT-42, RT-58).

`--list`: the refs alone. Else the branch, tag, full ref or commit id of `--ref`, without one that of HEAD; the
folder of `--out` then has `fetch.json`, `fetched.pack` and `fetched.idx`. What `/repo.git` holds, when it is there,
is not sent again, and the answer says how the two differ. No hook, submodule, filter or setting takes part, and objects
that git's own check calls hostile are refused.

Output: one JSON object, `{"text": ..., "data": ...}`. Exit: 0 done, 75 the repository did not answer and the same may
be asked again, 77 the token is refused or may not do this, 1 refused for good, 2 bad input, 3 larger than
`--max-bytes`.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from git_remote import BAD_INPUT, OK, REFUSED, Remote, add_remote_arguments, is_remote, judged, open_remote
from gitdir import COMMIT_ID, GitDir, GitFailed, temporary_git_dir

MAX_REFS, MAX_COMMITS = 1000, 50
_GOT = "refs/fleet/got"
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+@-]{0,199}")
_FSCK = ("zeroPaddedFilemode", "badTimezone", "missingSpaceBeforeDate", "missingTaggerEntry", "gitignoreSymlink")
"""Old flaws that harm nobody; a repository that has them would be fetched by nobody otherwise."""
_FETCHING = ("fetch.unpackLimit=1", "fetch.fsckObjects=true", *(f"fetch.fsck.{name}=ignore" for name in _FSCK))


class NoSuchRef(Exception):
    """The repository has nothing of this name, or nothing at all."""


class Found(NamedTuple):
    """What the repository has: its refs, and the branch that HEAD names (None: HEAD is at no branch)."""

    refs: dict[str, str]
    head: str | None


class Wanted(NamedTuple):
    """What to ask for: a full ref or commit id, and the branch that it is of."""

    source: str
    branch: str


def ask_refs(remote: Remote) -> Found:
    """Branches and tags of the repository; those of tags are the tags' own ids."""
    out = remote.ask("ls-remote", "--symref", remote.url, "HEAD", "refs/heads/*", "refs/tags/*")
    refs, head = dict[str, str](), None
    for line in out.decode(errors="replace").splitlines():
        first, _, name = line.partition("\t")
        if first.startswith("ref: ") and name == "HEAD":
            head = first.removeprefix("ref: ").removeprefix("refs/heads/")
        elif COMMIT_ID.fullmatch(first) and not name.endswith("^{}"):
            refs[name] = first
    return Found(refs, head)


def wanted(remote: Found, ref: str | None) -> Wanted:
    """What the name means there: a branch, a tag, a full ref, a commit id, in this order."""
    if ref is None:
        if "HEAD" not in remote.refs:
            raise NoSuchRef("the repository has no commit yet: commit something first")
        return Wanted(f"refs/heads/{remote.head}" if remote.head else "HEAD", remote.head or "HEAD")
    for name in (f"refs/heads/{ref}", f"refs/tags/{ref}", ref):
        if name.startswith("refs/") and name in remote.refs:
            return Wanted(name, name.removeprefix("refs/heads/").removeprefix("refs/tags/"))
    if COMMIT_ID.fullmatch(ref):
        return Wanted(ref, remote.head or "HEAD")
    raise NoSuchRef(f"the repository has no branch, tag or commit {ref!r}")


def list_refs(remote: Found) -> dict[str, Any]:
    """The answer to `--list`."""
    refs = sorted((n, i) for n, i in remote.refs.items() if n != "HEAD")
    shown, left_out = refs[:MAX_REFS], max(0, len(refs) - MAX_REFS)
    lines = [f"{object_id} {name}" for name, object_id in shown]
    lines += [f"({left_out} more)"] if left_out else []
    head = f"HEAD is {remote.head}" if remote.head else "HEAD is at no branch"
    return _answer("\n".join([head, *lines]), {"head": remote.head, "refs": dict(shown), "left_out": left_out})


def fetch(git: GitDir, remote: Remote, want: Wanted, base: str | None) -> str:
    """The commit of the ref, which git's folder holds now; what the base commit holds is not sent again."""
    if base is not None:
        git.run("update-ref", "refs/fleet/base", base)
    options = ("--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--no-show-forced-updates")
    settings = [part for s in _FETCHING for part in ("-c", s)]
    remote.ask(*settings, "fetch", *options, remote.url, f"+{want.source}:{_GOT}")
    return git.run("rev-parse", "--verify", "--quiet", f"{_GOT}^{{commit}}").decode().strip()


def compared(git: GitDir, base: str, commit: str) -> dict[str, Any]:
    """Commits of one side that the other lacks, and the newest of those that were fetched."""
    behind, ahead = git.run("rev-list", "--left-right", "--count", f"{base}...{commit}").decode().split()
    form = "%H%x00%an%x00%ct%x00%s"
    log = git.run("log", f"--max-count={MAX_COMMITS}", f"--format={form}", "--no-show-signature", f"{base}..{commit}")
    rows = [line.split("\0") for line in log.decode(errors="replace").splitlines()]
    commits = [{"commit": c, "author": a, "at_s": int(t), "subject": s} for c, a, t, s in rows]
    return {"base": base, "ahead": int(ahead), "behind": int(behind), "commits": commits}


def keep_pack(git: GitDir, out: Path) -> bool:
    """What was sent lies in the folder; False when nothing had to be sent."""
    pack = next((git.path / "objects" / "pack").glob("pack-*.pack"), None)
    if pack is None:
        return False
    pack.with_suffix(".idx").rename(out / "fetched.idx")
    pack.rename(out / "fetched.pack")
    return True


def bring(git: GitDir, remote: Remote, want: Wanted, base: str | None, out: Path) -> dict[str, Any]:
    """The answer to a fetch, whose files are in the folder."""
    commit = fetch(git, remote, want, base)
    refs = {want.source: commit} if want.source.startswith("refs/") else {}
    facts: dict[str, Any] = {"schema": 1, "commit": commit, "branch": want.branch, "refs": refs}
    text = f"{want.branch} is at {commit}"
    if base is not None:
        differs = compared(git, base, commit)
        text += f": {differs['ahead']} commits that the story lacks; it lacks {differs['behind']} of the story's base"
        lines = [f"{c['commit'][:12]} {c['author']}: {c['subject']}" for c in differs["commits"]]
        text, facts = "\n".join([text, *lines]), facts | differs
    out.mkdir(parents=True, exist_ok=True)
    facts["has_pack"] = keep_pack(git, out)
    (out / "fetch.json").write_text(json.dumps(facts))
    return _answer(text, facts)


def _answer(text: str, data: Any = None) -> dict[str, Any]:
    return {"text": text, "data": data}


def main(argv: Sequence[str]) -> int:
    """The exit codes of the module."""
    parser = argparse.ArgumentParser()
    add_remote_arguments(parser)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--ref")
    parser.add_argument("--max-bytes", type=int, default=512 << 20)
    parser.add_argument("--out", type=Path, default=Path("/workspace/.fleet-out"))
    parser.add_argument("--repo", type=Path, default=Path("/repo.git"))
    options = parser.parse_args(argv)
    if not is_remote(options) or (options.ref is not None and not _REF.fullmatch(options.ref)):
        print(json.dumps(_answer("the address or the name of the ref is of the wrong form")))
        return BAD_INPUT
    resource.setrlimit(resource.RLIMIT_FSIZE, (options.max_bytes, options.max_bytes))
    # Packs are large, and the temporary folder of a sandbox counts as memory.
    tempfile.tempdir = str(Path.cwd())
    repo = options.repo.resolve() if options.repo.is_dir() else None
    try:
        with temporary_git_dir(repo, Path.cwd()) as git, open_remote(git, options) as remote:
            listed = ask_refs(remote)
            if options.list:
                answer = list_refs(listed)
            else:
                base = (repo / "HEAD").read_text().strip() if repo else None
                answer = bring(git, remote, wanted(listed, options.ref), base, options.out)
    except NoSuchRef as error:
        print(json.dumps(_answer(str(error))))
        return REFUSED
    except GitFailed as error:
        ended = judged(str(error))
        print(json.dumps(_answer(ended.text)))
        return ended.code
    print(json.dumps(answer))
    return OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
