"""`fleet models`: the engines that a run may name, their weights, and one of them in the foreground."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from fleet.cli.exit_codes import DONE
from fleet.cli.models.local_engine import Engine, serving_source
from fleet.cli.output import Output, shown
from fleet.cli.settings import settings
from fleet.config.environment import config_files
from fleet.config.settings import FleetSettings
from fleet.kernel.errors import FleetError, InvalidInput, ModelUnavailable
from fleet.models.engine_config import ActorEngine, HttpEngine, PluginEngine, RecordedEngine
from fleet.models.profiles import ModelsConfig, load_models
from fleet.models.weights import Weights

_PROBE_S = 5.0
_HEADINGS = ("PROFILE", "KIND", "RUNS", "CONTEXT", "PRICE", "WEIGHTS", "ANSWERS")
_LONGEST_LINE = 160


@dataclass(frozen=True, slots=True)
class _Probe:
    """Whether an engine answers now, and what it says if not."""

    answers: bool
    says: str = ""


def list_models(output: Output) -> int:
    """Every profile is printed, with what its weights and its server are like now."""
    fleet_settings = settings()
    models = _models(fleet_settings)
    rows = asyncio.run(_rows(fleet_settings, models))
    _print(output, rows)
    output.result({"models": rows})
    return DONE


def pull_model(output: Output, engine_id: str, *, given: Path | None, with_engine: bool) -> int:
    """The weights of the engine and its tokenizer are here, and with `with_engine` the program that runs them."""
    fleet_settings = settings()
    engine = _models(fleet_settings).engine(engine_id)
    if with_engine:
        _build_engine(fleet_settings, output)
    weights = engine.weights if isinstance(engine, ActorEngine) else None
    tokenizer = engine.tokenizer.pulled if engine.tokenizer is not None else None
    if weights is None and tokenizer is None:
        raise InvalidInput(f"engine {engine_id!r} has no weights to fetch: {_why_none(engine)}", field="engine")
    # What is given by hand is the weights; a tokenizer beside them is small and comes from where models.yaml says.
    files = [file for file in (weights, tokenizer) if file is not None]
    rows = [_pull(output, fleet_settings, file, given=None if n else given) for n, file in enumerate(files)]
    output.say(
        f"{shown(engine_id)}: {shown(rows[0]['path'])}"
        + (" (was here already)" if not rows[0]["fetched_bytes"] else "")
    )
    output.result({"engine_id": engine_id, **rows[0], **({"tokenizer": rows[1]} if rows[1:] else {})})
    return DONE


def _pull(output: Output, fleet_settings: FleetSettings, file: Weights, *, given: Path | None) -> dict[str, Any]:
    """The file is here; what was done for it."""
    from fleet.wiring.models.weights import make_weights

    licence = f", licence {file.licence}" if file.licence else ""
    output.note(f"[dim]{shown(file.file)}: {file.size_bytes / 1e6:.0f} MB{shown(licence)}[/]")
    with _bar(output, file) as told:
        pulled = asyncio.run(make_weights(fleet_settings.home, given=given).pull(file, told=told))
    return {
        "path": pulled.path,
        "sha256": file.sha256,
        "size_bytes": pulled.size_bytes,
        "fetched_bytes": pulled.fetched_bytes,
    }


def serve_model(output: Output, engine_id: str, *, port: int) -> int:
    """The engine answers on this machine until Ctrl-C."""
    fleet_settings = settings()
    engine = _models(fleet_settings).engine(engine_id)
    if not isinstance(engine, ActorEngine):
        raise InvalidInput(f"engine {engine_id!r} cannot be served here: {_why_none(engine)}", field="engine")
    if engine.kind != "local":
        raise InvalidInput(
            f"engine {engine_id!r} runs in actors of the fleet: name it in models.serve of fleet.yaml "
            f"(FLEET_MODELS_SERVE='[{engine_id}]') and start the fleet with `fleet up`",
            field="engine",
            value=engine_id,
        )
    return asyncio.run(_serve(fleet_settings, engine, output, port))


async def _serve(fleet_settings: FleetSettings, engine: ActorEngine, output: Output, port: int) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    key = os.environ.get(engine.api_key_env or "", "")
    ending = asyncio.create_task(stop.wait())
    async with serving_source(engine, fleet_settings, output, port=port, api_key=key) as source:
        output.say(f"export {engine.base_url_env or 'BASE_URL'}={shown(source.base_url)}")
        output.say(f"export {engine.api_key_env or 'API_KEY'}={shown(source.api_key)}")
        output.note("ready, with the OpenAI wire format; stop it with Ctrl-C")
        output.result({"engine_id": engine.engine_id, "base_url": source.base_url, "pid": source.pid})
        while not ending.done():
            source.check()
            await asyncio.wait({ending}, timeout=1.0)
    return DONE


def _models(fleet_settings: FleetSettings) -> ModelsConfig:
    return load_models(config_files(fleet_settings).document("models.yaml"))


def _why_none(engine: Engine) -> str:
    match engine:
        case HttpEngine():
            return f"it is a server at {engine.base_url}"
        case ActorEngine():
            return f"its `path` says where they are on the node ({engine.path or engine.path_env})"
        case RecordedEngine():
            return "it replays recorded replies"
        case PluginEngine():
            return f"the package of kind {engine.kind} has the model"
        case _:
            return "it needs none"


async def _rows(fleet_settings: FleetSettings, models: ModelsConfig) -> list[dict[str, Any]]:
    return list(await asyncio.gather(*(_row(fleet_settings, models, engine) for engine in models.engines)))


async def _row(fleet_settings: FleetSettings, models: ModelsConfig, engine: Engine) -> dict[str, Any]:
    weights = await _weights_row(fleet_settings, engine)
    probe = await _probe(models, engine, weights)
    return {
        "engine_id": engine.engine_id,
        "kind": engine.kind,
        "runs": _where(engine),
        "model": engine.model,
        "max_context": engine.max_context,
        "max_output": engine.max_output,
        "gpus": engine.gpus,
        "price": engine.price.model_dump() if engine.price else None,
        "external": engine.external,
        "capabilities": sorted(engine.capabilities),
        "weights": weights,
        "answers": probe.answers,
        "says": probe.says,
    }


def _where(engine: Engine) -> str:
    """Where its work is done, in words for a person."""
    match engine:
        case HttpEngine():
            return os.environ.get(engine.base_url_env or "", "") or engine.base_url
        case ActorEngine():
            server = engine.as_server(os.environ)
            return server.base_url if server else "this machine" if engine.kind == "local" else "actors of the fleet"
        case RecordedEngine():
            return engine.directory
        case PluginEngine():
            return "in an installed package"
        case _:
            return "nowhere"


async def _weights_row(fleet_settings: FleetSettings, engine: Engine) -> dict[str, Any] | None:
    from fleet.wiring.models.weights import make_weights

    if not isinstance(engine, ActorEngine):
        return None
    if engine.weights is None:
        path = os.environ.get(engine.path_env or "", "") or engine.path
        state = "present" if path and Path(path).exists() else "missing"
        return {"state": state, "path": path, "size_bytes": None, "bytes_here": None, "sha256": engine.path_sha256}
    look = await make_weights(fleet_settings.home).look(engine.weights)
    size = {"size_bytes": engine.weights.size_bytes, "bytes_here": look.bytes_here}
    return {"state": look.state, "path": look.path, "sha256": engine.weights.sha256, **size}


async def _probe(models: ModelsConfig, engine: Engine, weights: dict[str, Any] | None) -> _Probe:
    from fleet.models.engines.factory import ChatModels
    from fleet.wiring.models.plugins import plugin_model

    if isinstance(engine, ActorEngine) and engine.as_server(os.environ) is None:
        return _Probe(False, _how_to_start(engine, weights))
    model: Any = None
    try:
        model = ChatModels(models, environ=os.environ, plugin=plugin_model)[engine.engine_id]
        async with asyncio.timeout(_PROBE_S):
            await model.health()
    except FleetError as error:
        return _Probe(False, error.message)
    except TimeoutError:
        return _Probe(False, f"no answer within {_PROBE_S:g} s")
    finally:
        # Those that keep connections can be closed.
        if closing := getattr(model, "close", None):
            await closing()
    return _Probe(True)


def _how_to_start(engine: ActorEngine, weights: dict[str, Any] | None) -> str:
    if weights is not None and weights["state"] != "present":
        return f"`fleet models pull {engine.engine_id}` fetches its weights" if engine.weights else "no weights there"
    if engine.kind == "local":
        return f"starts with `fleet run --model {engine.engine_id}`, or `fleet models serve {engine.engine_id}`"
    return "runs in a fleet whose setting models.serve names it"


def _print(output: Output, rows: list[dict[str, Any]]) -> None:
    table = [_HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEADINGS))]
    for number, cells in enumerate(table):
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        output.say(shown(line))
        if number:
            row = rows[number - 1]
            data = ", data leaves your machines" if row["external"] else ""
            output.say(shown(f"  {row['model']}; {', '.join(row['capabilities']) or 'plain text only'}{data}"))
            if row["says"]:
                output.say(shown(f"  {row['says'].splitlines()[0][:_LONGEST_LINE]}"))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    price, weights = row["price"], row["weights"]
    cost = f"{_usd(price['in_microusd_per_mtok'])}/{_usd(price['out_microusd_per_mtok'])}" if price else "unpriced"
    return (
        row["engine_id"],
        row["kind"],
        row["runs"],
        str(row["max_context"]),
        cost,
        _weights_cell(weights) if weights else "-",
        "yes" if row["answers"] else "no",
    )


def _usd(microusd: int) -> str:
    return f"${microusd / 1e6:g}"


def _weights_cell(weights: dict[str, Any]) -> str:
    state = str(weights["state"]).replace("_", " ")
    if weights["size_bytes"] is None:
        return state
    if state == "partial":
        return f"{100 * weights['bytes_here'] // weights['size_bytes']}% of {weights['size_bytes'] / 1e6:.0f} MB"
    return f"{state} ({weights['size_bytes'] / 1e6:.0f} MB)"


@contextmanager
def _bar(output: Output, weights: Weights) -> Generator[Callable[[int, str], None]]:
    """A progress bar on a terminal, a line at each tenth elsewhere; both on standard error."""
    if not output.console.is_terminal:
        yield _Lines(output, weights.size_bytes)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=output.console, transient=True) as progress:
        task = progress.add_task(shown(weights.file), total=weights.size_bytes)
        is_first = True

        def told(done: int, line: str) -> None:
            nonlocal is_first
            if line:
                progress.console.print(f"[dim]{shown(line)}[/]")
            # What was here before counts in the bar, not in the rate.
            if is_first and line:
                progress.reset(task, total=weights.size_bytes, completed=done)
            is_first = False
            progress.update(task, completed=done)

        yield told


class _Lines:
    """Tells the progress to a file or a pipe."""

    def __init__(self, output: Output, total: int) -> None:
        self._output, self._total, self._told = output, total, 0

    def __call__(self, done: int, line: str) -> None:
        if line:
            self._output.note(shown(line))
        if (tenth := 10 * done // self._total) > self._told and not line:
            self._told = tenth
            self._output.note(f"{tenth * 10}% ({done / 1e6:.0f} MB)")


def _build_engine(fleet_settings: FleetSettings, output: Output) -> None:
    from fleet.models.engines.llama_install import MINUTES, install_llama
    from fleet.models.engines.llama_server import find_program

    try:
        program = find_program(
            python=fleet_settings.llama.python, server=fleet_settings.llama.server, home=fleet_settings.home
        )
    except ModelUnavailable:
        output.note(f"building llama.cpp from source, once: about {MINUTES} minutes on two cores")
        install_llama(fleet_settings.home, told=lambda line: output.note(f"[dim]{shown(line)}[/]"))
        program = find_program(python=None, server=None, home=fleet_settings.home)
    output.note(f"[dim]engine: {shown(program.version)}[/]")
