"""What vLLM is told, whether it fits, and weights by digest; none of it needs vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.kernel.errors import ModelUnavailable
from fleet.models.chat import ChatMessage, ToolOffer, ToolUse
from fleet.models.engine_config import LoraAdapter
from fleet.models.engines.vllm_options import (
    check_memory,
    engine_arguments,
    engine_environment,
    free_memory,
    has_wide_floats,
    template_messages,
    template_tools,
)
from fleet.models.weight_sources.folder import check_digest, digest_of_path, present, size_of_weights
from tests.support.engines import actor_engine

PATH = Path("/models/coder")


def test_arguments_on_a_cpu_are_eager_float32_and_bounded() -> None:
    made = engine_arguments(actor_engine(max_concurrency=4), PATH, wide_floats=False)
    assert made["model"] == "/models/coder"
    assert (made["dtype"], made["enforce_eager"], made["max_num_seqs"]) == ("float32", True, 4)
    assert made["kv_cache_memory_bytes"] == 2 << 30
    assert (made["enable_prefix_caching"], made["enable_chunked_prefill"]) == (True, True)
    assert made["scheduling_policy"] == "priority"
    assert "dtype" not in engine_arguments(actor_engine(), PATH, wide_floats=True)


def test_arguments_on_gpus_span_them_and_those_of_the_entry_win() -> None:
    config = actor_engine(gpus=2, tensor_parallel=2, engine_args={"enable_prefix_caching": False})
    made = engine_arguments(config, PATH, wide_floats=False)
    assert (made["tensor_parallel_size"], made["distributed_executor_backend"]) == (2, "mp")
    assert made["enable_prefix_caching"] is False
    assert "enforce_eager" not in made
    adapter = LoraAdapter(name="qa", path="/adapters/qa")
    assert engine_arguments(actor_engine(lora=(adapter,)), PATH, wide_floats=True)["enable_lora"] is True


def test_argument_that_has_a_field_of_its_own_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match="tensor_parallel_size \\(tensor_parallel\\)") as caught:
        engine_arguments(actor_engine(engine_args={"tensor_parallel_size": 2}), PATH, wide_floats=True)
    assert caught.value.details["reason"] == "bad_arguments"


def test_environment_bounds_threads_on_a_cpu_only_and_sends_nothing_out() -> None:
    on_cpu = engine_environment(actor_engine(threads=3))
    assert on_cpu["OMP_NUM_THREADS"] == "3"
    assert (on_cpu["HF_HUB_OFFLINE"], on_cpu["VLLM_NO_USAGE_STATS"]) == ("1", "1")
    assert "OMP_NUM_THREADS" not in engine_environment(actor_engine(gpus=1))


@pytest.mark.parametrize(("gpus", "where"), [(0, "its node has"), (2, "the 2 GPUs of its node have")])
def test_model_that_does_not_fit_is_refused_with_the_sizes(gpus: int, where: str) -> None:
    with pytest.raises(ModelUnavailable, match=where) as caught:
        check_memory(actor_engine(gpus=gpus), {"dtype": "float32"}, weights_bytes=3 << 30, free_bytes=5 << 30)
    assert caught.value.details["needed_bytes"] == 6 << 30
    check_memory(actor_engine(), {"dtype": "float32"}, weights_bytes=2 << 30, free_bytes=5 << 30)


def test_free_memory_is_that_of_the_machine_or_of_its_container() -> None:
    meminfo = "MemTotal: 100 kB\nMemAvailable: 50 kB\n"
    assert free_memory(meminfo) == 50 * 1024
    assert free_memory(meminfo, "20480", "10240") == 10240
    assert free_memory(meminfo, "max", "1") == 50 * 1024


def test_wide_floats_are_known_by_the_flags_of_the_cpu() -> None:
    assert has_wide_floats("processor: 0\nflags : fpu avx2 avx512f\n")
    assert not has_wide_floats("processor: 0\nflags : fpu avx2\n")
    assert not has_wide_floats("")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    return tmp_path


def test_digest_of_a_folder_follows_names_and_bytes_and_nothing_else(folder: Path) -> None:
    first = digest_of_path(folder)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "note").write_text("x")
    assert digest_of_path(folder) == first
    assert check_digest(folder, first, engine="tiny") == first
    (folder / "config.json").rename(folder / "other.json")
    assert digest_of_path(folder) != first
    assert digest_of_path(folder / "model.safetensors") == (
        "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"
    )


def test_other_digest_than_the_pinned_one_is_refused(folder: Path) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        check_digest(folder, "0" * 64, engine="tiny")
    assert caught.value.details["reason"] == "wrong_digest"
    assert caught.value.details["permanent"] is True


def test_weights_that_are_not_there_are_named(folder: Path) -> None:
    assert present(folder, engine="tiny") == folder
    assert size_of_weights(folder) == 5
    (folder / "model.safetensors").unlink()
    for path, why in (
        (folder, "holds no weights"),
        (folder / "gone", "there is nothing"),
        (folder / "config.json", "is no folder"),
    ):
        with pytest.raises(ModelUnavailable, match=why):
            present(path, engine="tiny")
    (folder / "config.json").unlink()
    with pytest.raises(ModelUnavailable, match=r"no config\.json"):
        present(folder, engine="tiny")


def test_conversation_with_tools_is_in_the_form_of_templates() -> None:
    asked = ToolUse(id="1", name="files__read", arguments='{"path": "a"}')
    broken = ToolUse(id="2", name="files__read", arguments='{"path"')
    made = template_messages(
        (
            ChatMessage(role="assistant", content="", tool_uses=(asked, broken)),
            ChatMessage(role="tool", content="text", tool_use_id="1"),
        )
    )
    calls = made[0]["tool_calls"]
    assert calls[0]["function"] == {"name": "files__read", "arguments": {"path": "a"}}
    assert calls[1]["function"]["arguments"] == '{"path"'
    assert made[1] == {"role": "tool", "content": "text", "tool_call_id": "1"}
    offer = ToolOffer(name="files__read", description="reads", parameters={"type": "object"})
    assert template_tools((offer,))[0]["function"]["name"] == "files__read"
