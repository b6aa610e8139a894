"""`python -m scripts.record`: record the replies of an example, or its replies again after a prompt has changed.

    python -m scripts.record                 whoever writes the files of .fleet/record/requests is the model
    python -m scripts.record --model PROFILE an engine of models.yaml is the model
    python -m scripts.record --again         recorded replies that still fit are kept for the new requests

With `--again` a request that differs from a recorded one only in its frame (rules, tools, limits, where the session
stands) has the recorded reply. The differences are shown in the end, and the new recording replaces the old one only
when they were accepted, or with `--yes`. A request that differs in what it asks is written to a file with the
difference, and waits for a reply like any other.

The same for a repository of your own: `--story FILE --repo DIR --replies DIR`.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fleet.models.engine_config import HttpEngine
from fleet.models.engines.openai import LearnedDialect
from fleet.models.engines.recorded import Recording, recordings_in
from scripts.examples import EXAMPLES, ROOT, configuration
from scripts.played_model import MODEL, Earlier, PlayedModel, Reply, served

_STAGE = ROOT / ".fleet" / "record"
_STANDING = re.compile(r"^\[turn \d+ of \d+; .*$", re.MULTILINE)
_NOT_ASKED = frozenset({"model", "stream", "stream_options"})
ENGINE: dict[str, object] = {
    "engine_id": "played",
    "kind": "openai",
    "model": MODEL,
    "unpriced": True,
    "max_context": 128_000,
    "max_output": 16_000,
    "strategy": "session",
    "capabilities": ["json_schema", "seed", "tools"],
}


def main(arguments: Sequence[str]) -> int:
    """Run the story with the model, and keep what it said."""
    parser = argparse.ArgumentParser(prog="python -m scripts.record", description="Record the replies of an example.")
    parser.add_argument("--example", choices=sorted(EXAMPLES), default="library")
    parser.add_argument("--story", type=Path)
    parser.add_argument("--repo", type=Path)
    parser.add_argument("--replies", type=Path, help="the folder of the recording")
    parser.add_argument("--model", help="an engine of models.yaml that answers instead of files")
    parser.add_argument("--again", action="store_true", help="keep recorded replies that still fit")
    parser.add_argument("--yes", action="store_true", help="accept the differences of the frames")
    given = parser.parse_args(arguments)
    example = EXAMPLES[given.example]
    story, kept = given.story or example.story, given.replies or example.replies
    repo = given.repo or example.repository(_STAGE / "repo")
    fresh = _STAGE / "replies"
    for folder in (fresh, _STAGE / "requests", _STAGE / "home"):
        shutil.rmtree(folder, ignore_errors=True)
    played = PlayedModel(_STAGE / "requests", Recalled(kept if given.again else None))
    with served(played) as address:
        code = _run(story, repo, given.model, address, fresh)
    if code != 0:
        say(f"The run ended with {code}; the recording {kept} is as it was.")
        return code
    for difference, times in played.differences.items():
        say(f"{times} requests differ so from the recorded ones:\n{difference}")
    if played.differences and not given.yes and not _is_accepted():
        say(f"The recording {kept} is as it was; the new one is in {fresh}.")
        return 1
    put_in_place(fresh, kept)
    say(f"{kept} holds the recording.")
    return 0


def put_in_place(fresh: Path, kept: Path) -> None:
    """The folder holds the fresh recording; what was recorded before for the same request stays as it was."""
    wanted = {path.relative_to(fresh) for path in fresh.rglob("*.json")}
    for path in sorted(kept.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(kept) not in wanted:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    for name in sorted(wanted):
        # Versions of tools may have changed, which no digest of a request says.
        if not (kept / name).exists() or len(name.parts) == 1:
            (kept / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(fresh / name, kept / name)


def _run(story: Path, repo: Path, model: str | None, address: str, replies: Path) -> int:
    # What a reply may take is bound by who writes it; no prompt says how long that is.
    own = configuration(_STAGE / "config", engines=({**ENGINE, "base_url": address},), timeout_s=3_600)
    environment = {**os.environ, "FLEET_HOME": str(_STAGE / "home"), "FLEET_CONFIG": str(own)}
    command = [
        sys.executable,
        "-m",
        "fleet.cli",
        "run",
        str(story),
        "--repo",
        str(repo),
        "--yes",
        "po,qa",
        "--no-fetch",
    ]
    command += ["--model", model or "played", "--record", str(replies)]
    if model is None:
        say(f"Requests come to {_STAGE / 'requests'} as NNNN.request.txt; put NNNN.reply.txt beside each.")
    return subprocess.run(command, env=environment, check=False).returncode


def _is_accepted() -> bool:
    return sys.stdin.isatty() and input("Take the recorded replies for these requests? [y/N] ").strip().lower() == "y"


class Recalled:
    """The recorded replies by their requests, as an OpenAI-compatible server is sent them."""

    def __init__(self, folder: Path | None) -> None:
        dialect = LearnedDialect(HttpEngine.model_validate({**ENGINE, "base_url": "http://127.0.0.1/v1"}))
        found = (recording for _, recording in recordings_in(folder)) if folder is not None else ()
        self._known = [(_wire(dialect, recording), recording) for recording in found]

    def __call__(self, request: dict[str, Any]) -> Earlier | None:
        """The recorded reply to the request that is most like this one; None when none is of its kind and turn."""
        alike = [pair for pair in self._known if _shape(pair[0]) == _shape(request)]
        if not alike:
            return None
        wanted = _flat(request)
        known, recording = max(alike, key=lambda pair: _likeness(_flat(pair[0]), wanted))
        reply = Reply(recording.reply.text, recording.reply.tool_uses)
        return Earlier(reply, difference(known, request), _asked(known) == _asked(request))


def _wire(dialect: LearnedDialect, recording: Recording) -> dict[str, Any]:
    values = dialect.values(recording.request, MODEL, dialect.messages(recording.request))
    return json.loads(json.dumps(values))


def _shape(request: dict[str, Any]) -> list[Any]:
    """Kind of work, seat and what was said so far: equal for the same turn of the same session."""
    messages = request["messages"]
    said = [[one.get("content"), one.get("tool_calls")] for one in messages if one["role"] == "assistant"]
    kind = str(messages[0]["content"]).partition("\n")[0]
    return [kind, request.get("seed"), request.get("temperature"), len(messages), said]


def _asked(request: dict[str, Any]) -> list[str]:
    """What is asked, without the frame: the material of the first prompt, and what came of each call."""
    return [
        _STANDING.sub("", str(one["content"])).rstrip() for one in request["messages"][1:] if one["role"] != "assistant"
    ]


def _flat(request: dict[str, Any]) -> list[str]:
    return [line for text in _asked(request) for line in text.split("\n")]


def _likeness(one: list[str], other: list[str]) -> float:
    return difflib.SequenceMatcher(a=one, b=other, autojunk=False).ratio()


def difference(recorded: dict[str, Any], asked: dict[str, Any]) -> str:
    """The lines of the two requests that are not equal; empty when they are the same request."""
    lines = difflib.unified_diff(list(_lines(recorded)), list(_lines(asked)), "recorded", "asked", lineterm="", n=0)
    return "\n".join(line for line in lines if not line.startswith("@@"))


def _lines(request: dict[str, Any]) -> Iterator[str]:
    for one in request["messages"]:
        yield from _STANDING.sub("[where the session stands]", str(one.get("content"))).split("\n")
    yield from (json.dumps(tool, sort_keys=True) for tool in request.get("tools", []))
    rest = {k: v for k, v in request.items() if k not in _NOT_ASKED | {"messages", "tools"}}
    yield json.dumps(rest, sort_keys=True)


def say(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
