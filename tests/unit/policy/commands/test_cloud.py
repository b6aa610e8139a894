"""Tool cloud: which commands read, and which arguments no call may have."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.kernel.errors import FleetError, InvalidInput, PolicyDenied
from fleet.policy.commands.cloud import CloudProgram, cloud_call, is_read


@pytest.mark.rule("RT-70")
@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("aws", "ec2 describe-instances --region eu-west-1"),
        ("aws", "s3api list-buckets"),
        ("aws", "sts get-caller-identity"),
        ("aws", "s3 ls s3-bucket"),
        ("gcloud", "compute instances list --format json"),
        ("gcloud", "compute networks subnets describe main --region x"),
        ("gcloud", "projects list"),
        ("az", "vm list --resource-group rg"),
        ("az", "network vnet subnet show --name x"),
    ],
)
def test_command_of_the_read_list_reads(program: str, line: str) -> None:
    assert cloud_call(f"{program}_read", line.split()) == (program, False)


@pytest.mark.rule("RT-70")
@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("aws", "ec2 terminate-instances --instance-ids i-1"),
        ("aws", "secretsmanager get-secret-value --secret-id describe-x"),
        ("aws", "ec2 --region describe-x run-instances"),
        ("aws", "s3 rm list-x"),
        ("aws", "ec2"),
        ("gcloud", "compute instances delete list"),
        ("gcloud", "compute instances --quiet list"),
        ("gcloud", "secrets versions access list"),
        ("gcloud", "auth print-access-token"),
        ("az", "vm delete list"),
        ("az", "keyvault secret show --name x"),
        ("az", "rest --url x"),
        ("az", "list"),
    ],
)
def test_command_outside_of_the_read_list_does_not_read(program: str, line: str) -> None:
    with pytest.raises(PolicyDenied):
        cloud_call(f"{program}_read", line.split())
    assert cloud_call(f"{program}_write", line.split()) == (program, True)


@pytest.mark.rule("RT-70", "RT-56")
@pytest.mark.parametrize(
    ("program", "argument"),
    [
        ("aws", "--endpoint-url=https://evil.test"),
        ("aws", "--endpoint"),
        ("aws", "--profile"),
        ("aws", "--cli-input-json"),
        ("aws", "file:///etc/passwd"),
        ("aws", "--user-data=fileb://x"),
        ("gcloud", "--impersonate-service-account=x"),
        ("gcloud", "--flags-file"),
        ("gcloud", "--acc"),
        ("az", "--parameters=@/etc/passwd"),
        ("az", "@x"),
        ("az", "--debug"),
    ],
)
def test_option_that_leads_elsewhere_is_denied(program: str, argument: str) -> None:
    for access in ("read", "write"):
        with pytest.raises(PolicyDenied):
            cloud_call(f"{program}_{access}", ["vm", "list", argument])


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("aws", ["ec2"]),
        ("oci_read", ["x"]),
        ("aws_read", []),
        ("az_read", ["--x"]),
        ("az_read", ["vm", "list", "a\nb"]),
    ],
)
def test_call_that_is_none_is_refused(op: str, arguments: list[str]) -> None:
    with pytest.raises(InvalidInput):
        cloud_call(op, arguments)


WORDS = ["compute", "instances", "vm", "delete", "list", "show", "describe", "--quiet", "ec2", "describe-x", "create"]


@settings(max_examples=200)
@given(st.sampled_from(["aws", "gcloud", "az"]), st.lists(st.sampled_from(WORDS), max_size=5))
def test_command_that_changes_something_never_reads(program: CloudProgram, words: list[str]) -> None:
    verbs = [w for w in words if not w.startswith("-")]
    try:
        cloud_call(f"{program}_read", words)
    except FleetError:
        return
    # The first word of aws is the service, whatever it is called.
    verbs = verbs[1:] if program == "aws" else verbs
    first = next(w for w in verbs if w in ("delete", "create", "list", "show", "describe", "describe-x"))
    assert first not in ("delete", "create")
    assert is_read(program, words)
