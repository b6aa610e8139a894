"""Packs that tokenizers count: what that costs in a long story, and how far the estimate is from the count."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from redis.asyncio import Redis

from benchmarks.figures import Figure, percentile
from benchmarks.large_story import TASK, write_story
from benchmarks.stores import append_one, question
from fleet.context.budget import estimate_tokens
from fleet.context.port import PackRequest
from fleet.context.scope import ContextConfig
from fleet.context.service.packs import ContextService
from fleet.context.tokenizers import FileTokenizers
from fleet.kernel.clock import SystemClock
from fleet.kernel.digest import canonical_json
from fleet.kernel.ids import StoryId, StreamId
from fleet.log.redis.log import RedisEventLog
from fleet.models.prompts.pack_readers import PACK_READERS, PackReaders, ReadingChain, ReadingEngine, ReadingLink
from fleet.models.weights import TokenizerId, UrlSource, Weights
from fleet.trees.files import FileBlobStore

CELLS = (("developer", "BUILD"), ("architect", "DESIGN"), ("qa", "TEST"), ("po", "BUILD"))


async def counted_packs(
    client: Redis, folder: Path, config: ContextConfig, *, events: int, rounds: int
) -> list[Figure]:
    """The figures of every tokenizer that PACK_TOKENIZERS names; none where it is not set."""
    files = [Path(name) for name in os.environ.get("PACK_TOKENIZERS", "").split(":") if name]
    return [
        figure
        for n, file in enumerate(files)
        for figure in await _counted(client, folder, config, file, n, events, rounds)
    ]


async def _counted(
    client: Redis, folder: Path, config: ContextConfig, file: Path, number: int, events: int, rounds: int
) -> list[Figure]:
    story, log, blobs = StoryId(f"st-counted{number}"), RedisEventLog(client), FileBlobStore(folder / "blobs")
    tokenizers, tokenizer = _tokenizers(folder, file)
    engine = ReadingEngine(tokenizer=tokenizer, max_context=32_768, max_output=4_096)
    chain = ReadingChain(links=(ReadingLink(engine_id="coder", max_tokens=1_024),))
    readers = PackReaders(engines={"coder": engine}, roles={}, default=chain)
    digest = await blobs.put(canonical_json(readers))
    head = await write_story(log, story, events=events, config={PACK_READERS: digest})
    service = ContextService(log, blobs, config, clock=SystemClock(), tokenizers=tokenizers)
    first, warm, cpu, ratios = list[float](), list[float](), list[float](), list[float]()
    for n in range(len(CELLS) + rounds):
        role, phase = CELLS[n % len(CELLS)]
        request = PackRequest(story, role, phase, 0, TASK if role == "developer" else None)
        head = await append_one(log, StreamId.of_story(story), head, question(2 * n), ts_ms=1_800_000_000_000 + n)
        wall, processor = time.perf_counter(), time.process_time()
        pack = await service.pack(request)
        # The first pack of each role meets texts that were never counted.
        (first if n < len(CELLS) else warm).append(1000 * (time.perf_counter() - wall))
        cpu.append(1000 * (time.process_time() - processor))
        assert pack.counter == tokenizer.label
        assert pack.token_count <= pack.budget
        ratios.append(100 * estimate_tokens(pack.text) / pack.token_count)
    name = f"pack counted by {file.name[:28]}"
    return [
        Figure(f"{name}: warm p99", percentile(warm, 99), "ms", note="aim: 100 ms"),
        Figure(f"{name}: warm p99, processor", percentile(cpu[len(CELLS) :], 99), "ms"),
        Figure(f"{name}: estimate over count, least", min(ratios), "%"),
        Figure(f"{name}: estimate over count, most", max(ratios), "%", note=f"{pack.token_count} tokens in the last"),
    ]


def _tokenizers(folder: Path, file: Path) -> tuple[FileTokenizers, TokenizerId]:
    """This file alone, known by its digest."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    tokenizer = TokenizerId(name="measured", sha256=digest)
    if file.suffix != ".gguf":
        return FileTokenizers({digest: file}, folder), tokenizer
    source = UrlSource(url="http://127.0.0.1:9/")
    weights = Weights(file=file.name, sha256=digest, size_bytes=file.stat().st_size, sources=(source,))
    (folder / digest).mkdir()
    (folder / digest / file.name).symlink_to(file.resolve())
    return FileTokenizers({}, folder, weights={digest: weights}), tokenizer
