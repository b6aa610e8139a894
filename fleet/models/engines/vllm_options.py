"""What vLLM is told: arguments and environment of an engine, and conversations as chat templates take them.

Needs no vLLM.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fleet.kernel.errors import ModelUnavailable
from fleet.models.chat import ChatMessage, Priority, ToolOffer
from fleet.models.engine_config import ActorEngine

RANKS: Mapping[Priority, int] = {"person": 0, "story": 1, "batch": 2}
"""vLLM serves lower numbers first."""

GIB = 1 << 30
_CPU_CACHE_BYTES = 2 * GIB
_OWN = {
    "model": "path",
    "tensor_parallel_size": "tensor_parallel",
    "max_model_len": "max_context",
    "max_num_seqs": "max_concurrency",
    "scheduling_policy": None,
    "enable_lora": "lora",
}
"""Arguments that other fields of the entry stand for."""


def engine_arguments(config: ActorEngine, path: Path, *, wide_floats: bool) -> dict[str, Any]:
    """Arguments of `AsyncEngineArgs`; those of the entry's `engine_args` win over the defaults.

    Args:
        wide_floats: the CPU computes in bfloat16; without, it is much slower in that than in float32.

    Raises:
        ModelUnavailable: `engine_args` names what another field of the entry stands for.
    """
    if taken := sorted(set(config.engine_args) & set(_OWN)):
        instead = ", ".join(f"{name} ({_OWN[name] or 'fixed'})" for name in taken)
        raise ModelUnavailable(
            f"engine_args of engine {config.engine_id!r} must not set what has a field of its own: {instead}",
            engine=config.engine_id,
            reason="bad_arguments",
            permanent=True,
        )
    arguments: dict[str, Any] = {
        "model": str(path),
        "served_model_name": config.model,
        "max_model_len": config.max_context,
        "max_num_seqs": config.max_concurrency,
        "tensor_parallel_size": config.tensor_parallel,
        "enable_prefix_caching": True,
        "enable_chunked_prefill": True,
        "scheduling_policy": "priority",
    }
    if config.gpus == 0:
        arguments |= {"enforce_eager": True, "kv_cache_memory_bytes": _CPU_CACHE_BYTES}
        arguments |= {} if wide_floats else {"dtype": "float32"}
    elif config.gpus > 1:
        arguments["distributed_executor_backend"] = "mp"
    if config.lora:
        arguments |= {"enable_lora": True, "max_loras": min(len(config.lora), 8)}
    return arguments | config.engine_args


def engine_environment(config: ActorEngine) -> dict[str, str]:
    """Variables of the engine's process and its children."""
    threads = str(config.threads or os.cpu_count() or 1)
    on_cpu = {"OMP_NUM_THREADS": threads, "VLLM_CPU_OMP_THREADS_BIND": "nobind"} if config.gpus == 0 else {}
    return on_cpu | {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }


def check_memory(config: ActorEngine, arguments: Mapping[str, Any], *, weights_bytes: int, free_bytes: int) -> None:
    """Returns when weights and cache fit. Raises ModelUnavailable with the sizes when they cannot."""
    # Files hold 16 bits for a number as a rule; on a CPU without bfloat16 they are widened.
    factor = 2 if arguments.get("dtype") == "float32" else 1
    cache_bytes = int(arguments.get("kv_cache_memory_bytes") or 0)
    needed = weights_bytes * factor + cache_bytes
    if needed <= free_bytes:
        return
    where = f"the {config.gpus} GPUs of its node have" if config.gpus else "its node has"
    raise ModelUnavailable(
        f"engine {config.engine_id!r} is too large: weights and cache need {needed / GIB:.1f} GiB and {where} "
        f"{free_bytes / GIB:.1f} GiB; use a smaller or quantised model, more GPUs, or a smaller kv_cache_memory_bytes",
        engine=config.engine_id,
        reason="too_large",
        needed_bytes=needed,
        free_bytes=free_bytes,
        permanent=True,
    )


def free_memory(meminfo: str, limit: str = "max", used: str = "0") -> int:
    """Bytes that this machine can give: by the text of /proc/meminfo, and by the limit of a container."""
    line = next(line for line in meminfo.splitlines() if line.startswith("MemAvailable:"))
    available = int(line.split()[1]) * 1024
    return min(available, int(limit) - int(used)) if limit.strip().isdigit() else available


def has_wide_floats(cpuinfo: str) -> bool:
    """Whether the CPU computes in bfloat16 at speed, by the text of /proc/cpuinfo."""
    flags = next((line for line in cpuinfo.splitlines() if line.startswith(("flags", "Features"))), "").split()
    return bool({"avx512f", "amx_bf16", "avx512_bf16", "bf16"} & set(flags))


def template_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Messages as chat templates expect them."""
    return [_message(message) for message in messages]


def template_tools(tools: Sequence[ToolOffer]) -> list[dict[str, Any]]:
    """Offers as chat templates expect them."""
    return [{"type": "function", "function": tool.model_dump()} for tool in tools]


def _message(message: ChatMessage) -> dict[str, Any]:
    sent: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_uses:
        sent["tool_calls"] = [
            {"type": "function", "id": use.id, "function": {"name": use.name, "arguments": _read(use.arguments)}}
            for use in message.tool_uses
        ]
    if message.tool_use_id is not None:
        sent["tool_call_id"] = message.tool_use_id
    return sent


def _read(arguments: str) -> Any:
    # Templates print arguments as JSON themselves; what is broken is shown as the model wrote it.
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
