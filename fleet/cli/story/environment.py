"""What a repository is written in, and what the environment of its runs will be made from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fleet.cli.exit_codes import DONE
from fleet.cli.output import Output, shown
from fleet.cli.story.run_options import RunOptions, local_folder
from fleet.forge.local.begin import is_unused
from fleet.forge.local.head import head_reader, look_at_head
from fleet.kernel.errors import InvalidInput
from fleet.policy.workspace_file import WORKSPACE_FILE, parse_workspace_file
from fleet.workspace.project import LayerNeeds, Part, RepositoryFacts, describe_project, layer_needs
from fleet.workspace.service.repository_environment import repository_needs

_MOST_LISTED = 200_000
_UNLISTED = frozenset({".git", "node_modules", ".venv", "venv", "__pycache__", "target", ".tox", ".nox"})


def show_environment(output: Output, *, repo: Path, root: str | None) -> int:
    """What was found in the folder is shown, and `.fleet/workspace.toml` is written where there is none."""
    if not repo.is_dir():
        raise InvalidInput(f"{repo} is no directory: name the folder of a repository with --repo", field="repo")
    _check_top(repo)
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


def _check_top(repo: Path) -> None:
    """Returns where a run would read the file: a top folder with files, or one that is no repository yet."""
    here = repo.resolve()
    if (here / ".git").exists():
        return
    if (here / "HEAD").is_file() and (here / "objects").is_dir():
        raise InvalidInput(f"{repo} is a bare repository, without files: name the folder of a checkout", field="repo")
    above = next((folder for folder in here.parents if (folder / ".git").exists()), None)
    if above is not None:
        raise InvalidInput(
            f"{repo} is a folder of the repository {above}, and the file is read at its top only: name that with "
            f"--repo, and this folder with --root {here.relative_to(above)}",
            field="repo",
        )


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
            raise InvalidInput(
                f"{repo} has more than {_MOST_LISTED} files: write {WORKSPACE_FILE} by hand, with `root`"
            )
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
    return f"fetched once from {shown(needs.source)}, then offline; a story does it before a model is asked"


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


def show_needs(options: RunOptions, output: Output) -> None:
    """What the story will fetch before a model is asked is shown. The story itself fetches it.

    Raises:
        InvalidInput: it cannot be fetched by what the files of the commit say; says what to do.
    """
    folder = local_folder(options)
    if not options.fetches or options.toolchain != "python" or folder is None or is_unused(folder):
        return
    look, read = look_at_head(options.repo), head_reader(options.repo)
    plain = {path: file for path, file in look.files.items() if file.mode in ("100644", "100755")}
    found = repository_needs(plain, lambda path: read(plain[path]))
    for path in found.containers:
        output.note(
            f"[yellow]warning[/] {shown(path)} starts containers itself, which no run can do: declare services in "
            f"{shown(WORKSPACE_FILE)}"
        )
    if found.needs is not None:
        output.note(f"  {'fetches':<9} what {shown(found.needs.source)} asks for, once for this lockfile")
