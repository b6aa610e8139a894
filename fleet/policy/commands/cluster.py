"""Command lines of kubectl and helm: context and namespace are fixed, kinds are a closed list (RT-50, RT-51, RT-62)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pydantic import JsonValue

from fleet.kernel.errors import InvalidInput, PolicyDenied

KINDS = frozenset(
    """
    configmap cronjob daemonset deployment horizontalpodautoscaler ingress job networkpolicy persistentvolumeclaim pod
    replicaset service serviceaccount statefulset
    """.split()  # noqa: SIM905 - a list of names
)
"""Kinds that live in a namespace and hold no credentials."""
MANAGER = "swe-fleet"
"""Field manager of what is applied: applying the same again changes nothing."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")
_PATH = re.compile(r"(?!-)[^\x00-\x1f\x7f]{1,1024}")


class ClusterContext(NamedTuple):
    """Where a call goes; from the config of its environment, never from its arguments."""

    kubeconfig: str
    context: str
    namespace: str


def kubectl_argv(op: str, args: Mapping[str, JsonValue], place: ClusterContext) -> tuple[str, ...]:
    """The command line of an operation.

    Raises:
        InvalidInput: no such operation, or an argument that could be read as something else.
        PolicyDenied: a kind that is cluster-wide or holds credentials.
    """
    base = _kubectl(place)
    match op:
        case "get":
            return (*base, "get", _kind(args), *_maybe(args, "name"), "-o", "wide")
        case "describe":
            return (*base, "describe", _kind(args), *_maybe(args, "name"))
        case "logs":
            return (*base, "logs", _name(args, "name"), "--tail=2000", "--all-containers")
        case "diff":
            return diff_argv(args, place)
        case "rollout_status":
            return (*base, "rollout", "status", _object(args), "--watch=false")
        case "apply":
            return (*base, "apply", "--server-side", f"--field-manager={MANAGER}", "-f", _path(args, "manifest"))
        case "scale":
            return (*base, "scale", _object(args), f"--replicas={_count(args)}")
        case "rollout_restart" | "rollout_undo":
            return (*base, "rollout", op.removeprefix("rollout_"), _object(args))
        case "delete":
            return (*base, "delete", _object(args), "--wait=false")
        case _:
            raise InvalidInput(f"kubectl has no operation {op!r}; call one that is declared", op=op)


def dry_run_argv(op: str, args: Mapping[str, JsonValue], place: ClusterContext) -> tuple[str, ...]:
    """The same call carried out by the server without keeping anything; it prints `kind.group/name` per object."""
    if op == "rollout_undo":
        return (*kubectl_argv(op, args, place), "--dry-run=server")
    if op == "rollout_restart":
        # This verb has no dry run: what it would restart has to be there.
        return (*_kubectl(place), "get", _object(args), "-o", "name")
    return (*kubectl_argv(op, args, place), "--dry-run=server", "-o", "name")


def diff_argv(args: Mapping[str, JsonValue], place: ClusterContext) -> tuple[str, ...]:
    """What applying the manifest would change; exit code 1 means that there is a difference."""
    manifest = _path(args, "manifest")
    return (*_kubectl(place), "diff", "--server-side", f"--field-manager={MANAGER}", "-f", manifest)


def refused_kinds(names: str) -> tuple[str, ...]:
    """The kinds of these lines `kind.group/name` that may not be touched, each once, sorted."""
    kinds = {line.partition("/")[0].partition(".")[0].lower() for line in names.split() if "/" in line}
    return tuple(sorted(kinds - KINDS))


def refused_rendered(text: str) -> tuple[str, ...]:
    """The kinds in a rendered chart that may not be touched, each once, sorted.

    Reads the first column alone. A document in another form than a plain block cannot be judged so, and counts as
    the kind `unreadable`; so does a list, whose items stand deeper.
    """
    kinds = {m.group(1).lower() for m in _KIND_LINE.finditer(text)}
    if _ODD_LINE.search(text) or _INDENTED.search(text):
        kinds.add("unreadable")
    return tuple(sorted(kinds - KINDS))


_KIND_LINE = re.compile(r"^(?:--- +)?kind[ \t]*:[ \t]*[\"']?([^\s\"'#]*)", re.MULTILINE)
_INDENTED = re.compile(r"^---[^\n]*\n(?:[ \t]*(?:#[^\n]*)?\r?\n)*[ \t]+[^\s#]", re.MULTILINE)
_ODD_LINE = re.compile(r"^(?:--- +)?[{\"'?!&*\[%]|^---[ \t]+[^\s#]|^\.\.\.", re.MULTILINE)


def helm_argv(
    op: str,
    args: Mapping[str, JsonValue],
    place: ClusterContext,
    *,
    charts: Iterable[str] = (),
    is_dry_run: bool = False,
) -> tuple[str, ...]:
    """The command line of an operation; a dry run only for those that change something. Raises as `kubectl_argv`."""
    base = ("helm", "--kubeconfig", place.kubeconfig, "--kube-context", place.context, "--namespace", place.namespace)
    dry = ("--dry-run=server",) if is_dry_run else ()
    match op:
        case "list":
            return (*base, "list")
        case "status" | "history":
            return (*base, op, _name(args, "release"))
        case "template":
            return (*base, "template", *_release(args, charts), "--skip-crds")
        case "lint":
            return (*base, "lint", _path(args, "path"))
        case "diff":
            return (*base, "upgrade", "--install", *_release(args, charts), "--skip-crds", "--dry-run=server")
        case "upgrade":
            return (*base, "upgrade", "--install", *_release(args, charts), "--skip-crds", "--atomic", *dry)
        case "rollback":
            return (*base, "rollback", _name(args, "release"), *(("--dry-run",) if is_dry_run else ()))
        case "uninstall":
            return (*base, "uninstall", _name(args, "release"), *(("--dry-run",) if is_dry_run else ()))
        case _:
            raise InvalidInput(f"helm has no operation {op!r}; call one that is declared", op=op)


def chart_hosts(chart: JsonValue) -> tuple[str, ...]:
    """`host:port` that a chart is fetched from; none for a chart of the workspace."""
    match = _CHART_ADDRESS.match(chart) if isinstance(chart, str) else None
    return (f"{match[1].lower()}:{match[2] or 443}",) if match else ()


_CHART_ADDRESS = re.compile(r"(?:oci|https)://([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::([0-9]{1,5}))?/")


def _kubectl(place: ClusterContext) -> tuple[str, ...]:
    if not _NAME.fullmatch(place.namespace):
        raise InvalidInput(f"{place.namespace[:80]!r} is no namespace; correct it", field="namespace")
    fixed = ("--context", place.context, "--namespace", place.namespace, "--request-timeout=60s")
    return ("kubectl", "--kubeconfig", place.kubeconfig, *fixed)


def _kind(args: Mapping[str, JsonValue]) -> str:
    kind = args.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise PolicyDenied(
            f"kind {str(kind)[:60]!r} may not be touched; use one of {', '.join(sorted(KINDS))}", rule_id="RT-62"
        )
    return kind


def _object(args: Mapping[str, JsonValue]) -> str:
    return f"{_kind(args)}/{_name(args, 'name')}"


def _name(args: Mapping[str, JsonValue], field: str) -> str:
    value = args.get(field)
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidInput(f"argument {field} must be a name of letters, digits, '-', '_' and '.'", field=field)
    return value


def _maybe(args: Mapping[str, JsonValue], field: str) -> tuple[str, ...]:
    return () if args.get(field) is None else (_name(args, field),)


def _path(args: Mapping[str, JsonValue], field: str) -> str:
    value = args.get(field)
    # kubectl takes addresses in the place of files; a path from the root of the workspace is none.
    if not isinstance(value, str) or not _PATH.fullmatch(value) or "://" in value or ".." in value.split("/"):
        raise InvalidInput(f"argument {field} must be a path below the workspace", field=field)
    return f"./{value}"


def _count(args: Mapping[str, JsonValue]) -> int:
    value = args.get("replicas")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1000:
        raise InvalidInput("argument replicas must be between 0 and 1000", field="replicas")
    return value


def _release(args: Mapping[str, JsonValue], charts: Iterable[str]) -> tuple[str, ...]:
    chart = args.get("chart")
    if not isinstance(chart, str) or chart.startswith("-") or chart not in set(charts):
        raise PolicyDenied(f"chart {str(chart)[:80]!r} is not listed under targets.charts", rule_id="RT-62")
    values = ("--values", _path(args, "values")) if args.get("values") is not None else ()
    return (_name(args, "release"), chart, *values)
