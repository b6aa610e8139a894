"""What a story owes in DEPLOY and MONITOR, and when their guards hold (LC-36, LC-37, LC-43, LC-45, LC-49)."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.events.story import GuardResult
from fleet.events.task import TreeMerged
from fleet.events.workspace import DeploymentRecorded, HealthCheck, HealthObserved, IncidentClosed, IncidentOpened
from fleet.kernel.digest import digest_of_json
from fleet.kernel.ids import Digest, EntityId, StepId
from fleet.story.guards import GuardContext, evaluate
from fleet.story.intents import Deploy, Intent, LoopBack, ObserveHealth, Park, RequestGate, RollBack
from fleet.story.plan import plan
from fleet.story.state import StoryState
from tests.support.rules import fsm
from tests.support.story_events import MERGED, STORY, T0, StoryLog, created_payload, story, subject

NOW = T0 + 3_600_000
FIRST, SECOND = EntityId("dp-first1"), EntityId("dp-second2")
TARGET = Digest(digest_of_json({"environment": "preview", "tree": MERGED}))


def in_deploy(environment: str | None = "preview") -> StoryLog:
    """A story of `sdlc` whose work is reviewed."""
    log = story(until="merged", created=created_payload(lifecycle="sdlc", environment=environment))
    return log.move("TEST", "tests_done", "REVIEW").move("REVIEW", "review_approved", "DEPLOY")


def deployed(log: StoryLog, status: str = "succeeded", **changes: Any) -> StoryLog:
    fields: dict[str, Any] = {
        "deployment_id": FIRST,
        "environment": "preview",
        "tree_digest": MERGED,
        "revision": "a1",
        "status": status,
        "step_id": StepId("deployments/1"),
        "rollback_ref": "nothing",
        "monitor_s": 60,
        "detail": "the program ended with 3" if status == "failed" else None,
    }
    return log.add(DeploymentRecorded(**(fields | changes)))


def in_monitor(**changes: Any) -> StoryLog:
    return deployed(in_deploy(), **changes).move("DEPLOY", "deploy_done", "MONITOR")


def observed(log: StoryLog, from_s: int, to_s: int, *, ok: bool = True, of: EntityId = FIRST) -> StoryLog:
    check = HealthCheck(name="alive", ok=ok, value="0" if ok else "4", threshold="0")
    return log.add(
        HealthObserved(
            environment="preview",
            deployment_id=of,
            ok=ok,
            checks=(check,),
            from_=T0 + from_s * 1000,
            to=T0 + to_s * 1000,
        )
    )


def incident(log: StoryLog, name: str = "in-alive1", of: EntityId = FIRST) -> StoryLog:
    return log.add(
        IncidentOpened(
            incident_id=EntityId(name), severity="high", summary="alive is 4", source="monitor", deployment_id=of
        )
    )


def owed(log: StoryLog) -> Intent | None:
    return next(iter(plan(log.state, fsm(), now_ms=NOW)), None)


def verdict(state: StoryState, name: str) -> GuardResult:
    rows = fsm().lifecycles["sdlc"].legal(state.state)
    row = next(row for row in rows if name in row.guards)
    found = evaluate(state, GuardContext(config=fsm(), now_ms=NOW, transition=row))
    return next(result for result in found if result.name == name)


@pytest.mark.rule("LC-61")
def test_consent_of_a_person_to_tree_and_environment_comes_before_anything_is_deployed():
    log = in_deploy()
    assert owed(log) == RequestGate(gate="approve_deploy", subject=TARGET)
    assert not verdict(log.state, "deploy_approved").ok

    log.gate("approve_deploy", subject("tree+environment", "preview", TARGET))

    assert verdict(log.state, "deploy_approved").ok
    assert owed(log) == Deploy(environment="preview", tree=MERGED, number=1)


@pytest.mark.rule("LC-61")
def test_consent_to_another_environment_or_another_tree_is_none():
    for other in ({"environment": "production", "tree": MERGED}, {"environment": "preview", "tree": digest_of_json(1)}):
        log = in_deploy().gate("approve_deploy", subject("tree+environment", "preview", Digest(digest_of_json(other))))
        assert not verdict(log.state, "deploy_approved").ok
        assert isinstance(owed(log), RequestGate)


def test_story_without_an_environment_parks_for_the_operator():
    found = owed(in_deploy(environment=None))
    assert isinstance(found, Park)
    assert found.cause == "operator"


@pytest.mark.rule("LC-62")
@pytest.mark.parametrize(("status", "ok"), [("succeeded", True), ("failed", False), ("unknown", False)])
def test_deployment_counts_only_when_it_is_known_to_have_succeeded(status: str, ok: bool):
    assert verdict(deployed(in_deploy(), status).state, "deploy_recorded").ok is ok


@pytest.mark.rule("LC-62")
def test_deployment_of_another_tree_or_elsewhere_does_not_count():
    assert not verdict(deployed(in_deploy(), tree_digest=digest_of_json(1)).state, "deploy_recorded").ok
    assert not verdict(deployed(in_deploy(), environment="production").state, "deploy_recorded").ok


@pytest.mark.rule("LC-36", "LC-61")
def test_what_was_approved_and_is_deployed_needs_no_second_consent_when_the_first_ran_out():
    log = deployed(in_deploy())
    assert verdict(log.state, "deploy_approved").ok
    assert not verdict(deployed(in_deploy(), "failed").state, "deploy_approved").ok


@pytest.mark.rule("LC-43", "LC-47")
def test_failed_deployment_goes_back_to_build_with_what_the_target_said():
    log = deployed(in_deploy().gate("approve_deploy", subject("tree+environment", "preview", TARGET)), "failed")
    found = owed(log)
    assert isinstance(found, LoopBack)
    assert found.event == "deploy_failed"
    assert "the program ended with 3" in found.reason

    # Back in DEPLOY with the same tree, it is tried once more: what failed may have been the environment.
    log.move("DEPLOY", "deploy_failed", "BUILD", loopback=True).move("BUILD", "build_done", "DEPLOY")
    again = owed(log.gate("approve_deploy", subject("tree+environment", "preview", TARGET)))
    assert again == Deploy(environment="preview", tree=MERGED, number=2)


@pytest.mark.rule("LC-63")
def test_health_has_to_hold_for_the_whole_window_without_a_gap_in_it():
    log = observed(in_monitor(), 10, 40)
    assert owed(log) == ObserveHealth(deployment_id=FIRST, number=2)
    assert not verdict(log.state, "health_ok").ok
    assert verdict(log.state, "health_ok").message == "healthy for 30 s of 60 s in preview"
    assert verdict(observed(log, 40, 70).state, "health_ok").ok


@pytest.mark.rule("LC-63")
def test_window_that_breaches_begins_the_time_anew_and_an_open_incident_forbids_it():
    log = observed(observed(observed(in_monitor(), 0, 40), 40, 50, ok=False), 50, 100)
    assert not verdict(log.state, "health_ok").ok
    assert verdict(observed(log, 100, 110).state, "health_ok").ok
    incident(log)
    assert "alive is 4" in verdict(log.state, "health_ok").message
    log.add(IncidentClosed(incident_id=EntityId("in-alive1"), resolution="healthy"))
    assert verdict(log.state, "health_ok").ok


@pytest.mark.rule("LC-63")
def test_health_of_a_deployment_before_does_not_count():
    log = deployed(observed(in_monitor(), 0, 100), deployment_id=SECOND)
    assert not verdict(log.state, "health_ok").ok
    assert not verdict(observed(log, 100, 200, of=FIRST).state, "health_ok").ok
    assert verdict(observed(log, 100, 200, of=SECOND).state, "health_ok").ok


@pytest.mark.rule("LC-49")
def test_first_window_that_breaches_is_rolled_back_and_then_goes_back_to_build():
    log = incident(observed(in_monitor(), 0, 10, ok=False))
    assert owed(log) == RollBack(deployment_id=FIRST)
    deployed(log, "rolled_back")
    found = owed(log)
    assert isinstance(found, LoopBack)
    assert (found.event, found.reason) == ("incident_found", "alive is 4")
    assert not verdict(log.state, "health_ok").ok


@pytest.mark.rule("LC-45", "LC-49")
def test_deployment_that_a_person_ended_goes_back_to_build_with_who_did_it():
    log = deployed(observed(in_monitor(), 0, 10), "rolled_back", detail="user:root stopped it by hand: it leaks")
    found = owed(log)
    assert isinstance(found, LoopBack)
    assert found.event == "incident_found"
    assert found.reason == "Deployment to preview was ended: user:root stopped it by hand: it leaks"


@pytest.mark.rule("LC-45", "LC-49")
@pytest.mark.parametrize("changes", [{"rollback_ref": None}, {}])
def test_later_window_that_breaches_goes_back_without_a_rollback(changes: dict[str, Any]):
    log = in_monitor(**changes)
    if not changes:
        observed(log, 0, 10)
    found = owed(incident(observed(log, 10, 20, ok=False)))
    assert isinstance(found, LoopBack)
    assert found.event == "incident_found"


@pytest.mark.rule("LC-45")
def test_incident_of_the_deployment_before_stays_open_while_the_new_one_is_watched():
    log = incident(observed(in_monitor(), 0, 10, ok=False))
    log.move("MONITOR", "incident_found", "BUILD", loopback=True).move("BUILD", "build_done", "DEPLOY")
    deployed(log, deployment_id=SECOND).move("DEPLOY", "deploy_done", "MONITOR")
    assert owed(log) == ObserveHealth(deployment_id=SECOND, number=1)
    assert not verdict(observed(log, 20, 100, of=SECOND).state, "health_ok").ok


def test_story_that_is_watched_without_a_deployment_parks():
    found = owed(in_deploy().move("DEPLOY", "deploy_done", "MONITOR"))
    assert isinstance(found, Park)


def test_observation_and_closing_of_what_is_not_there_change_nothing():
    log = in_monitor()
    before = log.state
    observed(log, 0, 10, of=SECOND).add(IncidentClosed(incident_id=EntityId("in-none1")))
    assert (log.state.deployments, log.state.incidents) == (before.deployments, before.incidents)


def test_tree_set_back_takes_consent_to_deploy_with_it():
    log = in_deploy().gate("approve_deploy", subject("tree+environment", "preview", TARGET))
    log.add(
        TreeMerged(base_digest=MERGED, result_digest=MERGED, commit="0d" * 20, restored_from=EntityId("cp-before1"))
    )
    assert not verdict(log.state, "deploy_approved").ok
    assert log.state.story_id == STORY
