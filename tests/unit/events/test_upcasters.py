"""Upcasters and golden files cover every schema that was ever stored (EV-30)."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.events.registry import EVENT_TYPES
from fleet.events.upcasters import UPCASTERS, upcast
from fleet.kernel.errors import UnsupportedSchema
from tests.support.event_samples import GOLDEN, golden_path

TYPES = sorted(EVENT_TYPES)


@pytest.mark.rule("EV-30", "EV-31")
@pytest.mark.parametrize("name", TYPES)
def test_every_schema_of_a_type_has_one_golden_file_and_no_other_schema_has(name: str) -> None:
    cls = EVENT_TYPES[name]
    found = {path.name for path in (GOLDEN / name).iterdir()}
    assert found == {golden_path(cls, schema).name for schema in range(1, cls.schema_version + 1)}


@pytest.mark.rule("EV-30")
def test_upcasters_lead_from_every_older_schema_to_the_present_one_and_nowhere_else() -> None:
    older = {(name, schema) for name, cls in EVENT_TYPES.items() for schema in range(1, cls.schema_version)}
    assert set(UPCASTERS) == older


# Three schemas of an example: v1 {secs}, v2 {ms}, v3 {ms, tries}.
CHAIN = {
    ("Waited", 1): lambda body: {**{k: v for k, v in body.items() if k != "secs"}, "ms": body["secs"] * 1000},
    ("Waited", 2): lambda body: {**body, "tries": 1},
}


@pytest.mark.rule("EV-30")
@pytest.mark.parametrize(("schema", "body"), [(1, {"secs": 2}), (2, {"ms": 2000}), (3, {"ms": 2000, "tries": 1})])
@pytest.mark.parametrize("to", [2, 3])
def test_chain_of_upcasters_lifts_step_by_step_and_the_same_each_time(
    schema: int, body: dict[str, Any], to: int
) -> None:
    given = dict(body)
    if schema > to:
        with pytest.raises(UnsupportedSchema, match=f"has schema {schema}, this version reads up to {to}"):
            upcast(body, type="Waited", schema=schema, to=to, table=CHAIN)
        return
    lifted = upcast(body, type="Waited", schema=schema, to=to, table=CHAIN)
    assert lifted == ({"ms": 2000} if to == 2 else {"ms": 2000, "tries": 1})
    assert lifted == upcast(body, type="Waited", schema=schema, to=to, table=CHAIN)
    assert body == given


@pytest.mark.rule("EV-30")
@pytest.mark.parametrize("missing", [1, 2])
def test_chain_with_a_missing_step_names_it(missing: int) -> None:
    table = {key: step for key, step in CHAIN.items() if key[1] != missing}
    with pytest.raises(UnsupportedSchema, match=f"no upcaster from schema {missing}") as caught:
        upcast({"secs": 2}, type="Waited", schema=1, to=3, table=table)
    assert caught.value.details == {"type": "Waited", "schema": missing}
