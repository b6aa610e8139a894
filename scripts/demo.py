"""`make demo`: a feature of a real library from the package index, worked out by sessions with recorded replies.

Environment:
    MODEL    a model profile; without it the recorded replies are replayed
    EXAMPLE  `library` (default), or `bundled`: a small repository of ours, with the replies of a model of 1.5 billion
             parameters. Any other MODEL than recorded replies works on the bundled one where EXAMPLE does not name it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from scripts.distribution import NotFetched, git
from scripts.examples import BUNDLED, EXAMPLES, LIBRARY, ROOT, Example, configuration

STAGE = ROOT / ".fleet" / "demo"


def main() -> int:
    """Make the example's repository anew and run its story on it."""
    model = os.environ.get("MODEL") or "recorded"
    named = os.environ.get("EXAMPLE") or ("library" if model == "recorded" else "bundled")
    if named not in EXAMPLES:
        say(f"There is no example {named!r}: choose one of {', '.join(EXAMPLES)}.")
        return 2
    example, repo = example_at_hand(EXAMPLES[named])
    if model == "recorded":
        _say_what_is_recorded(example)
        model = f"recorded:{example.replies}"
    code, result = _run(example, repo, model)
    if code == 0:
        show_result(example, repo, result)
    if code == 5 and model == "local":
        say("`make local` fetches the model (1.1 GB) and builds llama.cpp, once (15 minutes); then run this again.")
    return code


def example_at_hand(example: Example) -> tuple[Example, Path]:
    """The example with its repository; the bundled one where the library cannot be had."""
    try:
        return example, example.repository(STAGE / "repo")
    except NotFetched as error:
        say(f"The library of this example is neither in the cache nor to be had from a package index: {error}")
        say("So this runs the bundled example, a small repository with one function to add.")
        return BUNDLED, BUNDLED.repository(STAGE / "repo")


def _say_what_is_recorded(example: Example) -> None:
    if example is LIBRARY:
        say("The engineers' replies are replayed: they were recorded from a large general model.")
    else:
        say("The team's replies are replayed: they were recorded from Qwen2.5-Coder-1.5B-Instruct, a small open model.")
    say("All else is real: actors, sandbox, commands, tests, votes, commits. `make demo MODEL=...` asks a live model.")


def _run(example: Example, repo: Path, model: str) -> tuple[int, dict[str, Any]]:
    """The exit code of `fleet run`, and the facts of its last line."""
    environment = {**os.environ, "FLEET_HOME": os.environ.get("FLEET_HOME") or str(ROOT / ".fleet" / "home")}
    if example is LIBRARY and (model.startswith("recorded:") or "FLEET_CONFIG" not in os.environ):
        # Recorded replies answer the prompts of the packaged files only.
        environment["FLEET_CONFIG"] = str(configuration(STAGE / "config"))
    command = [sys.executable, "-m", "fleet.cli", "run", str(example.story), "--repo", str(repo)]
    command += ["--model", model, "--yes", "po,qa", "--no-fetch", "--json"]
    if os.environ.get("RECORD"):
        command += ["--record", str(STAGE / "recording")]
    done = subprocess.run(command, env=environment, check=False, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.strip().splitlines()
    return done.returncode, json.loads(lines[-1]) if lines and done.returncode == 0 else {}


def show_result(example: Example, repo: Path, result: dict[str, Any]) -> None:
    """The branch that the team left, what speaks for it, and where to look further."""
    branch, story = result["branch"], result["story_id"]
    say("")
    say(f"Branch {branch} in {repo}; your own branch and files are as they were:")
    say("")
    say(git(repo, "log", "--format=  %h %s", f"main..{branch}").rstrip())
    say(git(repo, "diff", "--stat", f"main...{branch}").rstrip())
    say("")
    for kind in ("unit", "e2e"):
        if tests := result["tests"][kind]:
            say(f"Tests ({kind}): {tests['passed']} passed, {tests['failed'] + tests['errored']} failed")
    for council in result["councils"]:
        if council["kind"] == "code_patch" and council.get("why"):
            say(f"The council: {council['why']}")
    say("")
    say("Look further:")
    fleet = ".venv/bin/fleet"
    rows = [
        (f"git -C {_near(repo)} diff main...{branch}", "the change"),
        (f"less {_near(Path(result['report']))}", "who decided what, why, on which evidence"),
        (f"{fleet} up --detach", "start a fleet; then:"),
        (f"  {fleet} events {story}", "every reply, command, test and ballot as it was recorded"),
        (
            f"{fleet} run STORY.yaml --repo DIR --model PROFILE",
            "your own story, on a model of yours: docs/quickstart.md",
        ),
    ]
    width = max(len(command) for command, _ in rows)
    for command, what in rows:
        say(f"  {command:<{width}}  {what}")


def _near(path: Path) -> str:
    """The path as one types it from here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def say(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
