"""Bodies of `/v1/chat/completions` that nobody thought of: no fault of ours, and OpenAI's shape always (AP-122)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_apps.llm.body import ChatCompletionBody
from tests.support.llm_front import llm_front_in_thread

BODY: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Say hello."}]}
FIELDS = sorted(field.alias or name for name, field in ChatCompletionBody.model_fields.items())
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PART = st.fixed_dictionaries({}, optional={"type": st.sampled_from(["text", "image_url", "refusal"]), "text": VALUES})
CALL = st.fixed_dictionaries({}, optional={"id": VALUES, "type": st.just("function"), "function": VALUES})
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"]) | VALUES},
    optional={
        "content": st.text(max_size=20) | st.lists(PART | VALUES, max_size=3) | VALUES,
        "tool_calls": st.lists(CALL, max_size=2) | VALUES,
        "tool_call_id": VALUES,
        "name": VALUES,
    },
)
FORMAT = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "json_object", "json_schema"])},
    optional={"json_schema": st.fixed_dictionaries({}, optional={"name": st.just("a"), "schema": VALUES}) | VALUES},
)
CHANGES = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), VALUES, max_size=4)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx2.Client]:
    with (
        llm_front_in_thread() as url,
        httpx2.Client(base_url=url, headers={"Authorization": "Bearer dev-token"}, timeout=20) as client,
    ):
        yield client


@pytest.mark.rule("AP-122", "AP-7")
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    changes=CHANGES,
    messages=st.none() | st.lists(MESSAGE, max_size=3),
    form=st.none() | FORMAT,
    model=st.sampled_from(["tiny", "plain", "mock", "nothing"]),
)
def test_any_body_is_answered_or_refused_in_the_shape_of_openai(
    client: httpx2.Client, changes: dict[str, Any], messages: list[Any] | None, form: Any, model: str
):
    body = {**BODY, "model": model, **changes}
    body |= {} if messages is None else {"messages": messages}
    body |= {} if form is None else {"response_format": form}
    content = _json(body)
    response = client.post("/v1/chat/completions", content=content, headers={"Content-Type": "application/json"})
    told = (content, response.status_code, response.text[:500])
    assert response.status_code < 500, told
    if response.status_code == 200 and not body.get("stream"):
        assert response.json()["object"] == "chat.completion", told
    elif response.status_code == 200:
        assert response.text.endswith("data: [DONE]\n\n"), told
    else:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}, told


def _json(value: Any) -> bytes:
    """As a careless program writes it: NaN and halves of surrogate pairs included."""
    return json.dumps(value).encode()
