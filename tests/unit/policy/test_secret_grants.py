"""A grant covers exactly its roles, tool and operations; everything else is denied."""

from __future__ import annotations

import itertools

import pytest
from pydantic import ValidationError

from fleet.policy.secret_grants import SECRET_RULE, SecretAccess, SecretGrant, SecretPolicy

GRANT = SecretGrant(
    secret="deploy-token", roles=frozenset({"devops"}), tool="kubectl", ops=frozenset({"apply", "scale"})
)
POLICY = SecretPolicy(grants=(GRANT,))


@pytest.mark.rule("RT-65")
def test_only_the_granted_triples_are_allowed() -> None:
    uses = itertools.product(
        ["deploy-token", "other"],
        ["devops", "deployer", "developer"],
        ["kubectl", "helm"],
        ["apply", "scale", "delete"],
    )

    allowed = [use for use in uses if POLICY.allows(use[0], role=use[1], tool=use[2], op=use[3])]

    assert allowed == [("deploy-token", "devops", "kubectl", "apply"), ("deploy-token", "devops", "kubectl", "scale")]


def test_without_grants_nothing_is_allowed() -> None:
    assert not SecretPolicy().allows("deploy-token", role="devops", tool="kubectl", op="apply")


def test_denial_names_the_use_rule_and_policy() -> None:
    denial = POLICY.denial("other", role="qa", tool="http", op="get")

    assert denial.details == {
        "rule_id": SECRET_RULE,
        "policy_digest": str(POLICY.digest),
        "secret": "other",
        "role": "qa",
        "tool": "http",
        "op": "get",
    }


def test_digest_depends_on_the_grants_and_not_on_the_order_of_a_set() -> None:
    same = GRANT.model_copy(update={"ops": frozenset({"scale", "apply"})})
    other = GRANT.model_copy(update={"ops": frozenset({"scale"})})

    assert SecretPolicy(grants=(same,)).digest == POLICY.digest
    assert SecretPolicy(grants=(other,)).digest != POLICY.digest


def test_policy_lists_its_roles_secrets_and_uses() -> None:
    assert POLICY.roles == {"devops"}
    assert POLICY.secrets == {"deploy-token"}
    assert list(POLICY.uses("devops")) == [GRANT]
    assert list(POLICY.uses("qa")) == []


@pytest.mark.parametrize(
    "change",
    [
        {"roles": []},
        {"ops": []},
        {"ops": ["aply"]},
        {"ops": ["*"]},
        {"roles": ["*"]},
        {"tool": "*"},
        {"secret": "secret://deploy-token"},
        {"value": "x"},
    ],
)
def test_grant_that_says_nothing_or_everything_is_refused(change: dict[str, object]) -> None:
    document = {"secret": "deploy-token", "roles": ["devops"], "tool": "kubectl", "ops": ["apply"]}

    with pytest.raises(ValidationError):
        SecretGrant.model_validate(document | change)


def test_tool_of_a_third_party_may_be_granted() -> None:
    SecretGrant(secret="a", roles=frozenset({"devops"}), tool="terraform", ops=frozenset({"plan"}))


def test_audit_line_has_no_field_for_a_value() -> None:
    assert set(SecretAccess.model_fields) == {
        "name", "provider", "role", "tool", "op", "outcome", "version", "error", "at_ms",
    }  # fmt: skip
