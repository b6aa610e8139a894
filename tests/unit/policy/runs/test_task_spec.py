"""TaskSpec and TaskResult: every field good and bad, and what they come to (RC-1..RC-19)."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fleet.kernel.errors import FleetError, InvalidInput, PolicyDenied
from fleet.kernel.ids import Digest, EntityId, StoryId
from fleet.policy.runs.spec import Artifact, BlobMount, RunResult, RunSpec, Usage
from fleet.policy.runs.task_plan import TaskCaps, run_of_task, task_result
from fleet.policy.runs.task_spec import TaskSpec

DIGEST = Digest("sha256:" + "91" * 32)
RUN, STORY = EntityId("rn-one"), StoryId("st-seven")
CONTEXT = {"case_id": "st-seven", "task_id": "tk-two", "role": "developer"}


def spec(**fields: Any) -> TaskSpec:
    return TaskSpec.model_validate_json(json.dumps({"image": "python", "context": CONTEXT, **fields}))


def run(caps: TaskCaps | None = None, **fields: Any) -> Any:
    return run_of_task(spec(**fields), images={"python", "node"}, caps=caps)


@pytest.mark.rule("RC-1", "RC-2", "RC-5", "RC-8", "RC-9")
def test_task_of_the_contract_becomes_the_run_that_it_names() -> None:
    found = run(
        env={"TASK": "unit", "TASK_LANG": "python"},
        timeouts={"overallSec": 900, "graceSec": 3},
        resources={"cpu": "0.5", "memory": "512Mi"},
        artifacts={"paths": ["/workspace/test-reports"]},
        input={"treeDigest": DIGEST},
    )
    assert found.argv == ("python", "/fleet/inside/agent_task.py")
    assert (found.tree, found.artifacts, found.env["TASK"]) == (DIGEST, ("test-reports",), "unit")
    assert (found.limits.overall_s, found.limits.idle_s, found.limits.grace_s) == (900, 600, 3)
    assert (found.limits.cpu_millis, found.limits.memory_bytes, found.limits.pids) == (500, 512 << 20, 512)
    assert run(cmd=["pytest", "-q"]).argv == ("pytest", "-q")
    assert run(image="node").toolchain == "node"


@pytest.mark.rule("RC-101")
def test_services_and_hosts_go_over_as_they_are() -> None:
    service = {"name": "cache", "kind": "redis", "env_prefix": "CACHE", "ready": {"argv": ["true"], "timeout_s": 5}}
    found = run(services=[service], network={"mode": "allow", "hosts": ["pypi.example"]})
    assert found.hosts == ("pypi.example",)
    assert (found.services[0].kind, found.services[0].ready.timeout_s) == ("redis", 5)


@pytest.mark.rule("RC-4")
def test_blob_is_mounted_read_only_below_inputs_and_nowhere_else() -> None:
    found = run(mounts=[{"type": "blob", "source": DIGEST, "target": "/inputs/data.json"}])
    assert found.mounts == (BlobMount(blob=DIGEST, target="/inputs/data.json"),)
    for target in ("/", "/etc/passwd", "/proc", "/sys/kernel", "/dev/null", "/inputs/../etc/x", "/srv/x"):
        with pytest.raises(PolicyDenied):
            run(mounts=[{"type": "blob", "source": DIGEST, "target": target}])
    for mount in ({"type": "bind", "source": "/var/run/docker.sock"}, {"type": "tmpfs"}):
        with pytest.raises(PolicyDenied):
            run(mounts=[{**mount, "target": "/data"}])
    with pytest.raises(PolicyDenied, match="read-only"):
        run(mounts=[{"type": "blob", "source": DIGEST, "target": "/inputs/a", "readOnly": False}])
    with pytest.raises(InvalidInput, match="digest"):
        run(mounts=[{"type": "blob", "source": "/etc/shadow", "target": "/inputs/a"}])


@pytest.mark.rule("RC-6")
def test_named_value_above_its_cap_is_refused_and_a_default_is_lowered() -> None:
    small = TaskCaps(cpu_millis=500, memory_bytes=1 << 30, disk_bytes=1 << 30, pids=64, overall_s=600)
    lowered = run(small).limits
    assert (lowered.cpu_millis, lowered.memory_bytes, lowered.pids, lowered.overall_s) == (500, 1 << 30, 64, 600)
    for named in ({"cpu": "1"}, {"memory": "2Gi"}, {"disk": "2Gi"}, {"pids": 65}):
        with pytest.raises(PolicyDenied, match="above what this fleet gives") as refused:
            run(small, resources=named)
        assert refused.value.details["rule_id"] == "over_cap"
    with pytest.raises(PolicyDenied, match="overallSec"):
        run(small, timeouts={"overallSec": 601})


@pytest.mark.rule("RC-1")
def test_image_that_is_not_listed_is_denied_with_the_list() -> None:
    with pytest.raises(PolicyDenied, match="node, python") as refused:
        run(image="alpine --privileged")
    assert refused.value.details["allowed"] == ["node", "python"]


@pytest.mark.rule("RC-8", "RC-10", "RC-11")
@pytest.mark.parametrize(
    "fields",
    [
        {"effect": "PURE"},
        {"key": "ab" * 32},
        {"resources": {"cpu": "0.05"}},
        {"resources": {"cpu": "99"}},
        {"resources": {"memory": "1Mi"}},
        {"artifacts": {"paths": ["/etc/passwd"]}},
        {"artifacts": {"paths": ["/workspace/../etc/x"]}},
        {"artifacts": {"paths": ["/workspace"]}},
        {"input": {"patchDigest": DIGEST}},
        {"context": {**CONTEXT, "hydration_refs": [{"redis_key": "a"}]}},
    ],
)
def test_what_cannot_be_meant_is_invalid_input(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        run(**fields)


@pytest.mark.rule("RC-2", "RC-3", "RC-5", "RC-6", "RC-7", "GL-7")
@pytest.mark.parametrize(
    "fields",
    [
        {"cmd": []},
        {"cmd": "pytest -q"},
        {"cmd": ["a"] * 65},
        {"env": {"lower": "x"}},
        {"env": {"A": "x" * 8193}},
        {"timeouts": {"overallSec": 0}},
        {"timeouts": {"overallSec": -1}},
        {"timeouts": {"overallSec": 14401}},
        {"resources": {"memory": "1e30Gi"}},
        {"resources": {"cpu": "NaN"}},
        {"resources": {"gpu": 1}},
        {"network": {"mode": "allow"}},
        {"network": {"mode": "none", "hosts": ["x"]}},
        {"approved": True},
        {"mounts": [{"type": "blob", "source": DIGEST, "target": "relative"}]},
        {"services": [{"name": "a", "kind": "redis", "env_prefix": "A"}] * 5},
        {"context": {"role": "developer"}},
        {"input": {"treeDigest": "sha256:12"}},
    ],
)
def test_document_of_wrong_form_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        spec(**fields)


@pytest.mark.rule("RC-12")
def test_story_id_is_accepted_under_both_names_and_told_as_case_id() -> None:
    one = spec()
    other = spec(context={"story_id": "st-seven", "role": "developer"})
    assert one.context.story_id == other.context.story_id == "st-seven"
    assert json.loads(one.model_dump_json(by_alias=True))["context"]["case_id"] == "st-seven"
    assert run().digest == run().digest != run(env={"A": "1"}).digest


@pytest.mark.rule("RC-13", "RC-14")
def test_result_is_told_in_the_words_of_the_contract() -> None:
    ended = RunResult(
        status="failed",
        reason="exit_nonzero",
        exit_code=1,
        artifacts=(Artifact(path="test-reports/junit.xml", blob=DIGEST, size_bytes=7), Artifact(path="gone")),
        usage=Usage(wall_ms=82_001, cpu_ms=5),
        limits={"memory": "cgroup"},
        backend="bubblewrap",
        log=DIGEST,
        tree_in=DIGEST,
    )
    found = task_result(run_id=RUN, story_id=STORY, status="running", result=ended, started_ms=0, finished_ms=1500)
    told = json.loads(found.model_dump_json(by_alias=True))
    assert (told["status"], told["reason"], told["exitCode"]) == ("failed", "exit_nonzero", 1)
    assert told["captured"]["logsRef"] == DIGEST
    assert told["captured"]["artifacts"][0]["path"] == "/workspace/test-reports/junit.xml"
    assert told["captured"]["artifacts"][1]["ref"] is None
    about = told["metadata"]
    assert (about["duration"], about["startedAt"], about["finishedAt"]) == (
        83,
        "1970-01-01T00:00:00.000Z",
        "1970-01-01T00:00:01.500Z",
    )
    assert about["limits"] == {"memory": "cgroup", "unmet": []}


def test_run_that_is_under_way_has_a_status_and_no_reason() -> None:
    found = task_result(run_id=RUN, story_id=STORY, status="running", result=None)
    assert (found.status, found.reason, found.exit_code, found.metadata.started_at) == ("running", None, None, None)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(sorted(TaskSpec.model_fields))


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(FIELDS, ANY, max_size=4))
def test_any_document_becomes_a_run_or_a_typed_refusal(fields: dict[str, Any]) -> None:
    with contextlib.suppress(ValidationError, FleetError):
        assert isinstance(run(**fields), RunSpec)
