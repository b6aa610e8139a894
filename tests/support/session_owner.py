"""An owner and a supervisor in a process of their own, that a test kills in the middle of a work session.

Arguments: URL of the log's server, folder. Prints `append N` after each append of this life, and the candidate as JSON
at the end. Each reply of its engine is written to `paid` in the folder, on disk before it is given.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from fleet.context.scope import ContextConfig
from fleet.context.service.packs import ContextService
from fleet.forge.memory import MemoryForge
from fleet.kernel.clock import SystemClock
from fleet.log.redis.log import RedisEventLog
from fleet.models.port import AgentAnswer, AgentRequest
from fleet.owner.budgets import Budgeting
from fleet.owner.duties.members import Sitting
from fleet.owner.engineering.seats import deliver
from fleet.owner.journal.journal import Journal
from fleet.owner.workbench import Workbench
from fleet.report.service.reports import ReportService
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.redis import RedisRunLedger
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.story.council_facts import council_state
from fleet.trees.files import FileBlobStore
from tests.support.acting import COUNCIL
from tests.support.bench import ScriptedAgents, definitions
from tests.support.chaos_servers import connected
from tests.support.rules import files, step_policy
from tests.support.sessions import Script, engineer, models
from tests.support.story_events import STORY

FIX = {"path": "text/slug.py", "old": "    raise NotImplementedError", "new": "    return title.lower()"}
SCRIPT: Script = (
    [("read", {"path": "text/slug.py"}), ("search", {"pattern": r"def \w+"})],
    [("edit", FIX), ("run", {"command": "echo half > notes.txt; sleep 0.3; exit 3"})],
    [("run", {"command": "cat notes.txt; echo whole >> notes.txt; sleep 0.3; ls"})],
    [("write", {"path": "tests/test_lower.py", "content": "def test_it():\n    assert 'A'.lower() == 'a'\n"})],
    [("tests", {"select": ["tests/test_lower.py"]})],
    [("submit", {"summary": "done"})],
    [("submit", {"summary": "done"})],
)
"""What the engineer does: looks, edits, and commands one of which fails and leaves half of its work."""


class PaidAgents(ScriptedAgents):
    """The scripted engineer; what was asked of it outlives the process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(engineer(SCRIPT).answer)
        self._paid = folder / "paid"

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See `Agents.ask`."""
        with self._paid.open("a") as file:
            file.write(f"{request_id}\n")
            file.flush()
            os.fsync(file.fileno())
        return await super().ask(request, request_id=request_id, timeout_s=timeout_s)


async def main(url: str, folder: Path) -> None:
    """One life of the owner."""
    blobs, clock, config = FileBlobStore(folder / "blobs"), SystemClock(), models()
    async with connected(url) as client:
        log = RedisEventLog(client)
        backend = BubblewrapBackend(folder / "sandbox", blobs)
        sandbox = ToolSupervisor(backend, RedisRunLedger(client, margin_s=2), blobs, clock, "sandbox:n1")
        packs = ContextService(log, blobs, files().load("context.yaml", ContextConfig), clock=clock)
        journal = Journal(
            log=log,
            blobs=blobs,
            clock=clock,
            sandbox=sandbox,
            agents=PaidAgents(folder),
            story_id=STORY,
            epoch=0,
            policy=step_policy(),
            budgeting=Budgeting(limits=config.budgets, models=config),
            packs=packs,
        )
        await journal.load()
        reports = ReportService(log, blobs)
        bench = Workbench(
            journal=journal,
            rules=definitions(),
            packs=packs,
            forge=MemoryForge(blobs),
            blobs=blobs,
            clock=clock,
            reports=reports,
        )
        await backend.health()
        record = bench.state.councils[COUNCIL]
        sitting = Sitting(bench, record, council_state(record.opened, tuple(record.said.values())))
        member, base = record.opened.roster[0], record.opened.subject_digest
        assert base is not None
        appended = 0

        def look() -> None:
            nonlocal appended
            appended += 1
            print(f"append {appended}", flush=True)

        print("append 0", flush=True)
        with journal.watched(look):
            found = await deliver(sitting, member, step=f"draft/{member.member_id}", base=base)
        print(json.dumps({"candidate": found.candidate, "tokens": found.tokens}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
