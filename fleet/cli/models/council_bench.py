"""`fleet council bench`: the council against simpler ways, at an equal number of tokens."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.bench.files.folder import BenchFolder, read_folder
from fleet.bench.row import ArmLine, EndShare, StageGain, arm_lines, end_shares, parse_arms, stage_gains
from fleet.bench.service.solve_bench import BenchPlan, SolveBench
from fleet.bench.service.tasks import MAX_SET_BYTES, parse_documents, parse_lines
from fleet.bench.statistics import PairedDifference
from fleet.bench.task import BenchTask
from fleet.cli.exit_codes import DONE
from fleet.cli.models.local_engine import Engine, check_served, served
from fleet.cli.output import Output, shown
from fleet.cli.settings import absolute_model, settings
from fleet.config.document import parse_document
from fleet.config.environment import config_files
from fleet.config.settings import FleetSettings
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import ConfigError, InvalidInput
from fleet.models.engine_config import ActorEngine, HttpEngine, PluginEngine, RecordedEngine
from fleet.models.profiles import load_models
from fleet.wiring.desk.bench import bench_rules, bench_voices, open_bench

MIN_TOKENS = 500
MAX_SEEDS = 100
MAX_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What `fleet council bench` was asked for."""

    tasks: Path
    model: str
    arms: str
    seeds: str
    tokens: int
    seats: int
    rounds: int
    limit: int | None = None
    out: Path | None = None
    timeout_s: int = 300
    at_once: int | None = None
    """Tasks under way at one time; as many as the engine takes calls at once, when None."""


def run_bench(output: Output, options: BenchOptions) -> int:
    """Every arm has a row for every task and seed; the table is printed. A second start continues."""
    fleet_settings = settings()
    whole = read_tasks(options.tasks)
    tasks = whole[: options.limit]
    plan = _plan(fleet_settings, options)
    header = {
        "format": 1,
        "model": absolute_model(options.model),
        "tokens": options.tokens,
        "seats": options.seats,
        "rounds": options.rounds,
        "tasks": digest_of_json([_document(t) for t in whole]),
        "prompts": digest_of_json(
            sorted(str(t.digest) for t in bench_voices(fleet_settings).prompts.templates.values())
        ),
    }
    name = f"{options.tasks.name.split('.')[0]}-{digest_of_json(header).hex[:8]}"
    folder = BenchFolder(options.out or fleet_settings.home / "bench" / name, header)
    asyncio.run(_run(output, fleet_settings, options, plan, tasks, folder))
    return _tell(output, options, plan, tasks, folder)


def read_tasks(path: Path) -> tuple[BenchTask, ...]:
    """The tasks of a file: YAML of our own form, or JSONL (plain or gzip) of any form. Raises InvalidInput."""
    try:
        if path.stat().st_size > MAX_SET_BYTES:
            raise InvalidInput(f"{path} is larger than {MAX_SET_BYTES >> 20} MB: split it", field="tasks")
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"the task set {path} cannot be read: {error.strerror}", field="tasks") from error

    def folder(name: str) -> Mapping[str, bytes]:
        return read_folder(path.parent / name)

    if path.suffix not in (".yaml", ".yml"):
        return parse_lines(data, source=str(path), folder=folder)
    try:
        document = parse_document(data, file=str(path))
    except ConfigError as error:
        raise InvalidInput(error.message, field="tasks") from error
    return parse_documents(document, source=str(path), folder=folder)


def _document(task: BenchTask) -> list[Any]:
    public, hidden = task.public, task.hidden
    files = [sorted((p, digest_of_json(d.hex())) for p, d in f.items()) for f in (public.files, hidden.files)]
    texts = [public.task_id, public.prompt, public.entry_point, public.setup, hidden.setup]
    return [*texts, list(public.visible), list(hidden.tests), list(public.command), list(hidden.command), files]


def _plan(fleet_settings: FleetSettings, options: BenchOptions) -> BenchPlan:
    if options.tokens < MIN_TOKENS:
        raise InvalidInput(f"--tokens {options.tokens} holds no call: give {MIN_TOKENS} or more", field="tokens")
    if options.at_once is not None and not 1 <= options.at_once <= MAX_AT_ONCE:
        raise InvalidInput(f"--at-once {options.at_once} is not in 1..{MAX_AT_ONCE}", field="at_once")
    if options.seats % 2 == 0 or not 3 <= options.seats <= 9:
        raise InvalidInput(f"--seats {options.seats} is no odd number of 3..9", field="seats")
    engine = load_models(config_files(fleet_settings).document("models.yaml")).engine(options.model)
    if isinstance(engine, RecordedEngine) and not Path(engine.directory).is_dir():
        raise InvalidInput(f"{engine.directory} is no folder of recorded replies", field="model")
    if isinstance(engine, ActorEngine) and engine.as_server(os.environ) is None:
        check_served(engine, fleet_settings)
    return BenchPlan(
        arms=parse_arms(options.arms),
        seeds=_seeds(options.seeds),
        tokens=options.tokens,
        rules=bench_rules(fleet_settings, seats=options.seats, rounds=options.rounds),
        timeout_s=options.timeout_s,
        # A recording holds the requests of the engine that made it; those that are recorded keep to schemas.
        constrain=isinstance(engine, RecordedEngine) or "json_schema" in engine.capabilities,
        at_once=options.at_once or _at_once(engine),
    )


def _at_once(engine: Engine) -> int:
    return (
        min(engine.max_concurrency, MAX_AT_ONCE) if isinstance(engine, HttpEngine | ActorEngine | PluginEngine) else 1
    )


def _seeds(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and len(word) <= 9 for word in words) or len(words) > MAX_SEEDS:
        raise InvalidInput(f"--seeds {text[:80]!r} is no list of whole numbers like 1,2,3", field="seeds")
    return tuple(dict.fromkeys(int(word) for word in words))


async def _run(
    output: Output,
    fleet_settings: FleetSettings,
    options: BenchOptions,
    plan: BenchPlan,
    tasks: Sequence[BenchTask],
    folder: BenchFolder,
) -> None:
    model = absolute_model(options.model) or options.model
    engine = load_models(config_files(fleet_settings).document("models.yaml")).engine(model)
    done = {row.key for row in folder.rows}
    keys = {(t.public.task_id, a.label, s) for t in tasks for a in plan.arms for s in plan.seeds}
    if not keys - done:
        return
    async with (
        served(engine, fleet_settings, output) as variables,
        open_bench(fleet_settings, plan, model=model, environ=os.environ | variables, replies=folder.replies) as bench,
    ):
        await _measure(output, bench, tasks, folder, total=len(keys), done=len(keys & done))


async def _measure(
    output: Output, bench: SolveBench, tasks: Sequence[BenchTask], folder: BenchFolder, *, total: int, done: int
) -> None:
    began = time.monotonic()
    keys = {row.key for row in folder.rows}
    async for row in bench.rows(tasks, done=keys):
        folder.append(row)
        done += 1
        how = "[green]solved[/]" if row.passed else "[red]not solved[/]"
        place = shown(f"[{done}/{total}] {row.task_id} {row.arm} seed {row.seed}")
        output.note(
            f"[dim]{time.monotonic() - began:7.1f}s[/] {place}: {how}, {row.tokens:d} tokens, {shown(row.decided_in)}"
        )


def _tell(
    output: Output, options: BenchOptions, plan: BenchPlan, tasks: Sequence[BenchTask], folder: BenchFolder
) -> int:
    asked = {(t.public.task_id, a.label, s) for t in tasks for a in plan.arms for s in plan.seeds}
    rows = [row for row in folder.rows if row.key in asked]
    lines, gains, ends = arm_lines(rows), stage_gains(rows), end_shares(rows)
    for text in [*_table(lines, options.tokens), *_gain_lines(gains), *_end_lines(ends)]:
        output.say(shown(text))
    output.note(shown(f"picks: {folder.write_parquet()}"))
    output.result(
        {
            "tasks": len(tasks),
            "tokens": options.tokens,
            "arms": [_arm_document(line) for line in lines],
            "stages": [gain._asdict() for gain in gains],
            "ends": [share._asdict() for share in ends],
            "parquet": str(folder.parquet),
            "recorded": f"recorded:{folder.replies}",
        }
    )
    return DONE


def _arm_document(line: ArmLine) -> dict[str, Any]:
    against = {name: _difference(difference) for name, difference in line.against.items()}
    return line._asdict() | {"interval": list(line.interval), "against": against}


def _difference(difference: PairedDifference) -> dict[str, Any]:
    return {
        "pairs": difference.pairs,
        "gains": difference.gains,
        "losses": difference.losses,
        "difference": difference.difference,
        "p": difference.p,
        "interval": list(difference.interval),
    }


def _table(lines: Sequence[ArmLine], tokens: int) -> list[str]:
    head = f"{'arm':<18}{'solved':>9}  {'95 %':>13}{'tokens':>8}{'unspent':>8}{'calls':>6}{'bad':>5}{'open':>5}{'s':>7}"
    told = [f"budget {tokens} tokens for each arm on each task and seed", f"{head}  against (gains:losses, 95 %, p)"]
    for line in lines:
        share = f"{line.passed}/{line.rows}"
        span = f"{100 * line.interval.low:.0f}..{100 * line.interval.high:.0f} %"
        figures = f"{line.tokens:>8.0f}{line.unspent:>8.0f}{line.calls:>6.1f}{line.malformed:>5}{line.undecided:>5}"
        against = "; ".join(f"{name} {_short(difference)}" for name, difference in line.against.items())
        told.append(f"{line.arm:<18}{share:>9}  {span:>13}{figures}{line.wall_s:>7.1f}  {against}".rstrip())
    over = sum(line.over for line in lines)
    return told + ([f"{over} rows cost more than the budget"] if over else [])


def _short(difference: PairedDifference) -> str:
    low, high = (100 * value for value in difference.interval)
    counts, points = f"{difference.gains}:{difference.losses}", 100 * difference.difference
    return f"{counts} {points:+.0f} ({low:+.0f}..{high:+.0f}) p={difference.p:.3f}"


def _gain_lines(gains: Sequence[StageGain]) -> list[str]:
    by_arm: dict[str, list[str]] = {}
    for gain in gains:
        by_arm.setdefault(gain.arm, []).append(f"{gain.rule} {gain.passed}/{gain.rows}")
    return [f"{arm}: {', '.join(rules)}" for arm, rules in by_arm.items()]


def _end_lines(ends: Sequence[EndShare]) -> list[str]:
    by_arm: dict[str, list[str]] = {}
    for share in ends:
        by_arm.setdefault(share.arm, []).append(f"{share.ended} {share.passed}/{share.rows}")
    return [f"{arm} solved, where it ended with: {', '.join(shares)}" for arm, shares in by_arm.items()]
