"""What can be declared of a deployment, and when a window breaches (LC-49)."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fleet.policy.deploy import DeployTarget, HealthCheckSpec, HealthSample, judged, target_for
from tests.support.deployed import target_of

CHECK: dict[str, Any] = {"name": "alive", "kind": "http", "target": "/healthz", "threshold": 0}


def check(**changes: Any) -> HealthCheckSpec:
    return HealthCheckSpec.model_validate(CHECK | changes)


@pytest.mark.rule("LC-49")
@pytest.mark.parametrize("missing", ["threshold", "target", "name", "kind"])
def test_check_that_lacks_what_it_needs_is_refused(missing: str):
    with pytest.raises(ValidationError, match=missing):
        HealthCheckSpec.model_validate({k: v for k, v in CHECK.items() if k != missing})


@pytest.mark.rule("RT-65")
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"secrets": {"TOKEN": "hunter2-is-no-reference"}}, "TOKEN is no reference"),
        ({"secrets": {"TOKEN": "secret://Deploy_Token"}}, "malformed"),
        ({"secrets": {"token": "secret://deploy-token"}}, "secrets"),
        ({"secrets": {"PORT": "secret://deploy-token"}}, "PORT is a variable already"),
        ({"secrets": {"TOKEN": "secret://deploy-token"}, "env": {"TOKEN": "x"}}, "TOKEN is a variable already"),
        ({"env": {"TOKEN": "secret://deploy-token"}}, "TOKEN refers to a secret: list it under secrets"),
        ({"argv": ("python", "secret://deploy-token")}, "argv refers to a secret"),
    ],
)
def test_secret_of_a_target_is_a_reference_in_a_variable_of_its_own(changes: dict[str, Any], why: str):
    with pytest.raises(ValidationError, match=why) as refused:
        target_of(**changes)
    assert "hunter2" not in refused.value.errors(include_input=False)[0]["msg"]
    target = target_of(secrets={"TOKEN": "secret://deploy-token", "KEY": "secret://a-key", "SAME": "secret://a-key"})
    assert target.secret_names == ("a-key", "deploy-token")


@pytest.mark.rule("LC-49")
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"target": ""}, "target"),
        ({"target": "healthz"}, "begins with /"),
        ({"target": "/a\nb"}, "one line"),
        ({"kind": "metric", "target": "/metrics"}, "name of the metric"),
        ({"kind": "command", "target": "sh -c 'x"}, "cannot be split"),
        ({"kind": "log_pattern", "target": "("}, "no regular expression"),
        ({"threshold": -1}, "threshold"),
        ({"threshold": float("inf")}, "threshold"),
        ({"interval_s": 61}, "interval_s 61 is over window_s 60"),
        ({"kind": "guess"}, "kind"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_check_of_the_wrong_form_is_refused(changes: dict[str, Any], why: str):
    with pytest.raises(ValidationError, match=why):
        check(**changes)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"argv": []}, "argv"),
        ({"monitor": {"checks": []}}, "checks"),
        ({"monitor": {"checks": [CHECK, CHECK]}}, "two checks are named alive"),
        ({"environment": "../up"}, "environment"),
        ({"env": {"a b": "c"}}, "env"),
        ({"port": 80}, "port"),
    ],
)
def test_target_of_the_wrong_form_is_refused(changes: dict[str, Any], why: str):
    with pytest.raises(ValidationError, match=why):
        target_of(**changes)


IMAGE = f"registry.example/shop@sha256:{'1' * 64}"


@pytest.mark.rule("LC-49", "GL-22")
@pytest.mark.parametrize(
    ("target", "place", "why"),
    [
        ({}, {"image": "registry.example/shop:latest"}, "image"),
        ({}, {"tree_image": "python"}, "tree_image"),
        ({}, {"namespace": "Previews"}, "namespace"),
        ({}, {"namespace": None}, "namespace"),
        ({}, {"url": "http://cluster.example"}, "url"),
        ({}, {"url": "https://user:pass@cluster.example"}, "url"),
        ({}, {"user": 0}, "user"),
        ({}, {"replicas": 0}, "replicas"),
        ({}, {"token_file": "token"}, "token_file"),
        ({}, {"ingress": {"host": "shop.example", "class_name": "nginx"}}, "tls_secret"),
        ({}, {"privileged": True}, "privileged"),
        ({"kind": "process"}, {}, "belong together"),
        ({"kubernetes": None}, {}, "belong together"),
        ({"expose": 18080}, {}, "expose is a port of the fleet's node"),
        ({"environment": "pre_view"}, {}, "names objects"),
        ({"ready": {"path": "/../../secrets"}}, {}, "a path with .. cannot be asked"),
        ({"ready": {"path": "/%2e%2E/x"}}, {}, "a path with .. cannot be asked"),
        ({"monitor": {"checks": [CHECK | {"target": "/a/../b"}]}}, {}, "a path with .. cannot be asked"),
    ],
)
def test_target_in_a_cluster_of_the_wrong_form_is_refused(target: dict[str, Any], place: dict[str, Any], why: str):
    known = {"namespace": "previews", "image": IMAGE}
    with pytest.raises(ValidationError, match=why):
        target_of(**{"kind": "kubernetes", "kubernetes": known | place, **target})
    assert target_of(kind="kubernetes", kubernetes=known).service_name == "fleet-preview"


@pytest.mark.rule("LC-49", "GL-18")
def test_window_counts_failed_looks_and_lines_and_takes_the_highest_of_a_metric():
    seen = [HealthSample(1.0, "status 503"), HealthSample(0.0, "status 200"), HealthSample(1.0, "again")]
    assert judged(check(threshold=2), seen).ok
    assert not judged(check(threshold=1), seen).ok
    assert judged(check(threshold=1), seen).detail == "status 503"
    assert judged(check(kind="log_pattern", target="ERROR", threshold=2), seen).value == 2
    metric = check(kind="metric", target="/metrics#errors_total", threshold=1)
    assert judged(metric, seen).ok
    assert judged(metric, [*seen, HealthSample(1.5)]).value == 1.5
    assert not judged(check(threshold=5), []).ok


def test_command_is_split_without_a_shell():
    assert check(kind="command", target="python -c 'print(1); exit(2)'").argv == ("python", "-c", "print(1); exit(2)")


@pytest.mark.rule("LC-46")
def test_target_that_names_the_project_comes_before_one_for_all():
    everybody, own = target_of("preview"), target_of("own", projects=["pr-own"])
    targets: list[DeployTarget] = [everybody, own]
    assert target_for(targets, "pr-own") is own
    assert target_for(targets, "pr-other") is everybody
    assert target_for([own], "pr-other") is None
    assert target_for([], "pr-own") is None
