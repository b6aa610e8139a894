"""Principals: roles from the registry, tokens by their hash (AP-1, GL-16)."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fleet.desk.principals import PrincipalEntry, PrincipalRegistry, hash_token
from fleet.kernel.errors import Unauthenticated
from fleet.kernel.ids import Principal

ANA, OLD = Principal("user:ana"), Principal("user:old")
REGISTRY = PrincipalRegistry(
    (
        PrincipalEntry(principal=ANA, roles=frozenset({"po"}), token_sha256=hash_token("right-token")),
        PrincipalEntry(principal=OLD, roles=frozenset({"po"}), token_sha256=hash_token("old-token"), enabled=False),
    )
)


@pytest.mark.rule("AP-1")
@pytest.mark.parametrize("header", ["Bearer right-token", "bearer right-token", "Bearer  right-token "])
def test_bearer_token_stands_for_its_principal(header: str):
    assert REGISTRY.authenticate(header) == ANA


@pytest.mark.rule("AP-1")
@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "right-token", "Basic right-token", "Bearer wrong", "Bearer old-token"]
)
def test_anything_else_is_nobody(header: str | None):
    with pytest.raises(Unauthenticated) as refused:
        REGISTRY.authenticate(header)
    assert "right-token" not in str(refused.value)


@pytest.mark.rule("GL-16")
def test_roles_are_those_of_an_enabled_entry():
    assert REGISTRY.roles_of(ANA) == {"po"}
    assert REGISTRY.roles_of(OLD) == frozenset()
    assert REGISTRY.roles_of(Principal("user:nobody")) == frozenset()


def test_token_itself_cannot_be_stored():
    with pytest.raises(ValidationError):
        PrincipalEntry(principal=ANA, roles=frozenset(), token_sha256="right-token")


def test_projects_that_a_principal_sees_are_all_unless_some_are_named():
    hidden = PrincipalEntry(
        principal=Principal("user:eve"),
        roles=frozenset({"po"}),
        token_sha256=hash_token("eve-token"),
        projects=frozenset({"pr-other"}),
    )
    open_ = PrincipalEntry(principal=ANA, roles=frozenset({"po"}), token_sha256=hash_token("right-token"))
    registry = PrincipalRegistry((hidden, open_))
    assert registry.projects_of(ANA) is None
    assert registry.projects_of(Principal("user:eve")) == {"pr-other"}
    assert registry.projects_of(Principal("user:nobody")) == frozenset()
