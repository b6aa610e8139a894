"""The environment of a repository: `fleet init` shows it, and `fleet run` has it made before a model is asked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fleet.cli.exit_codes import DONE
from fleet.cli.output import Output, shown
from fleet.cli.story.run_options import RunOptions, local_folder
from fleet.config.settings import FleetSettings
from fleet.forge.local.begin import is_unused
from fleet.forge.local.head import MOST_FILES, GitFile, head_reader, look_at_head
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Digest
from fleet.policy.runs.toolchains import layer_named
from fleet.policy.workspace_file import WORKSPACE_FILE, WorkspaceFile, parse_workspace_file
from fleet.trees.port import BlobStore
from fleet.trees.tree import FileEntry, Mode, encode_tree
from fleet.workspace.project import LayerNeeds, Part, RepositoryFacts, describe_project, layer_needs
from fleet.workspace.service.environments import BaseLine, LayerRecord

_MODES: Mapping[str, Mode] = {"100644": "100644", "100755": "100755", "120000": "120000"}
_MOST_LISTED = 200_000
_UNLISTED = frozenset({".git", "node_modules", ".venv", "venv", "__pycache__", "target", ".tox", ".nox"})


def show_environment(output: Output, *, repo: Path, root: str | None) -> int:
    """What was found in the folder is shown, and `.fleet/workspace.toml` is written where there is none."""
    if not repo.is_dir():
        raise InvalidInput(f"{repo} is no directory: name the folder of a repository with --repo", field="repo")
    paths = _listed(repo)
    file = repo / WORKSPACE_FILE
    declared = parse_workspace_file(file.read_bytes()) if file.is_file() else None
    facts = describe_project(paths, lambda path: (repo / path).read_bytes())
    place = root or (declared.root if declared else _usual_root(facts))
    part = facts.part_at(place)
    if root is not None and part is None:
        folders = ", ".join(dict.fromkeys(p.folder for p in facts.parts)) or "none"
        raise InvalidInput(
            f"{root} has no manifest of Python, Node, Go or Rust; folders that have one: {folders}", field="root"
        )
    for one in facts.parts:
        _show_part(one, output, is_root=one == part)
    if not facts.parts:
        output.say("no manifest of Python, Node, Go or Rust: runs use the fleet's own Python tools")
    needs = layer_needs(part, paths, lambda path: (repo / path).read_bytes()) if part else None
    output.say(f"environment  {_needs_text(part, needs)}")
    for path in facts.containers:
        output.say(
            f"[yellow]warning[/]  {shown(path)} starts containers itself, which no run can do: declare what it needs "
            f"as services in {shown(WORKSPACE_FILE)}, or leave those tests out"
        )
    if declared is None:
        file.parent.mkdir(exist_ok=True)
        file.write_text(_file_text(facts, part, place), encoding="utf-8")
        output.say(f"wrote {WORKSPACE_FILE}: commit it")
    else:
        output.say(f"{WORKSPACE_FILE} is there and valid; it was left as it is")
    output.result(
        {
            "root": place,
            "parts": [{**_as_row(one), "is_root": one == part} for one in facts.parts],
            "fetches": needs.source if needs else None,
            "starts_containers": list(facts.containers),
            "written": declared is None,
        }
    )
    return DONE


def _as_row(part: Part) -> dict[str, Any]:
    names = ("folder", "language", "manifest", "lockfile", "fetched", "test", "build", "lint")
    return {name: getattr(part, name) for name in names}


def _listed(repo: Path) -> list[str]:
    """The files of the folder, without repositories, caches and installed packages; bounded."""
    paths: list[str] = []
    for folder, names, files in os.walk(repo):
        names[:] = sorted(name for name in names if name not in _UNLISTED and not Path(folder, name).is_symlink())
        plain = (Path(folder, name) for name in files)
        paths += [str(path.relative_to(repo)) for path in plain if path.is_file() and not path.is_symlink()]
        if len(paths) > _MOST_LISTED:
            raise InvalidInput(f"{repo} has more than {_MOST_LISTED} files: name the part to work on with --repo")
    return paths


def _usual_root(facts: RepositoryFacts) -> str:
    """The repository itself where it has a manifest, else the first folder that has one."""
    return facts.parts[0].folder if facts.parts and facts.part_at(".") is None else "."


def _show_part(part: Part, output: Output, *, is_root: bool) -> None:
    mark = " (root of the work)" if is_root else ""
    output.say(f"[bold]{shown(part.folder)}[/]{mark}: {shown(part.language)}, {shown(part.manifest)}")
    rows = (("lockfile", part.lockfile or "none"), ("fetched by", part.fetched), ("build", part.build))
    for label, value in (*rows, ("test", part.test), ("lint", part.lint)):
        output.say(f"  {label:<11}{shown(value)}")


def _needs_text(part: Part | None, needs: LayerNeeds | None) -> str:
    if needs is None:
        return "nothing has to be fetched"
    return f"fetched once from {shown(needs.source)}, then offline; `fleet run` does it before a model is asked"


def _file_text(facts: RepositoryFacts, part: Part | None, place: str) -> str:
    several = len({one.folder for one in facts.parts}) > 1
    root = f'root = "{place}"' if several or place != "." else '# root = "."'
    usual = {"build": part.build, "test": part.test, "lint": part.lint} if part else {}
    lines = [
        "# How this repository is built and tested. A line that is commented out says what holds without it.",
        "",
        "# Folder with the manifest and the lockfile of the environment.",
        root,
        "",
        "[commands]",
        *(f"# {name}: {' '.join(value.split())}" for name, value in usual.items()),
        '# test = "make test"    # leaves test-reports/junit.xml',
        "",
        "# A program that the tests need beside them: TEST_REDIS_HOST, TEST_REDIS_PORT and TEST_REDIS_URL tell where.",
        "# [[services]]",
        '# name = "redis"',
        '# kind = "redis"',
        '# env_prefix = "TEST_REDIS"',
    ]
    return "\n".join(lines) + "\n"


def with_environment(settings: FleetSettings, options: RunOptions, output: Output) -> RunOptions:
    """The options with the environment that the repository's lockfile asks for; it is made now if it is not there.

    Raises:
        InvalidInput, ToolFailed, ToolTimeout, SandboxUnavailable: it cannot be made, or no test runs in it; says why,
            and what to do. Nothing was asked of a model.
    """
    folder = local_folder(options)
    if not options.fetches or options.toolchain != "python" or folder is None or is_unused(folder):
        return options
    look, read = look_at_head(options.repo), head_reader(options.repo)
    if not look.files:
        output.note(
            f"[yellow]warning[/] more than {MOST_FILES:d} files: no environment is made; name one with --python"
        )
        return options
    plain = {path: file for path, file in look.files.items() if file.mode in ("100644", "100755")}
    declared = parse_workspace_file(read(plain[WORKSPACE_FILE])) if WORKSPACE_FILE in plain else WorkspaceFile()
    facts = describe_project(plain, lambda path: read(plain[path]))
    for path in facts.containers:
        output.note(
            f"[yellow]warning[/] {shown(path)} starts containers itself, which no run can do: declare services in "
            f"{shown(WORKSPACE_FILE)}"
        )
    part = facts.part_at(declared.root)
    if part is None and declared.root != ".":
        raise InvalidInput(
            f"{WORKSPACE_FILE}: root: {declared.root} has no manifest of Python, Node, Go or Rust; name another folder",
            field="root",
        )
    needs = layer_needs(part, plain, lambda path: read(plain[path])) if part is not None else None
    if needs is None:
        return options
    from fleet.wiring.sandbox.environments import builds_environments

    if not builds_environments(settings):
        kind = settings.sandbox.backend.kind
        output.note(
            f"[yellow]warning[/] sandbox backend {shown(kind)} makes no environments: what {shown(needs.source)} asks "
            "for has to be in its image"
        )
        return options
    return asyncio.run(_made(settings, options, output, needs, look.commit, look.files))


async def _made(
    settings: FleetSettings,
    options: RunOptions,
    output: Output,
    needs: LayerNeeds,
    commit: str,
    files: Mapping[str, GitFile],
) -> RunOptions:
    from fleet.wiring.sandbox.environments import open_environments
    from fleet.wiring.sandbox.registries import host_registries

    registries = host_registries(
        needs.language, settings.sandbox.registries.get(needs.language), os.environ, Path.home()
    )
    async with open_environments(settings, registries.egress) as environments:
        output.note(f"  {'fetching':<9} what {shown(needs.source)} asks for, once for this lockfile")
        record, is_new = await environments.service.layer(needs, registries.access)
        output.note(f"  {'packages':<9} {_record_text(record, is_new=is_new)}")
        name = layer_named(record.name)
        assert name is not None
        line = await environments.service.base_line(
            name, commit, lambda: _head_tree(options.repo, files, environments.blobs)
        )
        output.note(f"  {'tests':<9} {shown(_line_text(line))}")
    return replace(options, toolchain=record.name)


def _record_text(record: LayerRecord, *, is_new: bool) -> str:
    size = f"{record.files:,} files, {record.size_bytes / (1 << 20):.1f} MiB"
    return f"{record.language}, {size}" + (f", made in {record.wall_ms / 1000:.1f} s" if is_new else ", made before")


def _line_text(line: BaseLine) -> str:
    if not line.tests:
        return line.problem
    failing, flaky = len(line.known_failures), len(line.flaky)
    text = f"{line.tests} on the base, {failing} known failures, {flaky} flaky"
    named = [*line.known_failures[:3], *line.flaky[:3]]
    return text + (f" ({', '.join(named)})" if named else "") + (f"; {line.problem}" if line.problem else "")


async def _head_tree(repo: str, files: Mapping[str, GitFile], blobs: BlobStore) -> Digest:
    """The files of the commit as a tree; submodules are left out."""
    read = head_reader(repo)
    tree: dict[str, FileEntry] = {}
    for path, file in files.items():
        if (mode := _MODES.get(file.mode)) is not None:
            tree[path] = FileEntry(mode, await blobs.put(read(file)))
    return await blobs.put(encode_tree(tree))
