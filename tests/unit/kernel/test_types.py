"""Names and texts that several packages share."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from fleet.kernel.errors import PolicyDenied
from fleet.kernel.ids import Principal
from fleet.kernel.types import Reason, RoleName, is_reason
from fleet.policy.roles import require_role

ANA = Principal("user:ana")


# Stored events hold each of these: `q` and `data-qa`, a role of the configuration, and a council's of 60 characters.
@pytest.mark.parametrize("name", ["q", "qa", "back_end", "data-qa", "a" * 60])
def test_role_name_of_any_stored_form_is_one(name: str) -> None:
    assert TypeAdapter(RoleName).validate_python(name) == name


@pytest.mark.parametrize("name", ["", "2qa", "QA", "qa!", "qa\n", "a" * 61])
def test_role_name_of_another_form_is_none(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(RoleName).validate_python(name)


@pytest.mark.parametrize(("length", "ok"), [(9, False), (10, True), (4000, True), (4001, False)])
def test_reason_is_bounded_alike_as_field_and_as_text(length: int, ok: bool) -> None:
    text = "w" * length
    assert is_reason(f" {text}\n") is ok
    if ok:
        assert TypeAdapter(Reason).validate_python(text) == text
    else:
        with pytest.raises(ValidationError):
            TypeAdapter(Reason).validate_python(text)


@pytest.mark.parametrize(
    ("roles", "says"),
    [
        (("po",), "user:ana does not hold role 'po'"),
        (("po", "admin"), "user:ana holds neither role 'po' nor 'admin'"),
        (("po", "admin", "qa"), "user:ana holds none of the roles po, admin, qa"),
    ],
)
def test_caller_without_the_roles_is_refused_in_words(roles: tuple[str, ...], says: str) -> None:
    with pytest.raises(PolicyDenied) as caught:
        require_role(ANA, {"developer"}, *roles)
    assert (caught.value.message, caught.value.details["allowed"]) == (says, " ".join(roles))
