"""A llama.cpp server as child: started, supervised, and nothing of it left; over a stand-in of its command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ModelUnavailable
from fleet.models.chat import NO_TAG, ChatMessage, ChatRequest, Sampling
from fleet.models.engine_config import ActorEngine
from fleet.models.engines.llama_engine import LlamaPlaces, LlamaTokenSource
from fleet.models.engines.llama_install import Tell, check_source, install_llama, run_builder
from fleet.models.engines.llama_server import find_program, installed_server
from fleet.models.service.model_engine import ModelEngine
from tests.support.llama_stub import fake_llama, mode_of

REQUEST = ChatRequest(messages=(ChatMessage(role="user", content="Say two words."),), sampling=Sampling(max_tokens=9))


def engine(**changes: object) -> ActorEngine:
    values = {"engine_id": "local", "kind": "local", "model": "tiny", "path": "tiny.gguf", "unpriced": True}
    return ActorEngine.model_validate({**values, **changes})


async def here() -> str:
    return "tiny.gguf"


@asynccontextmanager
async def source(
    root: Path, config: ActorEngine | None = None, told: Callable[[str], None] = lambda line: None
) -> AsyncGenerator[LlamaTokenSource]:
    """A source over the stand-in below `root`; closed at the end."""
    places = LlamaPlaces(root, root / "stub" / "python")
    made = LlamaTokenSource(config or engine(), places, here, told=told)
    try:
        yield made
    finally:
        await made.close()


async def answer(made: LlamaTokenSource, *, is_whole: bool = False) -> list[str]:
    pieces = [p async for p in made.generate(REQUEST, call_id="c", tag=NO_TAG, is_whole=is_whole)]
    assert pieces[-1].finish == "stop"
    assert pieces[-1].usage.tokens_in == 5
    return [p.text for p in pieces if p.text]


def is_gone(pid: int | None) -> bool:
    assert pid is not None
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def until(condition: Callable[[], bool], *, within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


async def test_loaded_source_answers_in_pieces_or_whole_and_ends_without_a_trace(tmp_path: Path) -> None:
    fake_llama(tmp_path / "stub")
    async with source(tmp_path, engine(threads=3, max_context=512, engine_args={"n_batch": 64})) as made:
        loaded = await made.load()
        assert (loaded.version, loaded.max_context) == ("llama-cpp-python 0.0.1", 512)
        assert await answer(made) == ["two ", "words"]
        assert await answer(made, is_whole=True) == ["two words"]
        await made.abort("nobody")
        made.check()
        pid = made.pid
    assert is_gone(pid)
    options = json.loads((tmp_path / "stub" / "options").read_text())
    wanted = {"--model": "tiny.gguf", "--n_ctx": "512", "--n_threads": "3", "--n_batch": "64", "--host": "127.0.0.1"}
    assert options.items() >= wanted.items()
    with pytest.raises(ModelUnavailable, match="not loaded"):
        made.check()


async def test_key_of_the_server_is_on_no_command_line(tmp_path: Path) -> None:
    fake_llama(tmp_path / "stub")
    async with source(tmp_path) as made:
        await made.load()
        assert made.api_key not in Path(f"/proc/{made.pid}/cmdline").read_text()
        assert len(made.api_key) > 20


async def test_server_that_was_killed_is_started_again_at_the_same_address(tmp_path: Path) -> None:
    fake_llama(tmp_path / "stub")
    told: list[str] = []
    async with source(tmp_path, told=told.append) as made:
        await made.load()
        address, first = made.base_url, made.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: any("starting it again (1 of 3)" in line for line in told))
        assert await answer(made) == ["two ", "words"]
        assert (made.base_url, made.pid == first) == (address, False)


async def test_server_that_keeps_dying_is_given_up_and_says_what_it_said(tmp_path: Path) -> None:
    fake_llama(tmp_path / "stub")
    async with source(tmp_path) as made:
        await made.load()
        mode_of(tmp_path / "stub").write_text("crashes")
        asked = made.pid
        with pytest.raises(ModelUnavailable, match="server ended"):
            await answer(made)
        while not _fails(made):
            # A request that meets a server in the middle of its start would count as a start that failed.
            await until(lambda last=asked: _fails(made) or made.pid != last, within_s=60)
            asked = made.pid
            with suppress(ModelUnavailable):
                await answer(made)
        assert len((tmp_path / "stub" / "starts").read_text().split()) == 4
        mode_of(tmp_path / "stub").write_text("fine")
        await made.load()
        assert await answer(made) == ["two ", "words"]


def _fails(made: LlamaTokenSource) -> bool:
    try:
        made.check()
    except ModelUnavailable:
        return True
    return False


async def test_server_that_dies_while_it_is_started_again_is_given_up(tmp_path: Path) -> None:
    fake_llama(tmp_path / "stub")
    async with source(tmp_path) as made:
        await made.load()
        mode_of(tmp_path / "stub").write_text("dies")
        assert made.pid is not None
        os.kill(made.pid, signal.SIGKILL)
        await until(lambda: _fails(made))
        with pytest.raises(ModelUnavailable, match="failed to load model"):
            await answer(made)


async def test_server_that_dies_at_its_start_gives_its_last_line(tmp_path: Path) -> None:
    fake_llama(tmp_path / "stub", mode="dies")
    async with source(tmp_path) as made:
        with pytest.raises(ModelUnavailable, match="failed to load model") as caught:
            await made.load()
        assert caught.value.details["reason"] == "load_failed"
        assert made.pid is None


async def test_server_that_loads_for_too_long_is_ended(tmp_path: Path) -> None:
    fake_llama(tmp_path / "stub", mode="hangs")
    async with source(tmp_path, engine(load_timeout_s=1)) as made:
        with pytest.raises(ModelUnavailable, match="load_timeout_s") as caught:
            await made.load()
    assert caught.value.details["reason"] == "load_timeout"
    started = (tmp_path / "stub" / "starts").read_text().split()
    assert [is_gone(int(pid)) for pid in started] == [True]


async def test_missing_weights_stop_the_load_before_anything_starts(tmp_path: Path) -> None:
    async def missing() -> str:
        raise ModelUnavailable("fetch them", reason="missing_weights", permanent=True)

    made = LlamaTokenSource(engine(), LlamaPlaces(tmp_path, fake_llama(tmp_path / "stub")), missing)
    with pytest.raises(ModelUnavailable, match="fetch them"):
        await made.load()
    assert not (tmp_path / "stub" / "starts").exists()


@pytest.mark.rule("MB-13")
async def test_model_engine_over_the_source_loads_answers_and_closes(tmp_path: Path) -> None:
    fake_llama(tmp_path / "stub")
    async with source(tmp_path) as made:
        whole = ModelEngine(made, engine(), clock=SystemClock())
        await whole.load()
        await whole.health()
        reply = await whole.complete(REQUEST, request_id="r", timeout_s=60)
        assert (reply.text, reply.usage.tokens_out) == ("two words", 2)
        pid = made.pid
        await whole.close()
    assert is_gone(pid)


@pytest.mark.timeout(600)
def test_server_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    fake_llama(tmp_path / "stub")
    code = f"""
import asyncio
from pathlib import Path
from tests.unit.models.engines.test_llama_engine import engine, here
from fleet.models.engines.llama_engine import LlamaPlaces, LlamaTokenSource
async def main():
    root = Path({str(tmp_path)!r})
    made = LlamaTokenSource(engine(), LlamaPlaces(root, root / "stub" / "python"), here)
    await made.load()
    print(made.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    root = Path(__file__).parents[4]
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 60
    while not is_gone(pid):
        assert time.monotonic() < deadline, "the server outlived its parent"
        time.sleep(0.02)


# Which program.


def test_named_binary_goes_before_a_named_interpreter(tmp_path: Path) -> None:
    program = fake_llama(tmp_path / "stub")
    found = find_program(python=program, server=program, home=tmp_path)
    assert (found.is_binary, found.version) == (True, "llama.cpp 42 (abc)")
    assert find_program(python=program, server=None, home=tmp_path).argv == (str(program), "-m", "llama_cpp.server")


def test_binary_below_the_home_is_found_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = fake_llama(tmp_path / "stub")
    own = installed_server(tmp_path)
    own.parent.mkdir(parents=True)
    own.symlink_to(program)
    fake_llama(tmp_path / "other").rename(tmp_path / "other" / "llama-server")
    monkeypatch.setenv("PATH", f"{tmp_path / 'other'}{os.pathsep}{os.environ['PATH']}")
    found = find_program(python=None, server=None, home=tmp_path)
    assert (found.argv, found.is_binary) == ((str(own),), True)


def test_no_program_names_every_way_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelUnavailable) as caught:
        find_program(python=None, server=None, home=tmp_path)
    for way in ("fleet models pull local --engine", "FLEET_LLAMA_SERVER", "FLEET_LOCAL_BASE_URL"):
        assert way in caught.value.message


def test_server_on_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_llama(tmp_path / "stub").rename(tmp_path / "stub" / "llama-server")
    monkeypatch.setenv("PATH", f"{tmp_path / 'stub'}{os.pathsep}{os.environ['PATH']}")
    assert find_program(python=None, server=None, home=tmp_path).is_binary


async def test_binary_gets_its_own_options(tmp_path: Path) -> None:
    program = fake_llama(tmp_path / "stub")
    places = LlamaPlaces(tmp_path, server=program)
    made = LlamaTokenSource(engine(max_concurrency=2, max_context=512), places, here, api_key="given-key")
    try:
        await made.load()
        assert await answer(made) == ["two ", "words"]
    finally:
        await made.close()
    options = json.loads((tmp_path / "stub" / "options").read_text())
    assert (options["-m"], options["-c"], options["--parallel"]) == ("tiny.gguf", "1024", "2")


@pytest.mark.parametrize("named", ["python", "server"])
def test_named_program_that_does_not_work_is_named(tmp_path: Path, named: str) -> None:
    broken = fake_llama(tmp_path / "stub", mode="broken")
    nothing = tmp_path / "nothing"
    python, server = (broken, None) if named == "python" else (None, nothing)
    with pytest.raises(ModelUnavailable, match="FLEET_LLAMA_"):
        find_program(python=python, server=server, home=tmp_path)


# Building it.


def test_failed_build_leaves_nothing_and_says_what_the_builder_said(tmp_path: Path) -> None:
    told: list[str] = []

    def build(folder: Path, tell: Tell) -> Path:
        (folder / "half").write_bytes(b"made")
        run_builder([sys.executable, "-c", "print('no compiler'); raise SystemExit(7)"], tell)
        return folder / "half"

    with pytest.raises(ModelUnavailable, match=r"ended with 7.*no compiler"):
        install_llama(tmp_path, told=told.append, build=build)
    assert "no compiler" in told
    with pytest.raises(ModelUnavailable, match="ended with 127"):
        run_builder(["/no/such/builder"], told.append)
    assert [path for path in tmp_path.rglob("*") if path.is_file() or path.name.startswith(".build-")] == []


def test_build_leaves_the_binary_alone(tmp_path: Path) -> None:
    def build(folder: Path, tell: Tell) -> Path:
        (folder / "sources").write_bytes(b"many")
        return fake_llama(folder / "stub")

    server = install_llama(tmp_path, told=lambda line: None, build=build)
    assert server == installed_server(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file() or path.name.startswith(".build-")] == [server]
    assert os.access(server, os.X_OK)


def test_source_of_another_digest_is_not_built(tmp_path: Path) -> None:
    archive = tmp_path / "llama_cpp_python-0.3.36.tar.gz"
    archive.write_bytes(b"something else")
    with pytest.raises(ModelUnavailable, match="another file"):
        check_source(archive)
