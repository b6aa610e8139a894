"""Values made from contracts: the schemas of JSON that a door publishes, and the descriptors of its messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

HOSTILE = (
    "",
    "../../etc/passwd",
    "a\x00b",
    "'; DROP TABLE x; --",
    "{{7*7}}",
    "\u202e\u0000",
    "x" * 5_000,
    "💥",
    "-1",
    "null",
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(HOSTILE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PLAIN: Mapping[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "number": st.floats(allow_nan=False),
    "null": st.none(),
}


def examples(strategy: st.SearchStrategy[Any], count: int, *, of: int = 7) -> list[Any]:
    """So many values of this strategy; the same for the same seed."""
    found: list[Any] = []

    @seed(of)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.large_base_example],
    )
    @given(strategy)
    def take(value: Any) -> None:
        found.append(value)

    take()
    return found


def of_schema(schema: Any, root: Mapping[str, Any], known: Mapping[str, str]) -> st.SearchStrategy[Any]:
    """Values that this JSON schema takes, and now and then one that it does not.

    Args:
        root: the document with what `$ref` names.
        known: values that mean something to the other side, by the name of their field.
    """
    return st.one_of(*[_fitting(schema, root, known, depth=0)] * 5, JSON)


def _fitting(
    schema: Any, root: Mapping[str, Any], known: Mapping[str, str], *, depth: int, name: str = ""
) -> st.SearchStrategy[Any]:
    if not isinstance(schema, Mapping) or depth > 8:
        return JSON
    inner: dict[str, Any] = {"root": root, "known": known, "depth": depth + 1}
    if (reference := schema.get("$ref")) is not None:
        target: Any = root
        for part in str(reference).removeprefix("#/").split("/"):
            target = target[part]
        return _fitting(target, **inner, name=name)
    if choices := schema.get("anyOf", schema.get("oneOf")):
        return st.one_of([_fitting(one, **inner, name=name) for one in choices])
    if "const" in schema:
        return st.one_of(*[st.just(schema["const"])] * 9, st.sampled_from(HOSTILE))
    if "enum" in schema:
        return st.sampled_from([*schema["enum"], "unheard-of"])
    match schema.get("type"):
        case "object":
            return _object(schema, inner)
        case "array":
            return st.lists(_fitting(schema.get("items"), **inner, name=name), max_size=4)
        case "string":
            return _text(name, known, most=int(schema.get("maxLength", 40)) % 200)
        case kind:
            return _number(schema) if kind == "integer" else PLAIN.get(str(kind), JSON)


def _object(schema: Mapping[str, Any], inner: dict[str, Any]) -> st.SearchStrategy[Any]:
    made = {name: _fitting(part, **inner, name=name) for name, part in schema.get("properties", {}).items()}
    sure = {name: made.pop(name) for name in schema.get("required", ()) if name in made}
    whole = st.fixed_dictionaries(sure, optional=made)
    stray = st.dictionaries(st.text(max_size=8), JSON, max_size=1)
    return st.one_of(*[whole] * 5, st.tuples(stray, whole).map(lambda both: {**both[0], **both[1]}))


def _number(schema: Mapping[str, Any]) -> st.SearchStrategy[int]:
    low, high = schema.get("minimum", -(2**63)), schema.get("maximum", 2**63)
    return st.integers(low, max(low, high)) | st.sampled_from([low - 1, high + 1, 0, 2**70])


def _text(name: str, known: Mapping[str, str], *, most: int = 40) -> st.SearchStrategy[str]:
    strange = st.one_of(st.sampled_from([*known.values(), *HOSTILE]), st.text(max_size=most))
    return st.one_of(*[st.just(known[name])] * 6, strange) if name in known else strange


def of_message(descriptor: Descriptor, known: Mapping[str, str]) -> st.SearchStrategy[Any]:
    """Messages of this type, any field of which may be left out."""
    return _fields(descriptor, known, depth=0).map(lambda values: ParseDict(values, descriptor._concrete_class()))  # pyright: ignore


def _fields(descriptor: Descriptor, known: Mapping[str, str], *, depth: int) -> st.SearchStrategy[Any]:
    if descriptor.full_name == Struct.DESCRIPTOR.full_name:
        return st.dictionaries(st.text(max_size=8), JSON, max_size=3)
    if descriptor.full_name == Value.DESCRIPTOR.full_name:
        return JSON
    if descriptor.full_name == ListValue.DESCRIPTOR.full_name:
        return st.lists(JSON, max_size=3)
    if depth > 4:
        return st.just({})
    return st.fixed_dictionaries({}, optional={f.name: _field(f, known, depth=depth) for f in descriptor.fields})


def _field(field: FieldDescriptor, known: Mapping[str, str], *, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        values = _single(field.message_type.fields_by_name["value"], known, depth=depth)
        return st.dictionaries(st.text(max_size=8), values, max_size=3)
    one = _single(field, known, depth=depth)
    return st.lists(one, max_size=3) if field.is_repeated else one


def _single(field: FieldDescriptor, known: Mapping[str, str], *, depth: int) -> st.SearchStrategy[Any]:
    bounds = {
        field.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
        field.CPPTYPE_UINT32: (0, 2**32 - 1),
        field.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
        field.CPPTYPE_UINT64: (0, 2**64 - 1),
    }
    if field.message_type is not None:
        return _fields(field.message_type, known, depth=depth + 1)
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values] + [99])
    if field.cpp_type in bounds:
        low, high = bounds[field.cpp_type]
        return st.integers(low, high) | st.sampled_from([0, 1, low, high])
    if field.cpp_type == field.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
        return st.floats(width=32, allow_nan=False, allow_infinity=False)
    if field.type == field.TYPE_BYTES:
        return st.just("AAEC")
    return _text(field.name, known)
