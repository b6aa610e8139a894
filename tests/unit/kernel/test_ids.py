"""Ids and principals cannot be built from text outside their form (GL-8, GL-9, GL-10)."""

from __future__ import annotations

import pickle

import pytest
from pydantic import BaseModel, ValidationError

from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import EntityId, Principal, StoryId, derive_id

PREFIXES = ("pr", "ep", "st", "tk", "pv", "ac", "de", "qu", "ap", "rn", "co", "cd", "ce", "in", "dg", "rp")


class Holder(BaseModel):
    """A stored value with an id and a principal in it."""

    id: EntityId
    who: Principal


@pytest.mark.rule("GL-8")
@pytest.mark.parametrize("text", ["a-1", "st-slug7", "tk-one-two-3", "x9-" + "a" * 77])
def test_id_of_the_form_stays_as_it_is(text: str) -> None:
    assert EntityId(text) == text
    assert type(pickle.loads(pickle.dumps(EntityId(text)))) is EntityId


@pytest.mark.rule("GL-8")
@pytest.mark.parametrize(
    "text",
    [
        *("", "st", "st-", "-st-a", "9-a", "st--a", "st-a-", "ST-A", "st-A", "st a", "st-a b", "st-a\n", "st_a-b"),
        *("{pNN}-a", "st-{a}", "story:st-a", "st-a/1", "st-a.b", "st-ä", "st-\N{FULLWIDTH DIGIT ONE}"),
        "st-" + "a" * 78,
    ],
)
def test_id_of_any_other_form_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        EntityId(text)
    assert refused.value.details["value"] == text[:100]
    assert refused.value.details["allowed"] == EntityId.form.pattern
    with pytest.raises(ValidationError):
        Holder.model_validate({"id": text, "who": "user:ana"})


@pytest.mark.rule("GL-8", "GL-9")
@pytest.mark.parametrize("prefix", PREFIXES)
def test_made_id_has_its_prefix_and_is_the_same_each_time(prefix: str) -> None:
    made = derive_id(prefix, "story:st-a", "user:ana/key-1", 2)
    assert EntityId(made) == made
    assert made.startswith(f"{prefix}-")
    assert made == derive_id(prefix, "story:st-a", "user:ana/key-1", 2)
    others = [
        derive_id(prefix, "story:st-b", "user:ana/key-1", 2),
        derive_id(prefix, "story:st-a", "user:ana/key-2", 2),
        derive_id(prefix, "story:st-a", "user:ana/key-1", 3),
    ]
    assert len({made, *others}) == 4


@pytest.mark.rule("GL-8")
def test_id_of_a_story_says_that_it_is_one() -> None:
    assert StoryId("st-a") == "st-a"
    with pytest.raises(InvalidInput):
        StoryId("tk-a")


@pytest.mark.rule("GL-10")
@pytest.mark.parametrize(
    ("text", "kind", "is_human"),
    [
        ("user:ana", "user", True),
        ("user:ana.b@example-1", "user", True),
        ("agent:developer-001", "agent", False),
        ("agent:data_engineer-102", "agent", False),
        ("system:council", "system", False),
    ],
)
def test_principal_is_a_person_an_agent_or_a_service(text: str, kind: str, is_human: bool) -> None:
    who = Principal(text)
    assert (who, who.kind, who.is_human) == (text, kind, is_human)
    assert Holder.model_validate_json(Holder(id=EntityId("st-a"), who=who).model_dump_json()).who == who


@pytest.mark.rule("GL-10")
@pytest.mark.parametrize(
    "text",
    [
        *("", "ana", "user:", "user:Ana", "user:a b", "user:a/b", "user:a:b", "USER:ana", "human:ana", "user:-a"),
        *("agent:developer", "agent:developer-1", "agent:developer-01", "agent:developer-0001", "agent:-001"),
        *("agent:Developer-001", "system:", "system:Council", "system:a b"),
        "user:" + "a" * 120,
    ],
)
def test_principal_of_any_other_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Principal(text)
    with pytest.raises(ValidationError):
        Holder.model_validate({"id": "st-a", "who": text})
