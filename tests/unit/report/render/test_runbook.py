"""The runbook: what an operator needs who was not there (PL-53)."""

from __future__ import annotations

import pytest

from fleet.events.workspace import DeploymentRecorded, IncidentOpened
from fleet.kernel.ids import EntityId, StepId
from fleet.report.render.runbook import runbook
from tests.support.deployed import target_of
from tests.support.story_events import MERGED, created_payload, story

FIRST = EntityId("dp-first1")


@pytest.mark.rule("PL-53")
def test_runbook_says_where_it_runs_what_is_watched_and_what_went_wrong():
    log = story(until="merged", created=created_payload(lifecycle="sdlc", environment="preview"))
    log.add(
        DeploymentRecorded(
            deployment_id=FIRST,
            environment="preview",
            tree_digest=MERGED,
            status="succeeded",
            step_id=StepId("deployments/1"),
        ),
        IncidentOpened(
            incident_id=EntityId("in-alive1"),
            severity="high",
            summary="alive\nis 4",
            source="monitor",
            deployment_id=FIRST,
        ),
    )
    text = runbook(log.state, [target_of(expose=18080)])

    assert "Started in a sandbox with `python app.py`" in text
    assert "http://127.0.0.1:18080" in text
    assert "| alive | http | `/healthz` | 1 s | 1 s | 0 |" in text
    assert f"| `{FIRST}` | `{MERGED}` | succeeded |" in text
    assert "- `in-alive1` (open): alive is 4" in text
    assert "what ran before runs again" in text


def test_runbook_of_an_environment_without_rollback_port_or_declaration():
    log = story(until="merged", created=created_payload(lifecycle="sdlc", environment="preview"))
    assert "the story waits for a person" in runbook(log.state, [target_of(rollback="none")])
    assert "Reached by nobody" in runbook(log.state, [target_of()])
    assert "not declared any more" in runbook(log.state, [target_of("other")])


def test_runbook_of_a_program_in_a_cluster_says_where_people_reach_it_and_how_it_ends():
    log = story(until="merged", created=created_payload(lifecycle="sdlc", environment="preview"))
    image = f"registry.example/shop@sha256:{'1' * 64}"
    ingress = {"host": "shop.example", "class_name": "nginx", "tls_secret": "shop-tls"}
    place = {"namespace": "previews", "image": image, "ingress": ingress}
    text = runbook(log.state, [target_of(kind="kubernetes", kubernetes=place)])
    assert f"Started in namespace previews of the cluster, in image `{image}`, with `python app.py`" in text
    assert "Reached in the cluster at fleet-preview.previews:8080, and from outside at https://shop.example." in text
    assert "To end it, run `fleet deploy stop preview`" in text
