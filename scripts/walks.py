"""Count the files that one enters on three ways through the code: `python -m scripts.walks`, with `-v` by name.

A story's text to its first event; the draft of an engineer to the merged tree; a tool call of an agent to its result.
A file counts when code of it runs on the way; what it does when it is imported does not count.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, cast

from fleet.cli.story.story_file import read_story
from fleet.events.codec import decode
from fleet.events.council import CouncilOpened, DraftReceived
from fleet.events.task import TreeMerged
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import StepId
from fleet.log.port import Appended, AppendRequest, Duplicate, EventLog
from fleet.owner.journal.steps import Seat, Work
from fleet.owner.tools.acting_calls import ActingCalls
from fleet.policy.rules.calls import ToolCall
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.backends.identity import reachable_state_root
from fleet.sandbox.memory import MemoryRunLedger
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from tests.support.acting import COUNCIL, acting_policy, convened, toolbox, written
from tests.support.bench import World
from tests.support.story_events import TASK
from tests.support.team import team
from tests.support.team_models import DEMO, RECORDED, demo_repository

ROOT = Path(__file__).resolve().parents[1]
PLACES = tuple(f"{ROOT / place}/" for place in ("fleet", "serve_apps", "actors"))
_LONGEST_S = 500
PYTEST = {"test_one.py": b"def test_one():\n    assert 1 + 1 == 2\n"}


@dataclass
class Walk:
    """The files that were entered while it was under way."""

    files: set[str] = field(default_factory=set[str])
    is_over: bool = False

    def begin(self) -> None:
        """From here on files count, in this thread and in those that begin now; the first way is the one."""
        if not self.is_over:
            threading.setprofile(self._enter)
            sys.setprofile(self._enter)

    def end(self) -> None:
        """No file counts any more."""
        self.is_over = True
        sys.setprofile(None)
        threading.setprofile(None)

    @contextmanager
    def under_way(self) -> Iterator[Walk]:
        """What the block enters counts."""
        self.begin()
        try:
            yield self
        finally:
            self.end()

    def _enter(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_name != "<module>" and code.co_filename.startswith(PLACES) and not self.is_over:
            self.files.add(code.co_filename.removeprefix(f"{ROOT}/"))


class _Watched:
    """A log that tells of each event before it stores it, and after."""

    def __init__(self, log: EventLog, walk: Walk) -> None:
        self._log, self._walk = log, walk
        self._of_tasks: set[str] = set()
        self.merged = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        """See the port."""
        payloads = [decode(event) for event in request.events]
        if any(isinstance(p, DraftReceived) and p.council_id in self._of_tasks for p in payloads):
            self._walk.begin()
        stored = await self._log.append(request)
        self._of_tasks |= {p.council_id for p in payloads if isinstance(p, CouncilOpened) and p.task_id is not None}
        if self._of_tasks and any(isinstance(p, TreeMerged) for p in payloads):
            self._walk.end()
            self.merged.set()
        return stored


async def story_to_first_event(root: Path) -> Walk:
    """A story's text, as `fleet run` and the desk take it, to StoryCreated on record."""
    walk = Walk()
    async with team(root, models={}) as t:
        with walk.under_way():
            await t.create(read_story(DEMO / "story.yaml", None))
    return walk


async def draft_to_merged_tree(root: Path) -> Walk:
    """The first draft of code in the demo, by its recorded replies, to the tree that it became."""
    walk, logs = Walk(), list[_Watched]()

    def watched(log: EventLog) -> EventLog:
        logs.append(_Watched(log, walk))
        return cast("EventLog", logs[-1])

    async with team(root, through=watched) as t, asyncio.timeout(_LONGEST_S):
        story_id = await t.create(read_story(DEMO / "story.yaml", None))
        await t.start(story_id, demo_repository(root / "stage"), model=RECORDED)
        await logs[0].merged.wait()
    return walk


async def tool_call(root: Path) -> Walk:
    """One run of tests that an agent of a council asks for, in the real sandbox."""
    world = World(clock=SystemClock(), policy=acting_policy("developer"))
    backend = BubblewrapBackend(reachable_state_root(root / "sandbox"), world.blobs)
    sandbox = ToolSupervisor(backend, MemoryRunLedger(), world.blobs, world.clock, "sandbox:walks")
    world.tools = toolbox(world.blobs, sandbox, world.clock)  # type: ignore[arg-type]
    tree = await written(world.blobs, PYTEST)
    await convened(tree).write_to(world.log)
    bench = await world.bench()
    seat = Seat(bench.state.councils[COUNCIL].opened.roster[0].principal, "developer")
    calls = ActingCalls(bench, Work(seat, "model", "act", task_id=TASK, council_id=COUNCIL), tree)
    with Walk().under_way() as walk:
        seen = await calls.call(
            StepId(f"{COUNCIL}/draft/developer-001/act/1/tool/1"), ToolCall(tool="tests", op="pytest")
        )
    assert seen.kind == "result", seen.text
    return walk


WALKS = {
    "story to first event": story_to_first_event,
    "draft to merged tree": draft_to_merged_tree,
    "tool call": tool_call,
}


def main() -> None:
    """Print the figures."""
    for name, walk in WALKS.items():
        with tempfile.TemporaryDirectory() as folder:
            files = sorted(asyncio.run(walk(Path(folder))).files)
        print(f"{name}: {len(files)} files")
        if "-v" in sys.argv[1:]:
            print(*(f"  {file}" for file in files), sep="\n")


if __name__ == "__main__":
    main()
