"""What a run will use, said before its first token: engine, budget, an estimate, and what is sent to whom."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from fleet.cli.models.budget import parse_limits
from fleet.cli.output import Output, shown
from fleet.cli.story.environment import show_needs
from fleet.cli.story.run_options import RunOptions
from fleet.config.environment import config_files
from fleet.config.settings import FleetSettings
from fleet.forge.local.head import look_at_head
from fleet.models.engine_config import ActorEngine, AnyEngine, HttpEngine, Price, RecordedEngine
from fleet.models.profiles import ModelsConfig
from fleet.models.usage import cost_of
from fleet.policy.commands.git import git_address
from fleet.wiring.models.probes import probed_models

RECORDED_TOKENS: Mapping[str, tuple[int, int]] = {
    "draft": (20_000, 60_000),
    "assisted": (20_000, 240_000),
    "session": (150_000, 500_000),
    "cascade": (20_000, 560_000),
}
"""Tokens of one story by way of work: what the recorded examples took, with room for three tasks."""
_REPLY_SHARE = 10
"""Of ten tokens one is the model's, which costs more; the recorded examples have one of ten to one of twenty."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is shown before a run, each part in words for a person."""

    engine: str
    works_by: str
    budget: str
    estimate: str
    leaves: tuple[str, ...]


def forecast(settings: FleetSettings, options: RunOptions, environ: Mapping[str, str]) -> Forecast:
    """What a story that is run so would use. The model is known to be configured."""
    models = probed_models(config_files(settings), settings.home)
    names = _engine_names(models, options.model)
    engines = [models.engine(name) for name in names]
    first, chosen = engines[0], models.strategy_of(names[0])
    limits = {**models.budgets.story.model_dump(exclude_none=True), **parse_limits(options.limits)}
    low, high = RECORDED_TOKENS[chosen.strategy]
    return Forecast(
        engine=f"{first.engine_id} ({first.model}, {_place(first, environ)})",
        works_by=f"{chosen.strategy}: {chosen.reason}",
        budget=f"{_limits_text(limits)} a story",
        estimate=f"{low:,} to {high:,} tokens a story, {_money(first.price, low, high)}",
        leaves=tuple(_leaving(settings, options, engines, environ)) or ("nothing leaves this machine",),
    )


def show_start(settings: FleetSettings, options: RunOptions, output: Output) -> None:
    """All that the run will use is shown, and what of the user's folder is not part of it.

    Raises InvalidInput for a repository whose files say that its packages cannot be fetched.
    """
    for line in look_at_head(options.repo).warnings if git_address(options.repo) is None else ():
        output.note(f"[yellow]warning[/] {shown(line)}")
    show_needs(options, output)
    told = asdict(forecast(settings, options, os.environ))
    for name, label in (("engine", "engine"), ("works_by", "works by"), ("budget", "budget"), ("estimate", "estimate")):
        output.note(f"  {label:<9} {shown(told[name])}")
    for line in told["leaves"]:
        output.note(f"  {'sends':<9} {shown(line)}")


def _engine_names(models: ModelsConfig, profile: str | None) -> list[str]:
    """Every engine that a role of the team may be answered by, the developer's first one at the head."""
    roles = ("developer", *models.policies)
    return list(dict.fromkeys(e.engine_id for role in roles for e in models.chain_for(role, profile).entries))


def _place(engine: AnyEngine, environ: Mapping[str, str]) -> str:
    address = _address(engine, environ)
    if address:
        return f"at {address}"
    return "replayed" if isinstance(engine, RecordedEngine) else "on this fleet's machines"


def _address(engine: AnyEngine, environ: Mapping[str, str]) -> str | None:
    server = engine.as_server(environ) if isinstance(engine, ActorEngine) else engine
    if not isinstance(server, HttpEngine):
        return None
    return (environ.get(server.base_url_env, "").strip() if server.base_url_env else "") or server.base_url


def _leaving(
    settings: FleetSettings, options: RunOptions, engines: Sequence[AnyEngine], environ: Mapping[str, str]
) -> Iterator[str]:
    """A line for everybody outside this machine who gets something of the story."""
    for engine in engines:
        address = _address(engine, environ)
        host = (urlsplit(address).hostname or address) if address else ""
        if host and not _is_here(host):
            where = "outside your machines" if engine.external else "a machine of yours, as models.yaml says"
            yield f"story, parts of files and outputs of commands to {host}, {where} (engine {engine.engine_id})"
    if git_address(options.repo) is not None:
        yield f"the repository is fetched from {options.repo}, and the branch is pushed there"
    forge = settings.forge
    if forge is not None and forge.kind != "local":
        yield f"branch and change request to {getattr(forge, 'url', None) or f'forge {forge.kind}'}"
    for target in settings.notifications.targets:
        yield f"notes of gates and ends to {target.name} (notifications)"


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _limits_text(limits: Mapping[str, Any]) -> str:
    units = {
        "tokens": ("{:,} tokens", 1),
        "output_tokens": ("{:,} tokens of replies", 1),
        "calls": ("{:,} calls", 1),
        "cost_microusd": ("{:,.2f} USD", 1_000_000),
        "gpu_ms": ("{:,.1f} h of GPU", 3_600_000),
        "wall_ms": ("{:,.1f} h", 3_600_000),
    }
    bound = [(units[name], value) for name, value in limits.items() if name in units and value is not None]
    return ", ".join(form.format(value / unit if unit > 1 else value) for (form, unit), value in bound) or "no limit"


def _money(price: Price | None, low: int, high: int) -> str:
    if price is None:
        return "no price is configured for it (`price` in models.yaml)"

    def usd(tokens: int) -> str:
        reply = tokens // _REPLY_SHARE
        return f"{cost_of(price, tokens_in=tokens - reply, tokens_out=reply) / 1_000_000:.2f}"

    return f"{usd(low)} to {usd(high)} USD"
