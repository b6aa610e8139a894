"""A llama.cpp server as a child process: which program, how it is started, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fleet.kernel.errors import ModelUnavailable
from fleet.web.answers import Unanswered
from fleet.web.http import HttpExchanges

_POLL_S = 0.1
_TAIL_BYTES = 4096
# Runs between fork and exec, as a launcher because preexec_fn is not safe in a process with threads. The parent may
# die before prctl: hence the look at getppid.
_LAUNCHER = (
    "import ctypes,os,signal,sys;"
    "ctypes.CDLL(None).prctl(1,signal.SIGKILL,0,0,0);"
    "os.getppid()==int(sys.argv[1]) or os._exit(125);"
    "os.execve(sys.argv[2],sys.argv[2:],dict(os.environ))"
)


@dataclass(frozen=True, slots=True)
class LlamaProgram:
    """What serves a GGUF file here."""

    argv: tuple[str, ...]
    """The program and what stands before its options."""
    is_binary: bool
    """llama.cpp's own `llama-server`; else the server of the Python package llama-cpp-python."""
    version: str


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """One server: its file, its address, its options."""

    program: LlamaProgram
    file: Path
    alias: str
    """Name under which the server offers the model."""
    port: int
    api_key: str
    context: int
    threads: int
    parallel: int
    options: Mapping[str, str]
    """Further options, as the program names them."""
    log: Path

    @property
    def base_url(self) -> str:
        """Address up to and including `/v1`."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def argv(self) -> list[str]:
        """The command line. The key is not in it, because `ps` shows it."""
        own = self._binary_options() if self.program.is_binary else self._python_options()
        further = [part for name, value in self.options.items() for part in (f"--{name}", value)]
        return [*self.program.argv, *own, *further]

    @property
    def environ(self) -> dict[str, str]:
        """All that the child gets of the environment, its key among it."""
        kept = {n: os.environ[n] for n in ("PATH", "HOME", "LD_LIBRARY_PATH", "LANG") if n in os.environ}
        return {**kept, ("LLAMA_API_KEY" if self.program.is_binary else "API_KEY"): self.api_key}

    def _binary_options(self) -> list[str]:
        # One slot has the whole context; several share it.
        context = self.context * self.parallel
        options = ["-m", str(self.file), "--alias", self.alias, "--host", "127.0.0.1", "--port", str(self.port)]
        return [*options, "-c", str(context), "-t", str(self.threads), "--parallel", str(self.parallel)]

    def _python_options(self) -> list[str]:
        options = ["--model", str(self.file), "--model_alias", self.alias, "--host", "127.0.0.1"]
        options += ["--port", str(self.port), "--n_ctx", str(self.context), "--n_threads", str(self.threads)]
        # By default a new request breaks off the one under way.
        return [*options, "--n_threads_batch", str(self.threads), "--interrupt_requests", "false"]


def find_program(*, python: Path | None, server: Path | None, home: Path) -> LlamaProgram:
    """The program that serves GGUF files on this machine.

    In this order: the binary that is named, the interpreter that is named, the binary that `fleet models pull --engine`
    built below the home, a `llama-server` on the PATH, this interpreter. The binary goes first because the Python
    package holds every token of the vocabulary against a reply's schema, and writes such replies a third slower for it.

    Raises:
        ModelUnavailable: there is none, or the named one does not work; says how to get one. `reason` load_failed.
    """
    if server is not None:
        return _binary(str(server), named_by="FLEET_LLAMA_SERVER")
    if python is not None:
        return _module(python, named_by="FLEET_LLAMA_PYTHON")
    if (own := installed_server(home)).exists():
        return _binary(str(own), named_by=str(home))
    if (program := shutil.which("llama-server")) is not None:
        return _binary(program, named_by="PATH")
    if find_spec("llama_cpp") is not None:
        return _module(Path(sys.executable), named_by="this environment")
    raise _no_program(
        "no llama.cpp was found, which runs small models on this machine: `fleet models pull local --engine` builds it "
        "(about 15 minutes, once), or install `llama-server` and name it by FLEET_LLAMA_SERVER, or set "
        "FLEET_LOCAL_BASE_URL to a server that runs already"
    )


def installed_server(home: Path) -> Path:
    """The binary that `fleet models pull --engine` builds."""
    return home / "engines" / "llama-cpp" / "llama-server"


def _module(python: Path, *, named_by: str) -> LlamaProgram:
    code = "import llama_cpp, llama_cpp.server.app; print('llama-cpp-python', llama_cpp.__version__)"
    said = _ask([str(python), "-c", code])
    if said.returncode != 0:
        last = (said.stdout.strip().splitlines() or ["it said nothing"])[-1]
        raise _no_program(
            f"{python} ({named_by}) cannot load llama_cpp: {last}; `fleet models pull local --engine` builds it"
        )
    version = said.stdout.strip().splitlines()[-1]
    return LlamaProgram((str(python), "-m", "llama_cpp.server"), is_binary=False, version=version)


def _binary(path: str, *, named_by: str) -> LlamaProgram:
    said = _ask([path, "--version"])
    if said.returncode != 0:
        raise _no_program(f"{path} ({named_by}) does not run: {said.stdout.strip()[-200:] or 'it said nothing'}")
    first = next((line for line in said.stdout.splitlines() if "version" in line), "llama-server")
    return LlamaProgram((path,), is_binary=True, version=f"llama.cpp {first.removeprefix('version:').strip()}")


def _ask(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(argv, 1, stdout=str(error))


def _no_program(message: str) -> ModelUnavailable:
    return ModelUnavailable(message, reason="load_failed", permanent=True)


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LlamaServer:
    """One started server. It ends with `stop`, and in any case with this process, however that ends."""

    def __init__(self, plan: ServerPlan) -> None:
        self.plan = plan
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._popen.pid if self._popen else None

    @property
    def is_alive(self) -> bool:
        """True while the process runs."""
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> None:
        """The process runs; it is not ready yet. The kernel ends it with the thread that called this."""
        plan = self.plan
        plan.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with plan.log.open("wb") as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *plan.argv],
                env=plan.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def ready(self) -> None:
        """The server offers its model. Waits for ever while the process lives; ModelUnavailable when it has ended."""
        http = HttpExchanges(timeout_s=5.0)
        while self.is_alive:
            if await self._answers(http):
                return
            await asyncio.sleep(_POLL_S)
        raise self.ended()

    async def ended_by_itself(self) -> None:
        """Returns when the process has ended."""
        while self.is_alive:
            await asyncio.sleep(_POLL_S)

    async def has_ended(self, *, within_s: float) -> bool:
        """Whether the process has ended, looked at for so long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.ended_by_itself(), within_s)
        return not self.is_alive

    async def stop(self) -> None:
        """The process is gone."""
        popen, self._popen = self._popen, None
        if popen is None:
            return
        with suppress(ProcessLookupError):
            popen.send_signal(signal.SIGKILL)
        await asyncio.to_thread(popen.wait)

    def ended(self) -> ModelUnavailable:
        """The error that says how the process ended."""
        code = self._popen.poll() if self._popen else None
        return ModelUnavailable(
            f"the llama.cpp server ended (exit status {code}); it said: {self._last_line()}; all of it is in "
            f"{self.plan.log}",
            reason="load_failed",
            log=str(self.plan.log),
            permanent=False,
        )

    async def _answers(self, http: HttpExchanges) -> bool:
        root = self.plan.base_url.removesuffix("/v1")
        key = {"authorization": f"Bearer {self.plan.api_key}"}
        try:
            models = await http.ask("GET", f"{root}/v1/models", headers=key, most=0)
            # llama-server lists its model while it still loads; the Python server has no such page.
            health = await http.ask("GET", f"{root}/health", headers=key, most=0)
        except Unanswered:
            return False
        return models.status == 200 and health.status in (200, 404)

    def _last_line(self) -> str:
        try:
            text = self.plan.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
        except OSError:
            text = ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else "nothing"
