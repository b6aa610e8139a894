"""Kinds of work sessions for fault tests: what the engineer does, what people do meanwhile, who works on what.

A kind is worked by a `Life`: an owner that was just started, over whatever stores. Every life does all of it again, and
comes as far as it is let; the kind is over when one life has done it all. In `run`, commands are made of a few words
(`put PATH TEXT`, `rm PATH`, `say TEXT`, `fail`) that the scripted shell of the simulation knows; `for_bash` makes
commands of them that a real one carries out.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from fleet.context.service.packs import ContextService
from fleet.engineering.summary import REQUEST
from fleet.events.council import RosterMember
from fleet.events.envelope import StoredEvent
from fleet.forge.memory import MemoryForge
from fleet.kernel.clock import Clock
from fleet.kernel.errors import ContextTooLarge, FleetError, ModelUnavailable, ReplyMalformed, Retry
from fleet.kernel.ids import CommandId, Digest, Principal, StreamId
from fleet.log.port import Command, EventLog
from fleet.models.port import AgentAnswer, AgentRequest, Agents
from fleet.models.replies.change_reply import change_of
from fleet.owner.budgets import Budgeting
from fleet.owner.commands.handler import CommandHandler
from fleet.owner.duties.members import Sitting
from fleet.owner.engineering import authors
from fleet.owner.engineering.seats import Delivered, deliver
from fleet.owner.journal.journal import Journal
from fleet.owner.workbench import Workbench
from fleet.planning.coach_config import CoachConfig
from fleet.projects.project_owner import project_state
from fleet.report.service.reports import ReportService
from fleet.sandbox.port import Sandbox
from fleet.story.council_facts import council_state
from fleet.story.sessions.steps import session_id_of
from fleet.story.state import SessionRecord, StoryState
from fleet.trees.port import BlobStore
from tests.support.acting import COUNCIL
from tests.support.bench import ANA, PEOPLE, ScriptedAgents, definitions
from tests.support.rules import files, step_policy
from tests.support.sessions import Script, models, reply_of, turn_of
from tests.support.story_events import STORY

SEAT = f"{COUNCIL}/draft/developer-001"
SESSION = session_id_of(STORY, SEAT)
Said = dict[str, Any] | BaseException
PRELUDE = (
    'code=0; put() { mkdir -p "$(dirname "$1")"; printf %s "${*:2}" > "$1"; }; say() { echo "$*"; }; '
    "fail() { code=1; }; sleep 0.2; "
)


def for_bash(value: dict[str, Any]) -> dict[str, Any]:
    """The same reply, with commands that bash carries out; each takes a moment in which it can be killed."""
    return {**value, "uses": [_for_bash(use) for use in value["uses"]]} if value.get("uses") else value


def _for_bash(use: dict[str, Any]) -> dict[str, Any]:
    args = json.loads(use["arguments"]) if use["name"] == "run" else {}
    return (
        {**use, "arguments": json.dumps({**args, "command": f"{PRELUDE}{args['command']}; exit $code"})}
        if args
        else use
    )


class Life:
    """One life of an owner at work on the sessions of one council."""

    def __init__(self, bench: Workbench, commands: CommandHandler) -> None:
        self.bench, self._commands = bench, commands

    def sitting(self) -> Sitting:
        """The council as it stands on record."""
        record = self.bench.state.councils[COUNCIL]
        return Sitting(self.bench, record, council_state(record.opened, tuple(record.said.values())))

    def member(self, number: int = 0, strategy: str | None = "session") -> RosterMember:
        """A member of the council, on an engine with this strategy."""
        return self.sitting().opened.roster[number].model_copy(update={"strategy": strategy})

    async def deliver(self, number: int = 0, **how: Any) -> Delivered:
        """The candidate of a session of this member."""
        sitting = self.sitting()
        member, base = sitting.opened.roster[number], sitting.opened.subject_digest
        assert base is not None
        return await deliver(sitting, member, step=f"draft/{member.member_id}", base=base, **how)

    async def command(self, name: str, *, key: str = "key-0001", who: Principal = ANA, **body: Any) -> dict[str, Any]:
        """The answer to a command of a person that reaches this owner."""
        stream = StreamId.of_story(STORY)
        return await self._commands.handle(self.bench, Command(CommandId(f"{who}/{key}"), stream, name, who, body))


class Ports(NamedTuple):
    """What an owner works over."""

    log: EventLog
    blobs: BlobStore
    clock: Clock
    sandbox: Sandbox
    agents: Agents
    packs: ContextService


async def begin_life(kind: SessionKind, ports: Ports, *, epoch: int) -> Life:
    """An owner of this epoch that has just read its story."""
    config = models(**kind.engine)
    limits = config.budgets
    if kind.council_tokens is not None:
        council = limits.council.model_copy(update={"tokens": kind.council_tokens})
        limits = limits.model_copy(update={"council": council})
    journal = Journal(
        log=ports.log,
        blobs=ports.blobs,
        clock=ports.clock,
        sandbox=ports.sandbox,
        agents=ports.agents,
        story_id=STORY,
        epoch=epoch,
        policy=step_policy(),
        budgeting=Budgeting(limits=limits, models=config),
        packs=ports.packs,
    )
    await journal.load()
    bench = Workbench(
        journal=journal,
        rules=definitions(),
        packs=ports.packs,
        forge=MemoryForge(ports.blobs),
        blobs=ports.blobs,
        clock=ports.clock,
        reports=ReportService(ports.log, ports.blobs),
    )
    handler = CommandHandler(
        roles_of=lambda p: PEOPLE.get(p, frozenset()),
        coach=files().load("coach.yaml", CoachConfig),
        config_digests=files().digests(),
        projects=partial(project_state, ports.log),
    )
    return Life(bench, handler)


async def kind_worked(kind: SessionKind, life: Life, *, tries: int) -> Candidates:
    """What one life comes to. An error that passes is met again, as the owner of a story meets it."""
    for left in reversed(range(tries)):
        try:
            return await kind.work(life)
        except FleetError as error:
            if error.retry is not Retry.LATER or not left:
                raise
            await life.bench.clock.sleep(0.1)
    raise AssertionError("unreachable")


Candidates = tuple[Digest | None, ...]
Happening = Callable[[Life], Awaitable[Any]]


async def one_session(life: Life) -> Candidates:
    """One engineer works."""
    return ((await life.deliver()).candidate,)


@dataclass(frozen=True)
class SessionKind:
    """What happens in sessions of one kind."""

    name: str
    answer: Callable[[AgentRequest], Said]
    """What the engine says; a function of the request alone, but for `fails`."""
    work: Callable[[Life], Awaitable[Candidates]] = one_session
    meanwhile: Mapping[int, Happening] = field(default_factory=dict[int, Happening])
    """What people do while the engine thinks about a turn."""
    fails: Callable[[AgentRequest, int], BaseException | None] = lambda request, times: None
    """An error of the engine in this request, asked so often before in this life."""
    engine: Mapping[str, Any] = field(default_factory=dict[str, Any])
    council_tokens: int | None = None
    """Budget of its council."""
    pytest: bool = False
    """It runs the test suite, which takes a second with a real interpreter."""


def scripted(script: Script) -> Callable[[AgentRequest], Said]:
    """An engine that says the n-th of these turns whoever asks how often, and repeats the last one."""
    return lambda request: reply_of(script[min(turn_of(request), len(script)) - 1], turn_of(request))


FIX = {"path": "text/slug.py", "old": "    raise NotImplementedError", "new": "    return title.lower()"}
DONE: Script = ([("submit", {"summary": "done"})],) * 2


def run(command: str) -> tuple[str, dict[str, Any]]:
    """The call of `run` with this command."""
    return ("run", {"command": command})


PLAIN: Script = (
    [("files", {}), ("read", {"path": "text/slug.py"}), ("search", {"pattern": "def "})],
    [("edit", FIX), ("write", {"path": "docs/slug.md", "content": "# Slugs\n"}), ("note", {"text": "tests next"})],
    [run("put notes.txt half; fail"), run("rm notes.txt; say done")],
    [("tests", {"select": ["tests/test_slug.py"]})],
    *DONE,
)
COMMANDS: Script = (
    [run("put a.txt one; put b.txt two")],
    [run("put a.txt three; fail")],
    [run("rm b.txt; put deep/down/c.txt four; say moved")],
    [("edit", {"path": "a.txt", "old": "three", "new": "five"}), run("put d.txt six")],
    [run("rm text/fold.py; put text/fold.py again")],
    *DONE,
)
PARALLEL: Script = (
    [
        ("read", {"path": "text/slug.py"}),
        ("read", {"path": "text/fold.py"}),
        ("files", {"glob": "**/*.py"}),
        ("search", {"pattern": "def"}),
    ],
    [("edit", FIX), run("put one.txt 1"), ("read", {"path": "one.txt"}), run("put two.txt 2"), ("files", {})],
    [
        ("search", {"pattern": "return"}),
        ("search", {"pattern": "import"}),
        ("write", {"path": "docs/a.md", "content": "# A\n"}),
        ("write", {"path": "docs/b.md", "content": "# B\n"}),
    ],
    *DONE,
)
TALKED: Script = (
    [("read", {"path": "text/slug.py"})],
    [("edit", FIX)],
    [run("put notes.txt half")],
    [("write", {"path": "docs/slug.md", "content": "# Slugs\n"})],
    *DONE,
)
LONG: Script = (
    [run("; ".join(f"say line {n} {'x' * 60}" for n in range(150)))],
    [("read", {"output": "o1", "from": 100, "lines": 5}), ("edit", FIX)],
    [run("; ".join(f"say more {n} {'y' * 60}" for n in range(150)))],
    [("read", {"output": "o2", "from": 2, "lines": 3}), run("put seen.txt yes")],
    *DONE,
)
MANY: Script = (
    *([("write", {"path": f"many/f{n}.txt", "content": f"{n}\n"})] for n in range(8)),
    *([run(f"put many/c{n}.txt {n}")] for n in range(4)),
    *DONE,
)
REFUSED: Script = (
    [("edit", {**FIX, "old": "not there"}), ("read", {"path": "nowhere.py"}), ("edit", {"path": "text/slug.py"})],
    [("write", {"path": "text/slug.py", "content": "x = 1\n"}), ("read", {"path": "../outside"})],
    [("edit", FIX)],
    [run("fail"), run("put fine.txt yes")],
    *DONE,
)
UNTESTED: Script = ([("edit", FIX), ("write", {"path": "new.py", "content": "y = 1\n"})], *DONE)
CIRCLING: Script = ([("edit", FIX)], [("read", {"path": "text/fold.py"})])
BACK_AND_FORTH: Script = (
    *(
        [("edit", {"path": "text/fold.py", "old": old, "new": new})]
        for old, new in [('"y"', '"z"'), ('"z"', '"y"')] * 5
    ),
    *DONE,
)


def mending(request: AgentRequest) -> Said:
    """It does other things when it mends what it did before."""
    return scripted(TALKED if "They were measured" in request.own else COMMANDS)(request)


def unusable(request: AgentRequest) -> Said:
    """Replies that cannot be read stand between those that can; each is on record, and paid for."""
    if turn_of(request) == 2 and "could not be used" not in request.turns[-1].content:
        return ReplyMalformed("no JSON", reply_text="...", tokens_in=10, tokens_out=5, latency_ms=3)
    return scripted(TALKED)(request)


def wordy(request: AgentRequest) -> Said:
    """An engine that takes few tokens: it writes large files until it is asked for a summary, then goes on a little."""
    last, number = request.turns[-1].content if request.turns else "", turn_of(request)
    if sum(len(message.content) for message in request.turns) > 60_000:
        return ContextTooLarge("the prompt is too long", engine="e")
    if REQUEST in last:
        return {"text": "Done: f1 to f3. Next act: one command, then submit.", "is_cut": False, "uses": []}
    if any("Next act: one command" in message.content for message in request.turns):
        after = sum(message.role == "assistant" for message in request.turns)
        turn = [run("put after.txt summary")] if after == 1 else [("submit", {"summary": "all is there"})]
        return reply_of(turn, number)
    return reply_of([("write", {"path": f"f{number}.txt", "content": f"{number}\n" * 7_000})], number)


def summarised_again(request: AgentRequest) -> Said:
    """It writes large files for ever: the second summary ends it."""
    if request.turns and REQUEST in request.turns[-1].content:
        return {"text": "Done: some. Next act: write more.", "is_cut": False, "uses": []}
    number, is_after = turn_of(request), any("Next act: write" in message.content for message in request.turns)
    name = f"{'g' if is_after else 'f'}{number}.txt"
    return reply_of([("write", {"path": name, "content": f"{number}\n" * 7_000})], number)


SLUG = """file: text/slug.py
```python
<<<<<<< SEARCH
    raise NotImplementedError
=======
    return title.lower()
>>>>>>> REPLACE
```
file: README.md
```markdown
# Slugs
```
file: tests/test_more.py
```python
def test_more():
    pass
```
"""
HALF = "file: README.md\n```markdown\n# Slugs\n```"
MORE = "file: README.md\n```markdown\n# Slugs of titles\n```"
GONE = "file: text/slug.py\n```python\n<<<<<<< SEARCH\nnot there\n=======\nx\n>>>>>>> REPLACE\n```"


def in_one_reply(*changes: str, script: Script = DONE) -> Callable[[AgentRequest], Said]:
    """An engine that answers with these changes, each where the one before did not fit; in a session by the script."""

    def answer(request: AgentRequest) -> Said:
        if request.kind != "change":
            return scripted(script)(request)
        is_again = "Your last change was not made" in request.own or "They were measured" in request.own
        try:
            return change_of(changes[min(int(is_again), len(changes) - 1)])
        except ReplyMalformed as error:
            return error

    return answer


def proposed(strategy: str | None) -> Callable[[Life], Awaitable[Candidates]]:
    """A member proposes in this way."""

    async def work(life: Life) -> Candidates:
        return (
            (await authors.propose(life.sitting(), life.member(0, strategy), step="draft/developer-001")).candidate,
        )

    return work


def mended(strategy: str | None) -> Callable[[Life], Awaitable[Candidates]]:
    """A member proposes, its work fails, and it mends that."""

    async def work(life: Life) -> Candidates:
        author = life.member(0, strategy)
        first = await authors.propose(life.sitting(), author, step="draft/developer-001")
        step, failures = f"repair/1/{first.candidate[-8:]}", "FAILED tests/test_slug.py::test_it"
        new = await authors.mend(life.sitting(), author, step=step, old=first.candidate, failures=failures, draw=1)
        return first.candidate, new

    return work


async def forked(life: Life) -> Candidates:
    """A session, and one that goes on from its second turn."""
    first = await life.deliver()
    await life.command("fork_session", session_id=SESSION, turn=2)
    return first.candidate, (await life.deliver(_number_of(life, "developer-001-fork-1"))).candidate


async def forked_twice(life: Life) -> Candidates:
    """A session, a fork of it, and a fork of that."""
    both = await forked(life)
    source = session_id_of(STORY, f"{COUNCIL}/draft/developer-001-fork-1")
    await life.command("fork_session", key="key-0002", session_id=source, turn=1)
    return (*both, (await life.deliver(_number_of(life, "developer-001-fork-1-fork-1"))).candidate)


def _number_of(life: Life, member_id: str) -> int:
    roster = life.sitting().opened.roster
    return next(number for number, member in enumerate(roster) if member.member_id == member_id)


async def side_by_side(life: Life) -> Candidates:
    """Two engineers work at the same time, on one base."""
    both = await asyncio.gather(life.deliver(0), life.deliver(1), return_exceptions=True)
    if errors := [found for found in both if isinstance(found, BaseException)]:
        raise errors[0]
    return tuple(found.candidate for found in both if isinstance(found, Delivered))


async def tell(life: Life) -> None:
    """A person speaks to the engineer."""
    await life.command("tell_session", session_id=SESSION, text="Keep the old name as an alias.")


async def stop(life: Life) -> None:
    """A person ends the session with what it has, once."""
    if life.bench.state.sessions.get(SESSION, SessionRecord()).stopped is None:
        await life.command("stop_session", session_id=SESSION, reason="the half is enough")


def fails_twice(request: AgentRequest, times: int) -> BaseException | None:
    """The engine limits its second turn, twice."""
    is_second = request.kind == "engineer" and turn_of(request) == 2
    return ModelUnavailable("too many requests", retry_after_s=1) if is_second and times < 2 else None


KINDS: Mapping[str, SessionKind] = {
    kind.name: kind
    for kind in (
        SessionKind("plain", scripted(PLAIN), pytest=True),
        SessionKind("commands", scripted(COMMANDS)),
        SessionKind("parallel", scripted(PARALLEL)),
        SessionKind("told", scripted(TALKED), meanwhile={2: tell}),
        SessionKind("stopped", scripted(TALKED), meanwhile={4: stop}),
        SessionKind("forked", scripted(TALKED), forked),
        SessionKind("forked-twice", scripted(TALKED), forked_twice),
        SessionKind("summary", wordy, engine={"max_context": 60_000}),
        SessionKind("summaries", summarised_again, engine={"max_context": 60_000}),
        SessionKind(
            "cascade", in_one_reply(GONE, script=COMMANDS), proposed("cascade"), engine={"strategy": "cascade"}
        ),
        SessionKind(
            "cascade-mended", in_one_reply(SLUG, script=COMMANDS), mended("cascade"), engine={"strategy": "cascade"}
        ),
        SessionKind(
            "assisted", in_one_reply(HALF, SLUG), proposed("assisted"), engine={"strategy": "assisted"}, pytest=True
        ),
        SessionKind(
            "assisted-mended",
            in_one_reply(SLUG, MORE),
            mended("assisted"),
            engine={"strategy": "assisted"},
            pytest=True,
        ),
        SessionKind("one-reply", in_one_reply(SLUG), proposed(None), engine={"strategy": "draft"}),
        SessionKind("one-reply-again", in_one_reply(GONE, SLUG), proposed(None), engine={"strategy": "draft"}),
        SessionKind("mended", mending, mended("session")),
        SessionKind("side-by-side", scripted(COMMANDS), side_by_side),
        SessionKind("long-outputs", scripted(LONG)),
        SessionKind("many-turns", scripted(MANY)),
        SessionKind("refused", scripted(REFUSED)),
        SessionKind("untested", scripted(UNTESTED), pytest=True),
        SessionKind("circling", scripted(CIRCLING)),
        SessionKind("back-and-forth", scripted(BACK_AND_FORTH)),
        SessionKind("unusable-replies", unusable),
        SessionKind("engine-fails", scripted(TALKED), fails=fails_twice),
        SessionKind("budget-used", scripted(MANY), council_tokens=4_000),
    )
}


class PayingAgents(ScriptedAgents):
    """An engine that knows which of its answers are on record."""

    def __init__(self, kind: SessionKind, log: EventLog) -> None:
        super().__init__(kind.answer)
        self.kind, self._log = kind, log
        self.life: Life | None = None
        self.paid_again: list[str] = []
        self._times: Counter[str] = Counter()

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See `Agents.ask`."""
        if request_id.removeprefix(f"{STORY}/") in finished_in(await self._log.read(StreamId.of_story(STORY))):
            self.paid_again.append(request_id)
        error = self.kind.fails(request, self._times[request_id])
        self._times[request_id] += 1
        if error is not None:
            raise error
        happens = self.kind.meanwhile.get(turn_of(request)) if request.kind == "engineer" else None
        if happens is not None and self.life is not None:
            await happens(self.life)
            await asyncio.sleep(0)
        return await super().ask(request, request_id=request_id, timeout_s=timeout_s)


def finished_in(events: Iterable[StoredEvent]) -> dict[str, dict[str, Any]]:
    """The recorded ends of steps by their names."""
    ends = (json.loads(event.body) for event in events if event.type == "StepFinished")
    return {str(end["step_id"]): end for end in ends}


def tokens_of(state: StoryState) -> dict[str, int]:
    """What is counted as used, by budget; what a lost call may have used beside that is held apart."""
    return {scope: usage.spent.tokens for scope, usage in state.budgets.scopes.items()}
