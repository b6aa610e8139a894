"""What a story is run with: the options of `fleet run`, whether they can hold, and the start that they ask for."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.local.record import find_running
from fleet.cli.models.budget import parse_limits
from fleet.cli.models.local_engine import check_served
from fleet.cli.story.story_file import split_argument
from fleet.config.environment import config_files
from fleet.config.settings import FleetSettings
from fleet.kernel.errors import InvalidInput, ModelUnavailable
from fleet.models.engine_config import ActorEngine
from fleet.models.profiles import explain_no_model, load_models, recorded_directory
from fleet.policy.commands.git import git_address
from fleet.story.commands.catalogue import parse_command
from fleet.story.commands.command import StoryCommand
from fleet.story.delegation import check_delegates
from fleet.wiring.sandbox.plugins import active_roles


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What `fleet run` or `fleet story start` was asked for."""

    story: Path | None
    goal: str | None
    repo: str
    """A folder, or the address of a repository on another machine."""
    model: str | None
    record: Path | None
    rigor: str | None
    delegate: tuple[str, ...]
    toolchain: str
    limits: str = ""
    """`tokens=N,cost_usd=N,...` of the story; empty leaves those of config/models.yaml."""
    answers: tuple[str, ...] = ()
    """`qu-1=TEXT`: answers to questions about the goal."""
    fetches: bool = True
    """Whether the packages that the repository's lockfile asks for are fetched first."""


def options_for(what: str | None, options: RunOptions) -> RunOptions:
    """The options with the story file or the sentence that the command was given.

    Raises:
        InvalidInput: a sentence and a goal, or what `split_argument` refuses.
    """
    path, sentence = split_argument(what)
    if sentence is not None and options.goal is not None:
        raise InvalidInput("the sentence is there twice: leave --goal out", field="goal")
    return replace(options, story=path, goal=sentence or options.goal)


def check_start(settings: FleetSettings, options: RunOptions) -> None:
    """Returns when a story can be started so. Raises InvalidInput or ModelUnavailable, before anything was made."""
    check_options(settings, options)
    check_repo(options.repo)


def check_options(settings: FleetSettings, options: RunOptions) -> None:
    """Returns when all but the repository is as a start needs it; raises as `check_start` does."""
    parse_limits(options.limits)
    # An address of a wrong form is refused before anything is looked up or made.
    git_address(options.repo)
    check_delegates(options.delegate, active_roles(config_files(settings)).assignable)
    _check_model(settings, options)


def _check_model(settings: FleetSettings, options: RunOptions) -> None:
    models = load_models(config_files(settings).document("models.yaml"))
    if options.model is None:
        if all(entry.engine_id == "profile" for entry in models.policy_for("default").chain):
            raise ModelUnavailable(explain_no_model())
        return
    engine = models.engine(options.model)
    if isinstance(engine, ActorEngine) and engine.as_server(os.environ) is None:
        check_served(engine, settings)
    if find_running(settings.home) is None:
        # A fleet that is up has files of its own; this one would find out only when the first pack is made.
        from fleet.wiring.models.tokenizers import check_tokenizer

        check_tokenizer(engine, settings.home, os.environ)
    replies = recorded_directory(options.model)
    if replies is not None and not Path(replies).is_dir():
        raise InvalidInput(f"{replies} is no folder of recorded replies", field="model")


def check_repo(repo: str) -> None:
    """Returns for an address, or a folder that is a repository; raises InvalidInput."""
    if git_address(repo) is not None:
        return
    if not Path(repo).is_dir():
        raise InvalidInput(
            f"{repo} is no directory: name a local git repository, or an https address, with --repo", field="repo"
        )
    from fleet.forge.local.forge import check_repository

    check_repository(repo)


def local_folder(options: RunOptions) -> Path | None:
    """The folder of the repository; None for one on another machine."""
    return None if git_address(options.repo) else Path(options.repo)


def named_repo(options: RunOptions) -> str:
    """The repository as a start names it: its address, or its absolute path."""
    return options.repo if git_address(options.repo) else str(Path(options.repo).resolve())


def start_command(options: RunOptions, *, ref: str | None = None) -> StoryCommand:
    """The command that starts a story with these options, from this branch, tag or commit if one is named."""
    body = {
        "repo": named_repo(options),
        "model": options.model,
        "delegate": list(options.delegate),
        "toolchain": options.toolchain,
        "fetches": options.fetches,
        "record": options.record is not None,
        "budget": parse_limits(options.limits),
    }
    if ref is not None:
        body["ref"] = ref
    return parse_command("start_story", body)
