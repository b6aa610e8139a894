"""`fleet cluster`: objects of a fleet on KubeRay from one file of config/cluster."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from fleet import __version__
from fleet.cli.exit_codes import DONE, FAILED, MISSING
from fleet.cli.output import Output, shown
from fleet.cli.parameters import command
from fleet.kernel.errors import InvalidInput

if TYPE_CHECKING:
    from cluster.kuberay.api import KubeApi
    from cluster.kuberay.settings import ClusterSettings


T = TypeVar("T")
Manifests = list[dict[str, Any]]

app = typer.Typer(
    help="A fleet on KubeRay: its objects from one file, applied, watched, deleted.", no_args_is_help=True
)

ClusterArg = Annotated[
    str, typer.Argument(help="File, or name of a file in cluster/ of the configuration: small.", metavar="CLUSTER")
]
KubeconfigOption = Annotated[Path | None, typer.Option(help="As for kubectl; KUBECONFIG unless given.")]
ContextOption = Annotated[str | None, typer.Option(help="Context of the kubeconfig; the current one unless given.")]


@command(app, "render")
def render_command(
    output: Output,
    cluster: ClusterArg,
    helm: Annotated[bool, typer.Option("--helm", help="As a Helm chart; needs --out.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder to write to, instead of standard output.")] = None,
) -> int:
    """Print all objects of a cluster as YAML, in the order in which they are made; no cluster is asked."""
    return _render(output, cluster, helm=helm, out=out)


@command(app, "apply")
def apply_command(
    output: Output,
    cluster: ClusterArg,
    wait: Annotated[int, typer.Option(min=0, help="Seconds to wait until it is ready; 0 does not wait.")] = 600,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the server check everything; nothing changes.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Take over objects and fields of others.")] = False,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> int:
    """Make or change all objects of a cluster as its file says (server-side apply)."""
    return _apply(
        output, cluster, _Where(kubeconfig, context), wait_s=0 if dry_run else wait, dry_run=dry_run, force=force
    )


@command(app, "status")
def status_command(
    output: Output,
    cluster: ClusterArg,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> int:
    """Say how every object of a cluster is; exit code 5 while one is not ready, 4 when one failed."""
    return _status(output, cluster, _Where(kubeconfig, context))


@command(app, "scale")
def scale_command(
    output: Output,
    cluster: ClusterArg,
    group: Annotated[str, typer.Argument(help="Group of workers.", metavar="GROUP")],
    replicas: Annotated[int, typer.Argument(min=0, help="Pods of the group.", metavar="N")],
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> int:
    """Change the number of workers of a group until the file is applied again."""
    return _scale(output, cluster, group, replicas, _Where(kubeconfig, context))


@command(app, "delete")
def delete_command(
    output: Output,
    cluster: ClusterArg,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this the objects are only listed.")] = False,
    data: Annotated[bool, typer.Option("--data", help="Delete the volumes too: every story is lost.")] = False,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> int:
    """Delete a cluster; namespaces and Secrets stay, and its volumes unless --data."""
    return _delete(output, cluster, _Where(kubeconfig, context), yes=yes, with_data=data)


class _Where:
    def __init__(self, kubeconfig: Path | None, context: str | None) -> None:
        self.kubeconfig, self.context = kubeconfig, context

    def api(self) -> KubeApi:
        from cluster.kuberay.api import KubeApi
        from cluster.kuberay.kubeconfig import find_access

        return KubeApi(find_access(os.environ, kubeconfig=self.kubeconfig, context=self.context))


def _loaded(name: str) -> tuple[ClusterSettings, Manifests]:
    from cluster.kuberay.render import load_cluster, render
    from fleet.cli.settings import settings
    from fleet.config.environment import config_files

    files = config_files(settings())
    cluster = load_cluster(name, files)
    return cluster, render(cluster, files)


def _asked(where: _Where, body: Callable[[KubeApi], Awaitable[T]]) -> T:
    async def ask() -> T:
        return await body(where.api())

    return asyncio.run(ask())


def _render(output: Output, name: str, *, helm: bool, out: Path | None) -> int:
    from cluster.kuberay.chart import chart
    from cluster.kuberay.render import as_yaml, file_name

    cluster, manifests = _loaded(name)
    if out is None:
        if helm:
            raise InvalidInput("a chart has several files: give --out DIR with --helm", field="out")
        text = as_yaml(manifests)
        (sys.stderr if output.as_json else sys.stdout).write(text)
        output.result({"objects": len(manifests), "yaml": text})
        return DONE
    files = {file_name(number, m): as_yaml([m]) for number, m in enumerate(manifests, 1)}
    if helm:
        files = chart(cluster, manifests, version=__version__)
    _write(out, files)
    output.note(f"{len(files)} files in {shown(str(out))}")
    output.result({"objects": len(manifests), "files": sorted(files)})
    return DONE


def _write(out: Path, files: dict[str, str]) -> None:
    # An object that is rendered no more must not be applied from an old file.
    if out.exists() and any(out.iterdir()):
        raise InvalidInput(f"{out} is not empty: give a new folder, or empty it first", field="out")
    try:
        for path, text in files.items():
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (out / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"cannot write to {out}: {error.strerror}", field="out") from error


def _apply(output: Output, name: str, where: _Where, *, wait_s: int, dry_run: bool, force: bool) -> int:
    from cluster.kuberay.conditions import Finding
    from cluster.kuberay.deploy import Change, apply_cluster, wait_until_ready

    cluster, manifests = _loaded(name)

    def note(line: str) -> None:
        output.note(shown(line))

    async def work(api: KubeApi) -> tuple[list[Change], Finding | None]:
        changes = await apply_cluster(api, cluster, manifests, progress=note, force=force, dry_run=dry_run)
        if not wait_s:
            return changes, None
        return changes, await wait_until_ready(api, cluster, timeout_s=wait_s, progress=note)

    changes, finding = _asked(where, work)
    output.say(
        f"{len(changes)} objects {'checked' if dry_run else 'applied'}" + (", and it is ready" if finding else "")
    )
    output.result({"changes": [c._asdict() for c in changes], "ready": finding._asdict() if finding else None})
    return DONE


def _status(output: Output, name: str, where: _Where) -> int:
    from cluster.kuberay.deploy import status_of

    _, manifests = _loaded(name)
    findings = _asked(where, lambda api: status_of(api, manifests))
    for finding in findings:
        output.say(shown(f"{finding.state:8} {finding.object}: {finding.words}"))
    output.result({"objects": [finding._asdict() for finding in findings]})
    states = {finding.state for finding in findings}
    return FAILED if "failed" in states else DONE if states == {"ready"} else MISSING


def _scale(output: Output, name: str, group: str, replicas: int, where: _Where) -> int:
    from cluster.kuberay.deploy import scale_group

    cluster, _ = _loaded(name)
    before = _asked(where, lambda api: scale_group(api, cluster, group, replicas))
    output.say(shown(f"group {group}: {before} -> {replicas}; `fleet cluster apply` sets what its file says again"))
    output.result({"group": group, "before": before, "replicas": replicas})
    return DONE


def _delete(output: Output, name: str, where: _Where, *, yes: bool, with_data: bool) -> int:
    from cluster.kuberay.api import reference_of
    from cluster.kuberay.deploy import delete_cluster

    cluster, manifests = _loaded(name)
    if not yes:
        for manifest in reversed(manifests):
            output.say(shown(str(reference_of(manifest))))
        raise InvalidInput(
            f"this would delete cluster {cluster.name}; repeat the command with --yes",
            field="yes",
            cluster=cluster.name,
        )

    def note(line: str) -> None:
        output.note(shown(line))

    changes = _asked(where, lambda api: delete_cluster(api, cluster, manifests, progress=note, with_data=with_data))
    output.say(f"cluster {shown(cluster.name)} is deleted; namespaces and Secrets stay")
    output.result({"changes": [change._asdict() for change in changes]})
    return DONE
