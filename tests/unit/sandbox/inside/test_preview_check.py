"""The script that looks at a preview: how a page is judged, and what becomes of previews that cannot be looked at."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.support.inside import load

check: Any = load("preview_check")
pages: Any = load("preview_pages")
server: Any = load("preview_server")
agent_task: Any = load("agent_task")
task_commands: Any = load("task_commands")

BASE = "http://127.0.0.1:8000"
PAGE: dict[str, Any] = {
    **{"path": "/", "name": "/", "status": 200, "text": ["Hello"], "selectors": ["#a"]},
    **{"width": 390, "allow_errors": False},
}
SEEN: dict[str, Any] = {
    **{"status": 200, "error": None, "asked": f"{BASE}/", "url": f"{BASE}/", "loaded": True, "flooded": False},
    **{"errors": [], "texts": [True], "selectors": [True], "width": 390, "shown": "Hello"},
}


@pytest.mark.rule("RC-75")
@pytest.mark.parametrize(
    ("seen", "page", "expected"),
    [
        ({}, {}, []),
        ({"url": "http://localhost:8000/b"}, {}, []),
        ({"status": 500}, {}, ["expected status 200, found 500"]),
        ({"status": None}, {}, ["expected status 200, found None"]),
        ({"status": 404}, {"status": 404}, []),
        ({"status": 500, "error": "net::ERR_HTTP_RESPONSE_CODE_FAILURE"}, {}, ["expected status 200, found 500"]),
        ({"error": "net::ERR_ABORTED"}, {}, ["expected a page, found net::ERR_ABORTED"]),
        ({"texts": [False], "shown": "Bye"}, {}, ["expected the text 'Hello', found 'Bye'"]),
        ({"selectors": [False]}, {}, ["expected an element '#a', found no such element"]),
        ({"selectors": ["invalid"]}, {}, ["expected an element '#a', found that it is no CSS selector"]),
        ({"width": 391}, {}, ["expected it to fit into 390 px, found 391 px"]),
        ({"width": 2000}, {"width": None}, []),
        ({"errors": ["bad", "worse"]}, {}, ["expected no error, found 'bad' (and 1 more)"]),
        ({"errors": ["bad"]}, {"allow_errors": True}, []),
        ({"flooded": True}, {}, ["expected no error, found more messages than can be read"]),
        ({"loaded": False}, {}, ["expected the page to load in its time, found that it still loads"]),
        (
            {"asked": "http://example.com/x", "error": "net::ERR_NAME_NOT_RESOLVED"},
            {},
            [f"expected to stay at {BASE}, found that it leads to http://example.com/x"],
        ),
        (
            {"url": "http://127.0.0.1:9/"},
            {},
            [f"expected to stay at {BASE}, found that it leads to http://127.0.0.1:9/"],
        ),
        (
            {"url": "http://127.0.0.1:x/"},
            {},
            [f"expected to stay at {BASE}, found that it leads to http://127.0.0.1:x/"],
        ),
    ],
)
def test_page_is_judged_by_what_was_expected_and_what_was_found(
    seen: dict[str, Any], page: dict[str, Any], expected: list[str]
) -> None:
    assert pages.problems(PAGE | page, BASE, SEEN | seen) == expected


def test_messages_about_favicon_and_expected_status_are_no_errors() -> None:
    def entry(url: str) -> dict[str, Any]:
        return {"method": "Log.entryAdded", "params": {"entry": {"level": "error", "text": "404", "url": url}}}

    events = [entry(f"{BASE}/favicon.ico"), entry(f"{BASE}/gone"), entry(f"{BASE}/app.js")]
    assert pages._errors(events, ignored={f"{BASE}/favicon.ico", f"{BASE}/gone"}) == [f"404 {BASE}/app.js"]


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture
def serve(tmp_path: Path, port: int) -> Iterator[Callable[..., Any]]:
    started: list[Any] = []

    def start(code: str, *, ready_s: float = 30) -> Any:
        started.append(server.Preview([sys.executable, "-c", code], port, tmp_path / "preview.log"))
        started[-1].start()
        started[-1].wait("/", ready_s)
        return started[-1]

    yield start
    for one in started:
        one.close()


RAW = """
import os, socket, time
listening = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    connection, _ = listening.accept()
    connection.recv(4096)
    {answer}
    connection.close()
"""
OK = RAW.format(answer='connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")')


def test_preview_that_prints_megabytes_goes_on_and_its_log_is_bounded(
    serve: Callable[..., Any], tmp_path: Path
) -> None:
    preview = serve("import sys\nsys.stdout.write('x' * 5_000_000)\nsys.stdout.flush()\n" + OK)

    preview.check()
    preview.close()
    assert (tmp_path / "preview.log").stat().st_size == server.LOG_BYTES
    assert len(preview.said()) < 200
    with pytest.raises(server.Unserved, match="killed by signal"):
        preview.check()


@pytest.mark.rule("RC-75")
@pytest.mark.parametrize(
    ("code", "ready_s", "words"),
    [
        ("raise SystemExit('no such table')", 30, r"ended with exit code 1; it said last: no such table"),
        ("import time; time.sleep(60)", 0.5, r"expected an answer at http://127.0.0.1:\d+/ within 0.5 s, found none"),
        (RAW.format(answer="time.sleep(60)"), 0.5, "found none"),
        (RAW.format(answer='connection.sendall(b"no http at all" * 500)'), 0.5, "found none"),
    ],
)
def test_preview_that_never_answers_or_ends_is_named(
    serve: Callable[..., Any], code: str, ready_s: float, words: str
) -> None:
    with pytest.raises(server.Unserved, match=words):
        serve(code, ready_s=ready_s)


def test_preview_that_answers_500_all_the_time_is_looked_at(serve: Callable[..., Any]) -> None:
    answer = 'connection.sendall(b"HTTP/1.1 500 No\\r\\n\\r\\n")'
    serve(RAW.format(answer=answer), ready_s=3).check()


def test_preview_whose_port_is_taken_is_not_started(serve: Callable[..., Any], port: int) -> None:
    with socket.create_server(("127.0.0.1", port)), pytest.raises(server.Unserved, match="to be free"):
        serve(OK)


def test_preview_that_ignores_its_end_is_killed_with_its_children(serve: Callable[..., Any], port: int) -> None:
    stubborn = "import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.fork()\n"
    code = stubborn + OK.replace("create_server((", "create_server(reuse_port=True, address=((", 1).replace(
        '["PORT"])))', '["PORT"]))))', 1
    )
    preview = serve(code)
    preview.close(grace_s=0.2)
    deadline = time.monotonic() + 30
    while server._accepts(port):
        assert time.monotonic() < deadline, "a child of the preview still listens"


class Work:
    """The script in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "out").mkdir()

    def __call__(self, declared: dict[str, Any], programs: list[str]) -> tuple[int, list[tuple[str, str, str]]]:
        asked = self.folder / "preview.json"
        asked.write_text(json.dumps(declared))
        code = check.main(asked, programs)
        return code, [
            (case.attrib["name"], child.tag, child.attrib["message"])
            for case in ElementTree.parse(self.folder / "test-reports/preview.xml").iter("testcase")
            for child in case
        ]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.chdir(tmp_path)
    return Work(tmp_path)


def declared(port: int, command: list[str]) -> dict[str, Any]:
    return {"command": command, "port": port, "ready": "/", "ready_s": 5, "page_s": 5, "pages": [PAGE]}


@pytest.mark.rule("RC-75", "RC-103")
def test_without_a_browser_nothing_is_started_and_pages_are_skipped(work: Work, port: int) -> None:
    marker = [sys.executable, "-c", "open('started', 'w')"]
    code, cases = work(declared(port, marker), ["no-such-browser"])

    assert code == task_commands.UNAVAILABLE
    assert cases == [("/", "skipped", "no browser: install chromium (looked for no-such-browser)")]
    assert not (work.folder / "started").exists()


def test_preview_that_cannot_be_started_fails_its_pages(work: Work, port: int) -> None:
    code, cases = work(declared(port, ["no-such-program"]), [sys.executable])

    assert code == 1
    why = "the preview cannot be started: no-such-program: No such file or directory"
    assert cases == [("/", "failure", why)]


def test_browser_that_does_not_start_is_an_error_and_no_failure(work: Work, port: int) -> None:
    code, cases = work(declared(port, [sys.executable, "-c", OK]), ["true"])

    assert code == 1
    assert [(name, tag) for name, tag, _ in cases] == [("/", "error")]
    assert cases[0][2].startswith("the browser did not start")


def test_declaration_that_is_not_valid_is_an_error_with_its_problem(work: Work) -> None:
    assert work({"problem": "pages[0].path: no"}, []) == (1, [("declaration", "error", "pages[0].path: no")])


@pytest.mark.rule("RC-78")
def test_stage_preview_shares_the_time_of_e2e_and_is_an_error_without_a_browser(tmp_path: Path) -> None:
    env = {"STAGES": "e2e,preview"}
    (stage,) = task_commands.stages_of("pipeline", "go", env, tmp_path)[1:]
    assert (stage.name, stage.part_of, stage.limit_s) == ("preview", "e2e", 1800)
    shim = agent_task.Shim(tmp_path, {"PATH": "/usr/bin:/bin"}, task_name="pipeline", lang="go")
    shim.results.append(agent_task.StageResult("e2e", started_at_ms=1000, finished_at_ms=61_000))
    assert shim._spent_s("e2e") == 60
    stage.command = ["/bin/sh", "-c", f"exit {stage.unavailable}"]
    assert shim._stage(stage).status == "error"
    stage.command = ["/bin/sh", "-c", "exit 1"]
    assert shim._stage(stage).status == "failed"
    shim.results[0].finished_at_ms = 1000 + 1_800_000
    stage.command = ["/bin/sh", "-c", "sleep 60"]
    assert shim._stage(stage).status == "timeout"


def test_stage_preview_runs_only_when_it_is_asked_for() -> None:
    assert task_commands.chosen({}) == ("build", "unit", "lint", "static", "e2e")
    assert task_commands.chosen({"STAGES": "preview,build"}) == ("build", "preview")
