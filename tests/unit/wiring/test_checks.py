"""Everything in the files of a fleet is checked before anything starts, for laptops and clusters alike."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ray import serve

from fleet.cli.local.local_principals import ensure_principals
from fleet.config.files import packaged_directory
from fleet.kernel.errors import ConfigError
from fleet.wiring.checks import check_configuration
from fleet.wiring.deployments import deploy_targets
from fleet.wiring.places import cluster_endpoints
from serve_apps.deployed import gateway, llm

STORES = {
    "FLEET_REDIS_URL": "redis://:pass@log:6379/0",
    "FLEET_NEO4J_URI": "bolt://graph:7687",
    "FLEET_NEO4J_PASSWORD": "pass",
}
TARGET = (
    "{environment: preview, argv: [python, app.py], expose: 18080, "
    "monitor: {checks: [{name: alive, kind: http, target: /, threshold: 0}]}}"
)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The config folder of a pod, whose variables this process has."""
    config = tmp_path / "config"
    config.mkdir()
    for name, value in {"FLEET_HOME": str(tmp_path), "FLEET_CONFIG": str(config), **STORES}.items():
        monkeypatch.setenv(name, value)
    ensure_principals(tmp_path / "principals.json")
    return config


@pytest.mark.rule("GL-22")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("coach.yaml", "stray: 1"),
        ("context.yaml", "stray: 1"),
        ("council.yaml", "stray: 1"),
        ("fsm.yaml", "stray: 1"),
        ("models.yaml", "stray: 1"),
        ("planning.yaml", "stray: 1"),
        ("policy.yaml", "stray: 1"),
        ("rigor.yaml", "stray: 1"),
        ("roles.yaml", "stray: 1"),
        ("serve.yaml", "stray: 1"),
        ("fleet.yaml", "forge: {kind: github}"),
        ("fleet.yaml", "models: {serve: [nobody]}"),
        ("fleet.yaml", "deploy: {enabled: true}"),
        ("fleet.yaml", f"sandbox: {{backend: podman}}\ndeploy: {{enabled: true, targets: [{TARGET}]}}"),
    ],
)
def test_file_that_is_wrong_is_named_before_anything_starts(site: Path, tmp_path: Path, name: str, text: str) -> None:
    (site / name).write_text(text)
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
        check_configuration(cluster_endpoints({"FLEET_HOME": str(tmp_path), "FLEET_CONFIG": str(site), **STORES}))


@pytest.mark.rule("GL-18", "GL-22")
@pytest.mark.parametrize(
    ("name", "written", "misspelt"),
    [
        ("coach.yaml", "no_scenario:", "no_scenarios:"),
        ("context.yaml", "always:", "allways:"),
        ("context.yaml", "    data: [DECISIONS_RELEVANT_ROLE", "    date: [DECISIONS_RELEVANT_ROLE"),
        ("context.yaml", "SUMMARY_LAST", "SUMMARY_LATEST"),
        ("council.yaml", "double_ballot: true", "doubled_ballot: true"),
        ("council.yaml", "veto_roles: [qa,", "veto_roles: [qaa,"),
        ("council.yaml", "test_author_role: qa", "test_author_role: tester_"),
        ("council.yaml", "  developer: {num_agents", "  devloper: {num_agents"),
        ("fleet.yaml", "backend: {kind: bubblewrap", "backend: {kind: bubblewarp"),
        ("fsm.yaml", "guards: [dor_ok]", "guards: [dor_okay]"),
        ("fsm.yaml", "gate: review_approved}", "gate: review_aproved}"),
        ("fsm.yaml", "  unpark: {role", "  unparked: {role"),
        ("fsm.yaml", "action: CLAIM_REVIEW", "action: CLAIM_REVEIW"),
        ("fsm.yaml", "to: pending_qa,", "to: pendig_qa,"),
        ("fsm.yaml", "    research: [architect", "    reserch: [architect"),
        ("fsm.yaml", "claim_ttl_s: {implementing:", "claim_ttl_s: {implementig:"),
        ("fsm.yaml", "skips: [DEPLOY,", "skips: [DEPLOYS,"),
        ("fsm.yaml", "role: qa, wait_s", "role: qaa, wait_s"),
        ("models.yaml", "budgets:", "budgetts:"),
        ("models.yaml", "engine_id: profile", "engine_id: profiel"),
        ("planning.yaml", "  backlog_review:", "  backlog_reviews:"),
        ("planning.yaml", "councils: [architect,", "councils: [architekt,"),
        ("planning.yaml", "trigger: complete", "trigger: completed"),
        ("planning.yaml", "to: REVIEWING, roles: [system]", "to: REVIEWING, roles: [sytem]"),
        ("policy.yaml", "{id: qa-work, effect:", "{id: qa-work, effct:"),
        ("policy.yaml", "roles: [qa], phases: [BUILD, TEST], calls:", "roles: [qaa], phases: [BUILD, TEST], calls:"),
        ("rigor.yaml", "  dor_min: 75", "  dor_minimum: 75"),
        ("roles.yaml", "extends: architect", "extends: architekt"),
        ("roles.yaml", "tools:", "toolz:"),
        ("serve.yaml", "  gateway:", "  gatewy:"),
        ("serve.yaml", "heartbeat_s:", "heartbeats:"),
    ],
)
def test_name_that_is_misspelt_is_refused_with_its_file_and_line(
    site: Path, tmp_path: Path, name: str, written: str, misspelt: str
) -> None:
    text = (packaged_directory() / name).read_text()
    before, found, after = text.partition(written)
    assert found
    (site / name).write_text(before + misspelt + after)
    line = (before + misspelt).count("\n") + 1
    with pytest.raises(ConfigError, match=rf"{re.escape(name)}[,:] (.*; )?line {line}: "):
        check_configuration(cluster_endpoints({"FLEET_HOME": str(tmp_path), "FLEET_CONFIG": str(site), **STORES}))


@pytest.mark.rule("GL-18", "GL-22")
def test_pool_of_a_role_that_does_not_exist_is_refused_with_its_line(site: Path, tmp_path: Path) -> None:
    (site / "fleet.yaml").write_text("# sizes\npools:\n  qa: 2\n  devloper: 3\n")
    with pytest.raises(ConfigError, match=r"fleet.yaml, line 4: pools.devloper: roles.yaml has no role 'devloper'"):
        check_configuration(cluster_endpoints({"FLEET_HOME": str(tmp_path), "FLEET_CONFIG": str(site), **STORES}))


GRANT = "{secret: db-password, roles: [devops], tool: environment, ops: [start]}"
PROVIDER = "{kind: environment, label: env, prefix: CI_SECRET_, secrets: [db-password]}"


@pytest.mark.rule("GL-22", "RT-65")
@pytest.mark.parametrize(
    ("secrets", "why"),
    [
        ("grants: []", "no provider has secret 'db-password', a secret of the program of deploy target preview"),
        (
            f"grants: [{GRANT.replace('devops', 'deployer')}]\nproviders: [{PROVIDER}]",
            "target preview needs secret 'db-password'; grant it: {secret: db-password, roles: .devops., tool: envir",
        ),
        (f"grants: [{GRANT}]\nproviders: [{PROVIDER}]", None),
    ],
)
def test_secret_of_a_deployed_program_that_it_cannot_have_stops_the_start(
    site: Path, tmp_path: Path, secrets: str, why: str | None
) -> None:
    target = TARGET.replace("expose: 18080", 'secrets: {DB_PASSWORD: "secret://db-password"}')
    (site / "fleet.yaml").write_text(f"deploy: {{enabled: true, targets: [{target}]}}")
    (site / "secrets.yaml").write_text(secrets)
    endpoints = cluster_endpoints({"FLEET_HOME": str(tmp_path), "FLEET_CONFIG": str(site), **STORES})
    if why is None:
        check_configuration(endpoints)
        return
    with pytest.raises(ConfigError, match=why):
        check_configuration(endpoints)


PLACE = f"{{namespace: previews, image: 'registry.example/shop@sha256:{'1' * 64}'}}"
CLUSTER_TARGET = TARGET.replace("expose: 18080", f"kind: kubernetes, kubernetes: {PLACE}")


@pytest.mark.rule("LC-46", "GL-22")
@pytest.mark.parametrize(
    ("sandbox", "target", "why"),
    [
        ("{backend: podman}", CLUSTER_TARGET, None),
        ("{backend: podman}", TARGET, "deploy.targets of kind process need a sandbox that holds interactive runs"),
        (
            f"{{backend: {{kind: kubernetes, namespace: previews, image: 'x@sha256:{'1' * 64}'}}}}",
            CLUSTER_TARGET,
            "target preview has the namespace previews of the runs of agents",
        ),
    ],
)
def test_each_kind_of_target_says_what_it_needs(
    site: Path, tmp_path: Path, sandbox: str, target: str, why: str | None
) -> None:
    (site / "fleet.yaml").write_text(f"sandbox: {sandbox}\ndeploy: {{enabled: true, targets: [{target}]}}")
    endpoints = cluster_endpoints({"FLEET_HOME": str(tmp_path), "FLEET_CONFIG": str(site), **STORES})
    if why is None:
        check_configuration(endpoints)
        return
    with pytest.raises(ConfigError, match=why):
        check_configuration(endpoints)


def test_both_applications_are_built_from_the_files_of_the_pod(site: Path) -> None:
    for build in (gateway, llm):
        assert isinstance(build({}), serve.Application)


def test_application_of_a_pod_without_principals_is_refused(site: Path, tmp_path: Path) -> None:
    (tmp_path / "principals.json").unlink()
    with pytest.raises(ConfigError, match="nobody could use the front"):
        gateway({})
    (tmp_path / "principals.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"principals\.json"):
        llm({})


def test_application_of_a_pod_without_stores_is_refused(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLEET_REDIS_URL")
    with pytest.raises(ConfigError, match="FLEET_REDIS_URL not set"):
        gateway({})


def test_arguments_of_serve_are_refused_by_name(site: Path) -> None:
    with pytest.raises(ConfigError, match="take no arguments, and were given model, replicas"):
        gateway({"replicas": 2, "model": "x"})


@pytest.mark.rule("LC-46")
def test_targets_count_only_while_deployments_are_switched_on(site: Path, tmp_path: Path) -> None:
    environ = {"FLEET_HOME": str(tmp_path), "FLEET_CONFIG": str(site), **STORES}
    for text, expected in (("true", ["preview"]), ("false", [])):
        (site / "fleet.yaml").write_text(f"deploy: {{enabled: {text}, targets: [{TARGET}]}}")
        endpoints = cluster_endpoints(environ)
        check_configuration(endpoints)
        assert [target.environment for target in deploy_targets(endpoints)] == expected


@pytest.mark.rule("LC-49")
@pytest.mark.parametrize(
    ("targets", "why"),
    [
        (f"[{TARGET}, {TARGET}]", "two targets have environment preview"),
        (f"[{TARGET}, {TARGET.replace('preview', 'other')}]", "two targets have the port 18080"),
        (f"[{TARGET.replace(', threshold: 0', '')}]", r"checks\.0\.threshold: Field required"),
    ],
)
def test_targets_that_cannot_be_or_lack_something_are_named(site: Path, tmp_path: Path, targets: str, why: str):
    (site / "fleet.yaml").write_text(f"deploy: {{enabled: true, targets: {targets}}}")
    with pytest.raises(ConfigError, match=why):
        cluster_endpoints({"FLEET_HOME": str(tmp_path), "FLEET_CONFIG": str(site), **STORES})


def test_list_of_principals_that_is_wrong_stops_the_start_before_any_actor(site: Path, tmp_path: Path) -> None:
    (tmp_path / "principals.json").write_text('[{"principal": "user:ana", "roles": ["po"]}]')
    with pytest.raises(ConfigError, match=r"principals\.json: 0\.token_sha256: Field required"):
        check_configuration(cluster_endpoints({"FLEET_HOME": str(tmp_path), "FLEET_CONFIG": str(site), **STORES}))
