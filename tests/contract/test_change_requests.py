"""The suite of the port ChangeRequests: in memory, in files, and over HTTP against stand-ins of the three forges."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pytest

from fleet.extensions.forges.hosted import change_requests_for
from fleet.forge.local.change_requests import LocalChange, LocalChangeRequests, LocalStatus
from fleet.forge.memory import MemoryChangeRequests
from fleet.forge.port import (
    ChangeOutcome,
    ChangeRequest,
    ChangeRequests,
    CommitState,
    EndedChange,
    OpenedChange,
)
from fleet.kernel.errors import (
    CommitUnknown,
    FleetError,
    InvalidInput,
    NotFound,
    RateLimited,
    Retry,
    StoreUnavailable,
    ToolFailed,
    VersionConflict,
)
from tests.support.forge_stand_ins import Fault, ForgeStandIn, Pull, serving
from tests.support.repositories import git, make_repository

TOKEN = "tok-first-SECRET"
REPORT = "https://fleet.example/stories/st-1/report?a=1&b=2"
ODD_BRANCHES = ["fleet/st-1%2F2", "fleet/a&b=c#d", "it's/$(touch-x);`y`|z", "fleet/größe-ü", "x.patch", 'q"u+o/%00']
HOSTED = ["github", "gitlab", "gitea"]


class Shown(NamedTuple):
    """A change request as its forge shows it."""

    head: str
    base: str
    title: str
    text: str
    labels: tuple[str, ...]
    state: str
    is_draft: bool


@dataclass
class World:
    """A forge with one repository, and what it shows."""

    changes: ChangeRequests
    repository: str
    commit: str
    shown: Callable[[], list[Shown]]
    statuses: Callable[[], list[tuple[str, str, str]]]
    end: Callable[[str, bool], None]

    def change(self, head: str = "fleet/st-1", base: str = "main", **fields: object) -> ChangeRequest:
        """A change request with something in every field."""
        change = ChangeRequest(
            repository=self.repository,
            base=base,
            head=head,
            title="Add a parser",
            body="It parses.\n\n- fast\n- small",
            verdict="accepted by 3 of 3",
            report_link=REPORT,
            labels=("fleet", "rigor: high"),
            patch=b"--- a/x\n+++ b/x\n",
        )
        return replace(change, **fields)  # type: ignore[arg-type]


def memory_world() -> World:
    changes, commit = MemoryChangeRequests(), "c" * 40
    changes.add_repository("team/app", branches={"main", "next", "fleet/st-1", *ODD_BRANCHES}, commits={commit})

    def shown() -> list[Shown]:
        found = [(c.request, c.state) for c in changes.changes("team/app")]
        return [Shown(w.head, w.base, w.title, w.text, w.labels, state, w.is_draft) for w, state in found]

    return World(
        changes,
        "team/app",
        commit,
        shown,
        lambda: [(s.state.value, s.description, s.link) for s in changes.statuses("team/app", commit)],
        lambda head, is_merged: changes.end("team/app", head, is_merged=is_merged),
    )


def local_world(tmp_path: Path) -> World:
    repository = tmp_path / "app.git"
    main = make_repository(tmp_path / "source")
    git(tmp_path, "clone", "-q", "--bare", str(tmp_path / "source"), str(repository))
    refs = [f"create refs/heads/{branch} {main}\n" for branch in ("next", "fleet/st-1", *ODD_BRANCHES)]
    git(repository, "update-ref", "--stdin", stdin="".join(refs).encode())
    changes = LocalChangeRequests(tmp_path / "changes")
    folder = changes.folder(str(repository))

    def records() -> dict[Path, LocalChange]:
        return {path: LocalChange.model_validate_json(path.read_bytes()) for path in sorted(folder.glob("*.json"))}

    def shown() -> list[Shown]:
        ordered = sorted(records().values(), key=lambda r: r.number)
        return [Shown(r.head, r.base, r.title, r.text, tuple(r.labels), r.state, r.is_draft) for r in ordered]

    def statuses() -> list[tuple[str, str, str]]:
        found = [LocalStatus.model_validate_json(p.read_bytes()) for p in folder.glob("statuses/*.json")]
        return [(s.state.value, s.description, s.link) for s in found]

    def end(head: str, is_merged: bool) -> None:
        path, record = next((p, r) for p, r in records().items() if r.head == head)
        state = "merged" if is_merged else "closed"
        path.write_text(record.model_copy(update={"state": state}).model_dump_json())

    return World(changes, str(repository), main, shown, statuses, end)


def hosted_world(forge: ForgeStandIn, changes: ChangeRequests) -> World:
    forge.branches |= set(ODD_BRANCHES)
    to_ours = {"failed": "failure", "canceled": "error"}

    def shown() -> list[Shown]:
        return [
            Shown(
                p.head,
                p.base,
                p.title.removeprefix("Draft: ").removeprefix("WIP: "),
                p.body,
                tuple(p.labels),
                p.state,
                p.draft or p.title.startswith(("Draft: ", "WIP: ")),
            )
            for p in forge.pulls
        ]

    def statuses() -> list[tuple[str, str, str]]:
        return [(to_ours.get(s["state"], s["state"]), s["description"], s["target_url"] or "") for s in forge.statuses]

    return World(
        changes, "team/app", "c" * 40, shown, statuses, lambda head, is_merged: forge.end(head, is_merged=is_merged)
    )


@pytest.fixture(params=["memory", "local", *HOSTED])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[World]:
    if request.param == "memory":
        yield memory_world()
    elif request.param == "local":
        yield local_world(tmp_path)
    else:
        async with serving(request.param) as forge:
            changes = opened(forge)
            yield hosted_world(forge, changes)


def opened(forge: ForgeStandIn, *tokens: str, timeout_s: float = 60.0) -> ChangeRequests:
    """Change requests of a stand-in; each token is given once, the last for ever."""
    given = list(tokens or (TOKEN,))
    return change_requests_for(
        forge.kind,  # type: ignore[arg-type]
        forge.base_url,
        token=lambda: given.pop(0) if len(given) > 1 else given[0],
        timeout_s=timeout_s,
    )


@pytest.mark.rule("RC-105", "RC-77")
async def test_open_makes_one_with_verdict_link_and_labels(world: World) -> None:
    answer = await world.changes.open_or_update(world.change())

    assert isinstance(answer, OpenedChange)
    assert (answer.number, answer.outcome, answer.is_draft) == (1, ChangeOutcome.OPENED, False)
    assert answer.link
    (shown,) = world.shown()
    assert shown[:3] == ("fleet/st-1", "main", "Add a parser")
    assert shown.text.startswith(f"**Verdict:** accepted by 3 of 3\n**Report:** <{REPORT}>\n\nIt parses.\n\n- fast")
    assert (shown.labels, shown.state, shown.is_draft) == (("fleet", "rigor: high"), "open", False)


@pytest.mark.rule("RC-105", "RC-51")
async def test_open_again_changes_nothing(world: World) -> None:
    first = await world.changes.open_or_update(world.change())
    before = world.shown()

    again = await world.changes.open_or_update(world.change())

    assert again == replace(first, outcome=ChangeOutcome.UNCHANGED)  # type: ignore[type-var]
    assert world.shown() == before


@pytest.mark.rule("RC-105")
async def test_open_with_other_content_updates_the_same_one(world: World) -> None:
    first = await world.changes.open_or_update(world.change())

    answer = await world.changes.open_or_update(
        world.change(base="next", title="Add a lexer", body="It lexes.", labels=("fleet", "extra"))
    )

    assert isinstance(answer, OpenedChange)
    assert (answer.number, answer.outcome) == (first.number, ChangeOutcome.UPDATED)
    (shown,) = world.shown()
    assert shown[:3] == ("fleet/st-1", "next", "Add a lexer")
    assert shown.text.endswith("\n\nIt lexes.")
    assert shown.labels == ("fleet", "rigor: high", "extra")


@pytest.mark.rule("RC-105")
@pytest.mark.parametrize("is_merged", [True, False])
async def test_open_of_an_ended_one_says_so_and_reopens_nothing(world: World, is_merged: bool) -> None:
    first = await world.changes.open_or_update(world.change())
    world.end("fleet/st-1", is_merged)
    before = world.shown()

    answer = await world.changes.open_or_update(world.change(title="Try again"))

    assert answer == EndedChange(first.number, first.link, is_merged=is_merged)
    assert world.shown() == before


@pytest.mark.rule("RC-105", "RC-51")
async def test_open_by_many_at_once_makes_one(world: World) -> None:
    answers = await asyncio.gather(*(world.changes.open_or_update(world.change()) for _ in range(5)))

    assert {answer.number for answer in answers} == {1}
    assert len(world.shown()) == 1
    assert [a.outcome for a in answers if isinstance(a, OpenedChange)].count(ChangeOutcome.OPENED) == 1


async def test_draft_is_a_draft(world: World) -> None:
    answer = await world.changes.open_or_update(world.change(is_draft=True))

    assert isinstance(answer, OpenedChange)
    assert answer.is_draft
    assert world.shown()[0].is_draft
    again = await world.changes.open_or_update(world.change(is_draft=True))
    assert isinstance(again, OpenedChange)
    assert (again.outcome, again.is_draft) == (ChangeOutcome.UNCHANGED, True)


async def test_draft_that_is_taken_back_answers_what_is_true(world: World) -> None:
    await world.changes.open_or_update(world.change(is_draft=True))

    answer = await world.changes.open_or_update(world.change())

    assert isinstance(answer, OpenedChange)
    assert answer.is_draft == world.shown()[0].is_draft


@pytest.mark.parametrize("branch", ODD_BRANCHES)
async def test_odd_branch_names_are_data(world: World, branch: str, tmp_path: Path) -> None:
    await world.changes.open_or_update(world.change("fleet/st-1"))
    first = await world.changes.open_or_update(world.change(branch))

    again = await world.changes.open_or_update(world.change(branch))

    assert (first.number, again.number) == (2, 2)
    assert [shown.head for shown in world.shown()] == ["fleet/st-1", branch]


@pytest.mark.rule("RC-105")
async def test_text_of_a_model_is_data(world: World) -> None:
    title = 'Fix "x"\r\nX-Evil: 1\x00\u202e; $(reboot) `id` <script> %2e%2e {0} {{x}} ☃'
    body = "/merge\r\n  /approve\n/close\n\x1b[31m'; DROP TABLE x; -- ${HOME} {0} %s\u202e"

    answer = await world.changes.open_or_update(world.change(title=title, body=body))

    assert isinstance(answer, OpenedChange)
    (shown,) = world.shown()
    assert shown.title == 'Fix "x" X-Evil: 1 ; $(reboot) `id` <script> %2e%2e {0} {{x}} ☃'
    assert shown.state == "open"
    assert "'; DROP TABLE x; -- ${HOME} {0} %s" in shown.text
    assert not {"\x1b", "\x00", "\r", "\u202e"} & set(shown.text)
    again = await world.changes.open_or_update(world.change(title=title, body=body))
    assert isinstance(again, OpenedChange)
    assert again.outcome is ChangeOutcome.UNCHANGED


@pytest.mark.parametrize("title", ["Draft: x", "[WIP] draft: x", "wip:x", "(Draft) x", "Draft - x"])
async def test_text_does_not_say_whether_it_is_a_draft(world: World, title: str) -> None:
    answer = await world.changes.open_or_update(world.change(title=title))

    assert isinstance(answer, OpenedChange)
    assert (answer.is_draft, world.shown()[0].is_draft, world.shown()[0].title) == (False, False, "x")


async def test_long_text_is_cut_and_keeps_verdict_and_link(world: World) -> None:
    await world.changes.open_or_update(world.change(title="t" * 5000, body="ü" * 200_000, is_draft=True))

    (shown,) = world.shown()
    assert len(shown.title) == 240
    assert len(shown.text) <= 60_000
    assert REPORT in shown.text[:200]
    assert shown.text.endswith("_The rest was cut: see the report._")


@pytest.mark.parametrize(
    "fields",
    [
        {"head": "main"},
        {"head": "../x"},
        {"head": "-x"},
        {"head": "x\ud800"},
        {"base": "a..b"},
        {"base": ""},
        {"title": " \n\x00 "},
        {"labels": ("a,b",)},
        {"labels": ("",)},
        {"labels": ("x" * 51,)},
        {"labels": tuple(f"l{n}" for n in range(21))},
        {"report_link": "javascript:alert(1)"},
        {"report_link": "https://user:pw@host/"},
        {"report_link": "https://[x"},
        {"report_link": "https://host/><img src=x>"},
    ],
)
async def test_bad_names_are_refused_before_anything_is_asked(world: World, fields: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        await world.changes.open_or_update(replace(world.change(), **fields))  # type: ignore[arg-type]
    assert world.shown() == []


@pytest.mark.rule("RC-105")
@pytest.mark.parametrize("fields", [{"repository": "team/other"}, {"head": "fleet/gone"}, {"base": "gone"}])
async def test_open_without_repository_or_branch_is_a_typed_error(world: World, fields: dict[str, str]) -> None:
    with pytest.raises((NotFound, InvalidInput)) as caught:
        await world.changes.open_or_update(replace(world.change(), **fields))
    assert caught.value.retry is Retry.NEVER
    assert world.shown() == []


@pytest.mark.rule("RC-105")
@pytest.mark.parametrize("state", list(CommitState))
async def test_status_is_the_verdict_and_is_written_once(world: World, state: CommitState) -> None:
    for _ in range(2):
        await world.changes.set_status(
            world.repository, world.commit, state=state, description="3 of 3\naccept", link=REPORT
        )
    assert world.statuses() == [(state.value, "3 of 3 accept", REPORT)]


async def test_status_changes_and_the_newest_counts(world: World) -> None:
    for state, description in ((CommitState.PENDING, "at work"), (CommitState.FAILURE, "x" * 500)):
        await world.changes.set_status(world.repository, world.commit, state=state, description=description)

    assert world.statuses()[-1] == ("failure", "x" * 139 + "…", "")


@pytest.mark.parametrize("commit", ["", "main", "c" * 39, "../" + "c" * 37, "C" * 40])
async def test_status_of_what_is_no_commit_id_is_refused(world: World, commit: str) -> None:
    with pytest.raises(InvalidInput, match="commit id"):
        await world.changes.set_status(world.repository, commit, state=CommitState.SUCCESS, description="")


async def test_status_of_an_unknown_commit_is_a_typed_error(world: World) -> None:
    with pytest.raises((NotFound, InvalidInput)):
        await world.changes.set_status(world.repository, "d" * 40, state=CommitState.SUCCESS, description="")
    with pytest.raises(InvalidInput):
        await world.changes.set_status(
            world.repository, world.commit, state=CommitState.SUCCESS, description="", link="ftp://x"
        )
    assert world.statuses() == []


# What only a forge behind a network can do.


@pytest.fixture(params=HOSTED)
async def forge(request: pytest.FixtureRequest) -> AsyncGenerator[ForgeStandIn]:
    async with serving(request.param) as served:
        yield served


@pytest.fixture
async def hosted(forge: ForgeStandIn) -> World:
    return hosted_world(forge, opened(forge))


async def test_race_that_both_lose_to_the_first_look_makes_one(forge: ForgeStandIn, hosted: World) -> None:
    forge.together = asyncio.Barrier(2)

    answers = await asyncio.gather(*(hosted.changes.open_or_update(hosted.change()) for _ in range(2)))

    assert {answer.number for answer in answers} == {1}
    assert len(forge.pulls) == 1
    assert [a.answered for a in forge.asked if a.method == "POST" and a.answered in (409, 422)] != []


@pytest.mark.rule("RC-105", "RC-51")
@pytest.mark.parametrize("broken", [{"lost": True}, {"garbled": True, "body": b"<html>"}])
async def test_lost_reply_after_the_change_was_stored_finds_it(
    forge: ForgeStandIn, hosted: World, broken: dict[str, bool]
) -> None:
    forge.faults = [Fault("POST", **broken)]  # type: ignore[arg-type]

    answer = await hosted.changes.open_or_update(hosted.change())

    assert forge.faults == []
    assert isinstance(answer, OpenedChange)
    assert answer.number == 1
    assert [(p.number, p.labels) for p in forge.pulls] == [(1, ["fleet", "rigor: high"])]


async def test_lost_reply_to_an_update_is_unknown_and_mended_by_repeating(forge: ForgeStandIn, hosted: World) -> None:
    await hosted.changes.open_or_update(hosted.change())
    forge.faults = [Fault("PUT", lost=True), Fault("PATCH", lost=True)]

    with pytest.raises(CommitUnknown) as caught:
        await hosted.changes.open_or_update(hosted.change(title="Other"))

    assert caught.value.retry is Retry.LATER
    answer = await hosted.changes.open_or_update(hosted.change(title="Other"))
    assert isinstance(answer, OpenedChange)
    assert answer.outcome is ChangeOutcome.UNCHANGED
    assert forge.pulls[0].title == "Other"


async def test_lost_reply_and_then_silence_stays_unknown(forge: ForgeStandIn, hosted: World) -> None:
    forge.faults = [Fault("POST", lost=True), Fault("GET", status=503, skip=1)]

    with pytest.raises(CommitUnknown):
        await hosted.changes.open_or_update(hosted.change())

    assert forge.faults == []
    assert len(forge.pulls) == 1
    await hosted.changes.open_or_update(hosted.change())
    assert len(forge.pulls) == 1


async def test_lost_reply_to_a_status_is_not_written_twice(forge: ForgeStandIn, hosted: World) -> None:
    forge.faults = [Fault("POST", "/statuses/", lost=True)]

    await hosted.changes.set_status(hosted.repository, hosted.commit, state=CommitState.PENDING, description="x")

    assert forge.faults == []
    assert len(forge.statuses) == 1


async def test_status_that_is_refused_and_not_there_is_an_error(forge: ForgeStandIn, hosted: World) -> None:
    forge.faults = [Fault("POST", "/statuses/", status=422)]
    with pytest.raises(InvalidInput, match="made to fail"):
        await hosted.changes.set_status(hosted.repository, hosted.commit, state=CommitState.PENDING, description="x")


@pytest.mark.rule("RC-105")
@pytest.mark.parametrize(("status", "error"), [(500, CommitUnknown), (502, CommitUnknown), (503, StoreUnavailable)])
async def test_server_error_once_is_retried_later_and_makes_one(
    forge: ForgeStandIn, hosted: World, status: int, error: type[FleetError]
) -> None:
    forge.faults = [Fault("POST", status=status, headers={"retry-after": "7"}, body=b"<html>down</html>")]

    with pytest.raises(error) as caught:
        await hosted.changes.open_or_update(hosted.change())

    assert caught.value.retry is Retry.LATER
    assert caught.value.details["retry_after_s"] == 7
    await hosted.changes.open_or_update(hosted.change())
    assert len(forge.pulls) == 1


@pytest.mark.parametrize("status", [500, 503])
async def test_server_error_of_a_read_wrote_nothing(forge: ForgeStandIn, hosted: World, status: int) -> None:
    forge.faults = [Fault("GET", status=status)]
    with pytest.raises(StoreUnavailable):
        await hosted.changes.open_or_update(hosted.change())


LIMITS = [
    (429, {"retry-after": "30"}, 30),
    (429, {"ratelimit-reset": "1767225660", "date": "Thu, 01 Jan 2026 00:00:00 GMT"}, 60),
    (429, {}, None),
    (429, {"retry-after": "Thu, 01 Jan 2026 00:01:30 GMT", "date": "Thu, 01 Jan 2026 00:00:00 GMT"}, 90),
    (429, {"retry-after": "soon"}, None),
    (429, {"retry-after": "9999999999"}, 86_400),
    (403, {"retry-after": "60"}, 60),
    (
        403,
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1767225605", "date": "Thu, 01 Jan 2026 00:00:00 GMT"},
        5,
    ),
    (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1", "date": "broken"}, 1),
]


@pytest.mark.rule("RC-105")
@pytest.mark.parametrize(("status", "headers", "wait_s"), LIMITS)
async def test_rate_limit_says_when_to_come_again(
    forge: ForgeStandIn, hosted: World, status: int, headers: dict[str, str], wait_s: int | None
) -> None:
    forge.faults = [Fault("POST", status=status, headers=headers)]

    with pytest.raises(RateLimited) as caught:
        await hosted.changes.open_or_update(hosted.change())

    assert caught.value.retry is Retry.LATER
    assert caught.value.details.get("retry_after_s") == wait_s
    await hosted.changes.open_or_update(hosted.change())
    assert len(forge.pulls) == 1


async def test_secondary_limit_is_known_by_its_words(forge: ForgeStandIn, hosted: World) -> None:
    said = b'{"message": "You have exceeded a secondary rate limit"}'
    forge.faults = [Fault("GET", status=403, body=said)]
    with pytest.raises(RateLimited):
        await hosted.changes.open_or_update(hosted.change())


@pytest.mark.rule("RC-105")
async def test_token_that_is_refused_or_may_only_read_is_a_typed_error(forge: ForgeStandIn, hosted: World) -> None:
    forge.tokens, forge.readers = set(), {"tok-reader"}
    reader = opened(forge, "tok-reader")

    with pytest.raises(ToolFailed, match="not accepted"):
        await hosted.changes.open_or_update(hosted.change())
    with pytest.raises(ToolFailed, match="may not do this") as caught:
        await reader.open_or_update(hosted.change())

    assert (caught.value.retry, caught.value.details["status"]) == (Retry.NEVER, 403)
    assert forge.pulls == []


async def test_token_that_rotates_is_asked_for_again(forge: ForgeStandIn, hosted: World) -> None:
    forge.tokens = {"tok-second"}
    changes = opened(forge, TOKEN, "tok-second")

    answer = await changes.open_or_update(hosted.change())

    assert answer.number == 1
    assert [a.answered for a in forge.asked][:2] == [401, 200]


async def test_token_may_be_awaited(forge: ForgeStandIn, hosted: World) -> None:
    async def token() -> str:
        return TOKEN

    changes = change_requests_for(forge.kind, forge.base_url, token=token)  # type: ignore[arg-type]
    assert (await changes.open_or_update(hosted.change())).number == 1


@pytest.mark.parametrize("token", ["", "tok\r\nx-evil: SECRET", "tök-SECRET", "a b-SECRET"])
async def test_token_of_wrong_form_is_never_sent_or_shown(forge: ForgeStandIn, hosted: World, token: str) -> None:
    changes = opened(forge, token)
    with pytest.raises(ToolFailed) as caught:
        await changes.open_or_update(hosted.change())
    assert "SECRET" not in str(caught.value)
    assert forge.asked == []


FAULTS = [
    Fault("GET", status=401, body=f'{{"message": "bad token {TOKEN}"}}'.encode()),
    Fault("GET", status=404, body=f'{{"error": "{TOKEN}"}}'.encode()),
    Fault("POST", status=422, body=f'{{"errors": [{{"message": "{TOKEN}"}}, {{"x": "{TOKEN}"}}]}}'.encode()),
    Fault("GET", status=500, body=TOKEN.encode()),
    Fault("GET", status=307, headers={"location": "http://127.0.0.1:1/"}, body=TOKEN.encode()),
    Fault("GET", garbled=True, body=TOKEN.encode()),
    Fault("GET", lost=True),
]


@pytest.mark.rule("RC-105")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.method}-{f.status}-{f.lost}-{f.garbled}")
async def test_token_is_in_no_error_log_or_repr(
    forge: ForgeStandIn, hosted: World, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    forge.faults = [replace(fault)]

    with pytest.raises(FleetError) as caught:
        await hosted.changes.open_or_update(hosted.change())

    chain: list[BaseException] = [caught.value]
    for error in chain:
        chain += [e for e in (error.__cause__, error.__context__) if e is not None]
    shown = [f"{e!r} {e} {vars(e)}" for e in chain] + [repr(hosted.changes), caplog.text]
    assert [text for text in shown if TOKEN in text] == []


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b"[1]", b'[{"number": "x"}]', b"[" * 100_000, b"\xff", b'{"message": "x"}']
)
async def test_nonsense_instead_of_a_list_is_an_outage(forge: ForgeStandIn, hosted: World, body: bytes) -> None:
    forge.faults = [Fault("GET", garbled=True, body=body)]
    with pytest.raises(StoreUnavailable) as caught:
        await hosted.changes.open_or_update(hosted.change())
    assert caught.value.details["reason"] == "malformed"


async def test_answer_without_end_is_refused(forge: ForgeStandIn, hosted: World) -> None:
    forge.faults = [Fault("GET", garbled=True, body=b" " * (17 << 20))]
    with pytest.raises(StoreUnavailable, match="16 MiB"):
        await hosted.changes.open_or_update(hosted.change())


async def test_silence_ends_at_the_time_limit(forge: ForgeStandIn, hosted: World) -> None:
    forge.faults = [Fault("GET", hang=True), Fault("POST", hang=True)]
    changes = opened(forge, timeout_s=0.2)

    with pytest.raises(StoreUnavailable, match="did not answer"):
        await changes.open_or_update(hosted.change())
    with pytest.raises(CommitUnknown, match="did not answer"):
        await changes.open_or_update(hosted.change())


@pytest.mark.rule("RC-105")
async def test_forge_that_is_down_is_an_outage(forge: ForgeStandIn, hosted: World) -> None:
    changes = change_requests_for(forge.kind, "http://127.0.0.1:1", token=lambda: TOKEN)  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailable, match="cannot be reached") as caught:
        await changes.open_or_update(hosted.change())
    assert caught.value.retry is Retry.LATER


async def test_pages_are_read_to_the_end_and_their_addresses_never_followed(forge: ForgeStandIn, hosted: World) -> None:
    forge.branches |= {f"other-{n}" for n in range(9)}
    own = Pull(1, "fleet/st-1", "main", "old", "old")
    others = [Pull(n + 2, "fleet/st-1", "main", "fork", "", fork=True) for n in range(9)]
    forge.pulls = [own, *others]

    answer = await hosted.changes.open_or_update(hosted.change())

    assert isinstance(answer, OpenedChange)
    assert (answer.number, answer.outcome) == (1, ChangeOutcome.UPDATED)
    assert own.title == "Add a parser"
    assert {p.title for p in others} == {"fork"}
    assert len([a for a in forge.asked if a.method == "GET" and "page" in a.query]) >= 5


async def test_fork_with_the_same_branch_name_is_somebody_elses(forge: ForgeStandIn, hosted: World) -> None:
    forge.pulls = [Pull(1, "fleet/st-1", "main", "evil", "evil", fork=True)]

    answer = await hosted.changes.open_or_update(hosted.change())

    assert answer.number == 2
    assert forge.pulls[0].title == "evil"


async def test_ended_one_whose_branch_is_gone_is_still_found(forge: ForgeStandIn, hosted: World) -> None:
    await hosted.changes.open_or_update(hosted.change())
    forge.end("fleet/st-1", is_merged=True)
    forge.branches.remove("fleet/st-1")

    assert isinstance(await hosted.changes.open_or_update(hosted.change()), EndedChange)


async def test_open_one_wins_over_newer_ended_ones(forge: ForgeStandIn, hosted: World) -> None:
    forge.pulls = [
        Pull(1, "fleet/st-1", "main", "a", "a"),
        Pull(2, "fleet/st-1", "next", "b", "b", state="closed"),
    ]
    answer = await hosted.changes.open_or_update(hosted.change())
    assert isinstance(answer, OpenedChange)
    assert answer.number == 1


async def test_conflict_that_nobody_can_see_is_reported(forge: ForgeStandIn, hosted: World) -> None:
    forge.faults = [Fault("POST", status=409)]
    with pytest.raises(VersionConflict) as caught:
        await hosted.changes.open_or_update(hosted.change())
    assert caught.value.retry is Retry.RELOAD


async def test_redirect_to_another_host_is_not_followed(forge: ForgeStandIn, hosted: World) -> None:
    async with serving(forge.kind) as other:
        for method in ("GET", "POST"):
            forge.faults = [Fault(method, status=307, headers={"location": f"{other.base_url}/x"})]
            with pytest.raises(ToolFailed, match="redirects"):
                await hosted.changes.open_or_update(hosted.change())
        assert other.asked == []


async def test_redirect_on_the_same_host_is_followed(forge: ForgeStandIn, hosted: World) -> None:
    path = {"gitlab": "/projects/team%2Fapp/merge_requests"}.get(forge.kind, "/repos/team/app/pulls")
    location = {"location": f"{forge.base_url}{path}"}
    forge.faults = [Fault("POST", status=307, headers=location)]

    await hosted.changes.open_or_update(hosted.change())

    assert len(forge.pulls) == 1
    assert [a.answered for a in forge.asked if a.method == "POST"][:2] == [307, 201]


@pytest.mark.parametrize("location", ["/x", "http://[", "\\"])
async def test_redirect_without_end_or_that_drops_a_write_is_an_error(
    forge: ForgeStandIn, hosted: World, location: str
) -> None:
    forge.faults = [Fault("GET", status=302, headers={"location": location}) for _ in range(9)]
    with pytest.raises(ToolFailed):
        await hosted.changes.open_or_update(hosted.change())
    forge.faults = [Fault("POST", status=302, headers={"location": "/x"})]
    with pytest.raises(ToolFailed, match="redirects POST"):
        await hosted.changes.open_or_update(hosted.change())
    assert forge.pulls == []


@pytest.mark.parametrize(("status", "error"), [(410, NotFound), (413, InvalidInput), (418, ToolFailed)])
async def test_other_refusals_are_typed(
    forge: ForgeStandIn, hosted: World, status: int, error: type[FleetError]
) -> None:
    forge.faults = [Fault("GET", status=status, body=b"[1]")]
    with pytest.raises(error, match=str(status)):
        await hosted.changes.open_or_update(hosted.change())


@pytest.mark.parametrize("repository", ["", "app", "../app", "team/..", "team/app?x", "team//app", "a/" + "b" * 2000])
async def test_repository_of_wrong_form_is_never_asked_for(forge: ForgeStandIn, hosted: World, repository: str) -> None:
    with pytest.raises(InvalidInput):
        await hosted.changes.open_or_update(replace(hosted.change(), repository=repository))
    assert forge.asked == []


async def test_status_of_another_system_or_kind_is_not_ours(forge: ForgeStandIn, hosted: World) -> None:
    name = "name" if forge.kind == "gitlab" else "context"
    strange = {"state": "pending", "status": "pending", "description": "x", "target_url": None, "sha": hosted.commit}
    forge.statuses = [
        {**strange, name: "ci/other", "id": 1},
        {**strange, name: "fleet/verdict", "id": 2, "status": "skipped"},
    ]
    await hosted.changes.set_status(hosted.repository, hosted.commit, state=CommitState.SUCCESS, description="x")
    assert forge.statuses[-1][name] == "fleet/verdict"
    assert len(forge.statuses) == 3
