"""The runbook of a story that was deployed: where it runs, what is watched, what to do when it breaches (PL-53)."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import join

from fleet.policy.deploy import DeployTarget
from fleet.story.state import StoryState


def runbook(state: StoryState, targets: Sequence[DeployTarget]) -> str:
    """Markdown from what is on record and declared; nothing of it was written by a model.

    Args:
        targets: as declared now; an environment that is declared no more is said to be so.
    """
    target = next((one for one in targets if one.environment == state.environment), None)
    lines = [f"# Runbook of {state.environment}", "", f"Story `{state.story_id}`: {state.content.title}", ""]
    lines += _target(target) if target else ["This environment is not declared any more.", ""]
    lines += ["## Deployments", "", "| deployment | tree | outcome |", "|---|---|---|"]
    lines += [f"| `{d.deployment_id}` | `{d.tree}` | {d.status} |" for d in state.deployments.values()]
    if state.incidents:
        lines += ["", "## Incidents", ""]
        lines += [
            f"- `{i.incident_id}` ({'closed' if i.is_closed else 'open'}): {_line(i.summary)}"
            for i in state.incidents.values()
        ]
    return "\n".join(lines) + "\n"


def _target(target: DeployTarget) -> list[str]:
    monitor = target.monitor
    after = "what ran before runs again" if target.rollback == "previous" else "the story waits for a person"
    rows = [
        f"| {c.name} | {c.kind} | `{c.target.replace('|', chr(92) + '|')}` | {c.interval_s} s | {c.window_s} s | "
        f"{c.threshold:g} |"
        for c in monitor.checks
    ]
    return [
        "## How it runs",
        "",
        f"- Started in {_place(target)} with `{join(target.argv)}`; it listens on PORT, which is {target.port}.",
        f"- Ready when `{target.ready.path}` answers with a status below 400, within {target.ready.within_s} s.",
        f"- {_reached(target)}",
        f"- Memory: {target.memory_mb} MB.",
        "",
        "## What is watched",
        "",
        "| check | kind | target | every | judged after | most that is healthy |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        f"It counts as healthy after {monitor.window_s} s without a breach. When the first window breaches, {after}; "
        "every breach opens an incident, which comes back to the team as a task.",
        "",
        f"To end it, {_ending(target)}.",
        "",
    ]


def _place(target: DeployTarget) -> str:
    place = target.kubernetes
    return f"namespace {place.namespace} of the cluster, in image `{place.image}`," if place else "a sandbox"


def _reached(target: DeployTarget) -> str:
    if place := target.kubernetes:
        outside = f", and from outside at https://{place.ingress.host}" if place.ingress else ""
        return f"Reached in the cluster at {target.service_name}.{place.namespace}:{target.port}{outside}."
    if target.expose:
        return f"Reached at http://127.0.0.1:{target.expose} on the fleet's node."
    return "Reached by nobody: no port is exposed."


def _ending(target: DeployTarget) -> str:
    if target.kubernetes:
        return f"run `fleet deploy stop {target.environment}`: a cluster goes on without the fleet"
    return "take the target out of `deploy.targets` and start the fleet again"


def _line(text: str) -> str:
    return " ".join(text.split())
