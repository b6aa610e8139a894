"""The parts of `fleet council bench`: prompts, rules and a sandbox, without a fleet."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fleet.bench.service.council import CouncilRules
from fleet.bench.service.execution import SandboxExecution
from fleet.bench.service.solve_bench import BenchPlan, SolveBench
from fleet.bench.service.solver import BenchVoices
from fleet.config.environment import config_files
from fleet.config.settings import FleetSettings
from fleet.council.config import CouncilConfig
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import SandboxUnavailable
from fleet.models.engines.factory import build_chat_model
from fleet.models.profiles import load_models
from fleet.models.prompts.prompt import parse_prompts
from fleet.sandbox.port import SandboxBackend
from fleet.wiring.models.plugins import plugin_model
from fleet.wiring.sandbox.lone_sandbox import open_lone_sandbox


def bench_voices(settings: FleetSettings) -> BenchVoices:
    """The prompts of the configuration. Raises ConfigError."""
    files = config_files(settings)
    names = [n for n in files.names() if n.startswith("prompts/") and n.endswith(".md")]
    return BenchVoices(parse_prompts({name: files.read(name).decode() for name in names}))


def bench_rules(settings: FleetSettings, *, seats: int, rounds: int) -> CouncilRules:
    """config/council.yaml with this size. Raises ConfigError."""
    return CouncilRules(config_files(settings).load("council.yaml", CouncilConfig), seats, rounds)


@asynccontextmanager
async def open_bench(
    settings: FleetSettings,
    plan: BenchPlan,
    *,
    model: str,
    environ: Mapping[str, str],
    replies: Path,
    backend: SandboxBackend | None = None,
) -> AsyncGenerator[SolveBench]:
    """The benchmark, ready to run; every reply of the model is kept in `replies` and asked for once.

    Raises:
        InvalidInput: there is no such model.
        ModelUnavailable, SandboxUnavailable: nothing could be measured here.
    """
    engine = load_models(config_files(settings).document("models.yaml")).engine(model)
    chat = build_chat_model(engine, environ=environ, record_dir=replies, plugin=plugin_model)
    async with open_lone_sandbox(settings, backend=backend) as sandbox:
        health = await sandbox.supervisor.health()
        if health.status == "down":
            raise SandboxUnavailable(
                f"no sandbox can be built here: {'; '.join(health.unmet)}. {' '.join(health.mend)}",
                missing=list(health.unmet),
                mend=list(health.mend),
            )
        execution = SandboxExecution(sandbox.supervisor, sandbox.blobs)
        yield SolveBench(chat, execution, bench_voices(settings), SystemClock(), plan)
