"""Local git operations of the tool `git`, over the staged repository and the workspace (RT-41).

Input, `/inputs/git.json`: {"op": ..., further arguments}. Output: one JSON object on standard output, `{"text": ...,
"data": ...}`; commits leave `commit.txt`, `new.pack` and `new.idx` in the folder of `--out`. git runs with settings of
our own alone (gitdir.py). The repository itself is read-only: a commit exists in its pack until it is published.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from git_commit import Request, make_commit, with_submodules, workspace_rows, write_pack
from gitdir import COMMIT_ID, GitDir, GitFailed, Row, temporary_git_dir

MAX_COUNT = 50
NOT_FOUND, CONFLICT = 3, 4
Answer = tuple[str, Any]


class Refused(Exception):
    """The operation cannot be done on this repository; `code` is the exit status."""

    def __init__(self, code: int, text: str, data: Any = None) -> None:
        super().__init__(text)
        self.code, self.data = code, data


class Place:
    """The staged repository, the workspace, and git's own folder for this call."""

    def __init__(self, git: GitDir, repo: Path, root: Path, out: Path, request: Mapping[str, Any]) -> None:
        self.git, self.repo, self.root, self.out, self.request = git, repo, root, out, request
        self.refs = read_refs(repo)
        self.head = (repo / "HEAD").read_text().strip()

    def commit_of(self, name: str | None) -> str:
        """The commit behind a branch, a tag, HEAD or an id that may be cut to seven digits."""
        if name in (None, "HEAD"):
            return self.head
        for full in (f"refs/heads/{name}", f"refs/tags/{name}", f"refs/remotes/{name}", str(name)):
            if full in self.refs:
                return self.git.commit_of(self.refs[full])
        try:
            if COMMIT_ID.fullmatch(str(name)):
                return self.git.commit_of(str(name))
            # Letters of no option and no range: what is left is an abbreviated id.
            if set(str(name)) <= set("0123456789abcdef") and len(str(name)) >= 7:
                return self.git.run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").decode().strip()
        except GitFailed:
            pass
        raise Refused(NOT_FOUND, f"no branch, tag or commit {str(name)[:100]!r}")

    def paths(self) -> list[str]:
        """The path of the call for git, read as it stands."""
        path = self.request.get("path")
        return ["--", f":(literal){path}"] if path not in (None, ".") else ["--"]

    def staged(self) -> dict[str, Row]:
        """The workspace as rows, submodules of HEAD with it; git's index holds them."""
        rows = with_submodules(workspace_rows(self.git, self.root), self.git.rows(self.head))
        table = b"".join(
            f"{r.mode} {r.object_id}\t{path}\0".encode("utf-8", "surrogateescape") for path, r in rows.items()
        )
        self.git.run("read-tree", "--empty")
        self.git.run("update-index", "-z", "--index-info", stdin=table)
        return rows


def read_refs(repo: Path) -> dict[str, str]:
    """Full name -> object id of the staged copy."""
    lines = (repo / "packed-refs").read_text("utf-8", "replace").splitlines()
    pairs = (line.split(" ", 1) for line in lines if line and not line.startswith(("#", "^")))
    return {name: object_id for object_id, name in pairs}


def status(place: Place) -> Answer:
    """What the workspace changes against the commit that the story began with."""
    place.staged()
    raw = place.git.run("diff-index", "--cached", "--name-status", "-z", "--no-renames", place.head).split(b"\0")
    pairs = [(k.decode(), p.decode(errors="replace")) for k, p in zip(raw[0::2], raw[1::2], strict=False)]
    data = {"head": place.head, "changes": [{"change": kind, "path": path} for kind, path in pairs]}
    return "\n".join(f"{kind} {path}" for kind, path in pairs) or "nothing changed", data


def log(place: Place) -> Answer:
    """Commits, the newest first."""
    count = min(int(place.request.get("max_count") or MAX_COUNT), 1000)
    form = "%H%x00%an%x00%ct%x00%s"
    commit = place.commit_of(place.request.get("ref"))
    argv = ("log", f"--max-count={count}", f"--format={form}", "--no-show-signature", commit, *place.paths())
    rows = [line.split("\0") for line in place.git.run(*argv).decode(errors="replace").splitlines()]
    commits = [{"commit": c, "author": a, "at_s": int(t), "subject": s} for c, a, t, s in rows]
    return "\n".join(f"{c[:12]} {a}: {s}" for c, a, _, s in rows) or "no commit", {"commits": commits}


_SAFE_DIFF = ("--text", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames")


def diff(place: Place) -> Answer:
    """The workspace against a commit, HEAD without one."""
    place.staged()
    commit = place.commit_of(place.request.get("ref"))
    text = place.git.run("diff-index", "--cached", "-p", *_SAFE_DIFF, commit, *place.paths())
    return text.decode(errors="replace") or "no difference", None


def show(place: Place) -> Answer:
    """A commit with its changes; with a path, the file as that commit has it."""
    commit, path = place.commit_of(place.request.get("ref")), place.request.get("path")
    if path in (None, "."):
        text = place.git.run("show", "--format=fuller", "--no-show-signature", *_SAFE_DIFF, commit)
        return text.decode(errors="replace"), {"commit": commit}
    row = place.git.rows(commit).get(str(path))
    if row is None or row.mode == "160000":
        raise Refused(NOT_FOUND, f"commit {commit[:12]} has no file {path}")
    data = {"commit": commit, "path": path, "mode": row.mode}
    return place.git.run("cat-file", "blob", row.object_id).decode(errors="replace"), data


def branch_list(place: Place) -> Answer:
    """Branches of the repository as it was staged."""
    heads = {n.removeprefix("refs/heads/"): i for n, i in sorted(place.refs.items()) if n.startswith("refs/heads/")}
    lines = [f"{object_id[:12]} {name}" for name, object_id in heads.items()]
    return "\n".join([*lines, f"{place.head[:12]} HEAD"]), {"head": place.head, "branches": heads}


def add(place: Place) -> Answer:
    """Say that the paths are part of the next commit: it takes the whole workspace, so nothing has to be kept."""
    rows = place.staged()
    old = place.git.rows(place.head)
    paths = {*rows, *old}
    missing = [
        p for p in place.request["paths"] if p != "." and not any(k == p or k.startswith(f"{p}/") for k in paths)
    ]
    if missing:
        raise Refused(NOT_FOUND, f"there is no {', '.join(missing)}")
    return status(place)


def branch_create(place: Place) -> Answer:
    """Say where the branch would begin: it exists for others once it is pushed."""
    name = check_branch(place)
    if f"refs/heads/{name}" in place.refs:
        raise Refused(CONFLICT, f"branch {name} exists, at {place.refs[f'refs/heads/{name}'][:12]}")
    clash = next(
        (r for r in place.refs if r.startswith(f"refs/heads/{name}/") or f"refs/heads/{name}".startswith(f"{r}/")), None
    )
    if clash:
        raise Refused(CONFLICT, f"branch {name} cannot exist beside {clash.removeprefix('refs/heads/')}")
    return f"{name} begins at {place.head[:12]}; push_branch makes it", {"branch": name, "commit": place.head}


def check_branch(place: Place) -> str:
    """The name of the call when git takes it for a branch."""
    name = str(place.request["branch"])
    try:
        place.git.run("check-ref-format", "--branch", name)
    except GitFailed as error:
        raise Refused(NOT_FOUND, f"{name[:100]!r} is no name of a branch") from error
    return name


def checkout(place: Place) -> Answer:
    """The workspace holds the files of the branch, and nothing else."""
    commit = place.commit_of(check_branch(place))
    for entry in place.root.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    write_files(place, commit)
    return f"{place.request['branch']} is at {commit[:12]}", {"branch": place.request["branch"], "commit": commit}


def write_files(place: Place, commit: str) -> None:
    """Every file of the commit is in the workspace, without filter or conversion."""
    place.git.run("read-tree", commit)
    place.git.run("checkout-index", "--all", "--force", "--quiet")


def commit(place: Place) -> Answer:
    """The workspace as a commit on HEAD, with its pack."""
    rows = place.staged()
    if rows == place.git.rows(place.head):
        raise Refused(CONFLICT, "nothing changed: there is nothing to commit")
    return _committed(place, rows)


def _committed(place: Place, rows: dict[str, Row]) -> Answer:
    request = place.request
    # A call that is made again after a crash must make the same commit, so no clock is asked.
    parent_s = int(place.git.run("log", "-1", "--no-show-signature", "--format=%ct", place.head))
    asked = Request(
        parent=place.head,
        base=place.head,
        message=str(request["message"]),
        author_name=str(request["author_name"]),
        author_email=str(request["author_email"]),
        date=f"{parent_s + 1} +0000",
    )
    made = make_commit(place.git, asked, rows)
    place.out.mkdir(parents=True, exist_ok=True)
    write_pack(place.git, made, place.head, place.out)
    (place.out / "commit.txt").write_text(made + "\n")
    return f"commit {made[:12]} on {place.head[:12]}", {"commit": made, "parent": place.head}


def merge_candidate(place: Place) -> Answer:
    """The changes of the workspace on HEAD, merged file by file and then line by line, as one commit.

    `base` names what each changed file was before: path -> blob id, None where there was none.
    """
    ours, head = place.staged(), place.git.rows(place.head)
    merged, conflicts = dict(head), list[str]()
    base: dict[str, str | None] = place.request["base"]
    for path, before in sorted(base.items()):
        mine, theirs = ours.get(path), head.get(path)
        if theirs == mine:
            continue
        if (theirs.object_id if theirs else None) != before:
            mine = merge_lines(place, mine, theirs, before)
            if mine is None:
                conflicts.append(path)
                continue
        if mine is None:
            merged.pop(path, None)
        else:
            merged[path] = mine
    if conflicts:
        raise Refused(CONFLICT, f"both sides changed {', '.join(conflicts)}", {"conflicts": conflicts})
    answer = _committed(place, merged)
    write_merged(place, ours, merged)
    return answer


def merge_lines(place: Place, mine: Row | None, theirs: Row | None, before: str | None) -> Row | None:
    """Both sides' lines in one file; None when they touch the same ones, or one side deleted it."""
    if mine is None or theirs is None or before is None or {mine.mode, theirs.mode} - {"100644", "100755"}:
        return None
    names: list[str] = []
    for number, object_id in enumerate((mine.object_id, before, theirs.object_id)):
        names.append(str(place.git.path / f"merge-{number}"))
        try:
            Path(names[-1]).write_bytes(place.git.run("cat-file", "blob", object_id))
        except GitFailed:
            return None
    done = subprocess.run(["git", "merge-file", "-p", "-q", *names], capture_output=True, env=clean(place), check=False)
    return Row(mine.mode, place.git.write_blob(done.stdout)) if done.returncode == 0 else None


def clean(place: Place) -> dict[str, str]:
    """An environment in which git finds no settings but ours."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(place.git.path), "GIT_DIR": str(place.git.path)} | {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
    }


def write_merged(place: Place, ours: dict[str, Row], merged: dict[str, Row]) -> None:
    """The workspace holds the merged files."""
    for path in ours.keys() - merged.keys():
        (place.root / path).unlink(missing_ok=True)
    place.git.run("checkout-index", "--all", "--force", "--quiet")


OPERATIONS: dict[str, Callable[[Place], Answer]] = {
    "status": status,
    "log": log,
    "diff": diff,
    "show": show,
    "branch_list": branch_list,
    "add": add,
    "commit": commit,
    "checkout": checkout,
    "branch_create": branch_create,
    "merge_candidate": merge_candidate,
}


def main(argv: Sequence[str]) -> int:
    """Exit 0 with the answer; 1 with git's words, 3 when something named is not there, 4 on a conflict."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workspace", type=Path, default=Path("/workspace"))
    parser.add_argument("--inputs", type=Path, default=Path("/inputs"))
    parser.add_argument("--repo", type=Path, default=Path("/repo.git"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    root: Path = options.workspace.resolve()
    request: dict[str, Any] = json.loads((options.inputs / "git.json").read_bytes())
    try:
        packs = sorted(options.inputs.glob("pack-*.pack"))
        with temporary_git_dir(options.repo.resolve(), root, packs) as git:
            text, data = OPERATIONS[request["op"]](Place(git, options.repo, root, options.out, request))
    except Refused as error:
        print(json.dumps({"text": str(error), "data": error.data}))
        return error.code
    except GitFailed as error:
        print(json.dumps({"text": str(error), "data": None}))
        return 1
    print(json.dumps({"text": text, "data": data}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
