"""`make demo`: the main job on the example repository, with replies recorded from a real model.

Environment: MODEL is a model profile (default: the recorded replies of examples/demo/replies).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "examples" / "demo"
STAGE = ROOT / ".fleet" / "demo"
_WHO = {"NAME": "Ada Example", "EMAIL": "ada@example.org", "DATE": "2026-01-05T09:00:00+00:00"}


def main() -> int:
    """Make a fresh copy of the example repository and run the example story on it."""
    model = os.environ.get("MODEL") or "recorded"
    repo = fresh_repository()
    if model == "recorded":
        say("The team's answers are replayed: they were recorded from Qwen2.5-Coder-1.5B-Instruct, a small open model.")
        say("All else is real: actors, sandbox, tests, votes, commits. `make demo MODEL=local` asks a live model.")
        model = f"recorded:{DEMO / 'replies'}"
    extra = ["--record", str(STAGE / "recording")] if os.environ.get("RECORD") else []
    home = os.environ.get("FLEET_HOME") or str(ROOT / ".fleet" / "home")
    command = [sys.executable, "-m", "fleet.cli", "run", str(DEMO / "story.yaml"), "--repo", str(repo)]
    command += ["--model", model, "--yes", "po,qa", *extra]
    code = subprocess.run(command, env={**os.environ, "FLEET_HOME": home}, check=False).returncode
    if code == 0:
        show_result(repo)
    if code == 5 and model == "local":
        say("`make local` fetches the model (1.1 GB) and builds llama.cpp, once (15 minutes); then run this again.")
    return code


def fresh_repository() -> Path:
    """The example repository as a git repository whose one commit has the same id on every machine."""
    repo = STAGE / "repo"
    shutil.rmtree(repo, ignore_errors=True)
    shutil.copytree(DEMO / "repo", repo, ignore=shutil.ignore_patterns("__pycache__"))
    git(repo, "init", "-q", "-b", "main")
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", "Small functions for text")
    return repo


def git(repo: Path, *arguments: str) -> str:
    """What git prints; the user's own configuration has no part in it."""
    who = {f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in _WHO.items()}
    plain = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-C", str(repo), "-c", "core.autocrlf=false", *arguments]
    return subprocess.run(
        command, env={**os.environ, **who, **plain}, check=True, capture_output=True, text=True
    ).stdout


def show_result(repo: Path) -> None:
    """The branch that the team left."""
    branch = git(repo, "for-each-ref", "--format=%(refname:short)", "refs/heads/fleet").split()[0]
    say("")
    say(f"The repository {repo} has a new branch; your own branch and files are as they were:")
    say(git(repo, "log", "--oneline", "--stat", "-3", branch))


def say(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
