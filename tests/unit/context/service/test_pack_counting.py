"""Whose tokens count in a story: what it wrote down when it was created, for good (CX-20, CX-25, GL-23)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from fleet.context.budget import BudgetRule
from fleet.context.memory import MemoryTokenizers
from fleet.context.port import CountRequest, Pack, PackRequest, Tokenizers
from fleet.context.service.packs import ContextService
from fleet.context.tokenizers import FileTokenizers
from fleet.desk.context.whole_packs import WholePacks
from fleet.events.codec import decode
from fleet.events.context import ContextPackBuilt
from fleet.events.story import StoryCreated
from fleet.kernel.clock import MemoryClock
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import ArtifactNotFound, ConfigError, ContextTooLarge
from fleet.kernel.ids import CommandId, Digest, Principal, StoryId, StreamId
from fleet.log.memory import MemoryEventLog
from fleet.log.port import Command
from fleet.models.prompts.pack_readers import PACK_READERS, PackReaders, ReadingChain, ReadingEngine, ReadingLink
from fleet.models.weights import TokenizerId
from fleet.owner.duties.texts import pack_text
from fleet.owner.workbench import Workbench
from fleet.trees.memory import MemoryBlobStore
from tests.support.bench import STORY_TEXT, World
from tests.support.context import context_config
from tests.support.story_events import STORY, TASK, StoryLog, digest, story
from tests.support.tokenizers import Counter, id_of, write

BYTES, WORDS = id_of("bytes"), id_of("words")
NEW = StoryId("st-new1")


def chain(*engines: str, pinned: bool = False) -> ReadingChain:
    return ReadingChain(links=tuple(ReadingLink(engine_id=e, max_tokens=500) for e in engines), pinned=pinned)


def engine(tokenizer: TokenizerId | None = None, *, context: int = 32_768) -> ReadingEngine:
    return ReadingEngine(tokenizer=tokenizer, max_context=context, max_output=1_000)


def readers(**engines: ReadingEngine) -> PackReaders:
    """Every role asks these engines in this order; the sample story was started with the model profile `recorded`."""
    return PackReaders(engines=engines, roles={}, default=chain(*engines))


class Fleet:
    """A log and blobs that outlive the processes that make packs."""

    def __init__(self) -> None:
        self.log, self.blobs = MemoryEventLog(), MemoryBlobStore()
        self.story = StoryLog()

    async def begin(self, found: PackReaders | None) -> Fleet:
        config: Mapping[str, Digest] = {"fsm.yaml": digest("fsm")}
        if found is not None:
            config = {**config, PACK_READERS: await self.blobs.put(canonical_json(found))}
        self.story = story(until="merged", config=config)
        await self.story.write_to(self.log)
        return self

    async def pack(self, tokenizers: Tokenizers | None, *, role: str = "qa", phase: str = "TEST") -> Pack:
        """From a process that has just started."""
        config = context_config()
        tight = BudgetRule(base={}, default_base=512, per_task=0, per_decision=0, max_extra=0, max_tokens=512)
        service = ContextService(
            self.log,
            self.blobs,
            config.model_copy(update={"budget": tight}),
            clock=MemoryClock(),
            tokenizers=tokenizers,
        )
        task = TASK if role == "developer" else None
        return await service.pack(PackRequest(STORY, role, phase, self.story.version, task))


@pytest.fixture
def files(tmp_path: Path) -> FileTokenizers:
    for kind in ("bytes", "words"):
        (tmp_path / kind).mkdir()
    paths = {BYTES.sha256: write(tmp_path / "bytes"), WORDS.sha256: write(tmp_path / "words", "words")}
    return FileTokenizers(paths, tmp_path)


@pytest.mark.rule("CX-20")
async def test_pack_says_which_tokenizer_counted_it_and_counts_as_that_does(files: FileTokenizers) -> None:
    at = await Fleet().begin(readers(coder=engine(WORDS), other=engine(BYTES)))
    pack = await at.pack(files)
    assert pack.counter == WORDS.label
    assert pack.token_count == Counter("words").count(pack.text) <= pack.budget
    assert Counter("bytes").count(pack.text) <= pack.budget


@pytest.mark.rule("CX-20", "CX-25")
async def test_story_that_wrote_nothing_down_is_estimated_whatever_is_configured_now(files: FileTokenizers) -> None:
    at = await Fleet().begin(None)
    pack = await at.pack(files)
    assert pack.counter == "estimate"
    assert pack == await at.pack(None)
    unknown = await (await Fleet().begin(readers(coder=engine()))).pack(files)
    assert (unknown.text, unknown.token_count, unknown.counter) == (pack.text, pack.token_count, pack.counter)


@pytest.mark.rule("CX-25", "GL-23")
async def test_pack_has_the_same_bytes_after_a_restart_with_another_tokenizer_configured(tmp_path: Path) -> None:
    at = await Fleet().begin(readers(coder=engine(BYTES)))
    (tmp_path / BYTES.sha256).mkdir()
    write(tmp_path / BYTES.sha256)
    before = await at.pack(FileTokenizers({}, tmp_path))
    (tmp_path / "words").mkdir()
    after = await at.pack(FileTokenizers({WORDS.sha256: write(tmp_path / "words", "words")}, tmp_path))
    assert after == before
    assert before.counter == BYTES.label


@pytest.mark.rule("CX-20")
async def test_tokenizer_that_is_gone_is_an_error_and_never_another_count(files: FileTokenizers) -> None:
    lost = TokenizerId(name="lost", sha256="0" * 64)
    at = await Fleet().begin(readers(coder=engine(BYTES), other=engine(lost)))
    for tokenizers in (files, MemoryTokenizers([BYTES.sha256])):
        with pytest.raises(ConfigError, match="lost"):
            await at.pack(tokenizers)
    with pytest.raises(ConfigError, match="no tokenizers are known here"):
        await at.pack(None)


@pytest.mark.rule("CX-25")
async def test_readers_that_are_gone_or_of_a_newer_kind_are_an_error(files: FileTokenizers) -> None:
    at = Fleet()
    at.story = story(until="merged", config={PACK_READERS: digest("gone")})
    await at.story.write_to(at.log)
    with pytest.raises(ArtifactNotFound):
        await at.pack(files)
    newer = Fleet()
    newer.story = story(until="merged", config={PACK_READERS: await newer.blobs.put(b'{"vocabulary": 1}')})
    await newer.story.write_to(newer.log)
    with pytest.raises(ConfigError, match="a newer version of the fleet"):
        await newer.pack(files)


@pytest.mark.rule("CX-20", "MB-2")
async def test_engine_of_the_run_reads_first_unless_the_role_is_pinned(files: FileTokenizers) -> None:
    engines = {"recorded": engine(WORDS), "coder": engine(BYTES)}
    found = PackReaders(engines=engines, roles={"qa": chain("coder", pinned=True)}, default=chain("profile", "coder"))
    at = await Fleet().begin(found)
    assert (await at.pack(files)).counter == BYTES.label
    assert (await at.pack(files, role="developer", phase="BUILD")).counter == WORDS.label


@pytest.mark.rule("CX-21")
async def test_pack_is_within_the_smallest_context_of_the_chain(files: FileTokenizers) -> None:
    at = await Fleet().begin(readers(big=engine(BYTES), small=engine(context=1_850)))
    pack = await at.pack(files)
    assert pack.budget == 1_850 - 500 - 1_024
    assert pack.counter == BYTES.label
    narrow = await Fleet().begin(readers(big=engine(BYTES), small=engine(context=1_600)))
    with pytest.raises(ContextTooLarge):
        await narrow.pack(files)


@pytest.mark.rule("GL-23", "CX-20")
async def test_new_story_writes_down_who_reads_its_packs() -> None:
    world = World(readers=readers(coder=engine(BYTES)))
    bench = await world.bench(NEW)
    create = Command(
        command_id=CommandId("user:ana/key-1"),
        stream=StreamId.of_story(NEW),
        name="create_story",
        principal=Principal("user:ana"),
        body={"story": STORY_TEXT},
    )
    await world.commands.handle(bench, create)
    created = decode((await world.events(NEW))[0])
    assert isinstance(created, StoryCreated)
    written = await world.blobs.get(created.config[PACK_READERS])
    assert PackReaders.model_validate_json(written) == readers(coder=engine(BYTES))


@pytest.mark.rule("CX-6", "CX-20")
@pytest.mark.parametrize(("tokenizer", "counter"), [(BYTES, BYTES.label), (None, None)])
async def test_record_of_a_pack_names_the_tokenizer_and_no_estimate(
    tokenizer: TokenizerId | None, counter: str | None
) -> None:
    world = World(tokenizers=MemoryTokenizers([BYTES.sha256]))
    config = {PACK_READERS: await world.blobs.put(canonical_json(readers(coder=engine(tokenizer))))}
    await story(until="merged", config=config).write_to(world.log)
    bench: Workbench = await world.bench()
    await pack_text(bench, "qa", "TEST", None)
    built = [p for e in await world.events(STORY) if isinstance(p := decode(e), ContextPackBuilt)]
    assert [one.counter for one in built] == [counter]


@pytest.mark.rule("CX-25", "GL-23")
async def test_next_owner_of_a_story_makes_the_same_pack_and_no_second_record(tmp_path: Path) -> None:
    (tmp_path / BYTES.sha256).mkdir()
    write(tmp_path / BYTES.sha256)
    world = World(tokenizers=FileTokenizers({}, tmp_path))
    config = {PACK_READERS: await world.blobs.put(canonical_json(readers(coder=engine(BYTES, context=2_050))))}
    await story(until="merged", config=config).write_to(world.log)
    first = await pack_text(await world.bench(), "qa", "TEST", None)
    # A new process, whose configuration names another tokenizer by now.
    world.tokenizers = FileTokenizers({WORDS.sha256: tmp_path / "none.json"}, tmp_path)
    assert await pack_text(await world.bench(), "qa", "TEST", None) == first
    assert (await world.types()).count("ContextPackBuilt") == 1


@pytest.mark.rule("CX-20", "CX-50")
async def test_texts_are_counted_by_the_tokenizers_that_the_story_began_with(files: FileTokenizers) -> None:
    texts = ("one two three", "four", "")
    at = await Fleet().begin(readers(coder=engine(WORDS), other=engine(BYTES)))
    request = CountRequest(STORY, "developer", texts, at.story.version)
    service = ContextService(at.log, at.blobs, context_config(), clock=MemoryClock(), tokenizers=files)
    assert await service.count(request) == max(sum(map(Counter(kind).count, texts)) for kind in ("bytes", "words"))
    before = await Fleet().begin(None)
    old = ContextService(before.log, before.blobs, context_config(), clock=MemoryClock(), tokenizers=None)
    assert await old.count(request) == 5 + 2, "a third of the bytes of each"
    gone = ContextService(at.log, at.blobs, context_config(), clock=MemoryClock(), tokenizers=None)
    with pytest.raises(ConfigError):
        await gone.count(request)


@pytest.mark.rule("CX-22", "CX-23")
async def test_budget_holds_what_stands_around_a_pack_first_and_one_that_does_not_is_refused_with_the_sizes(
    files: FileTokenizers,
) -> None:
    at = await Fleet().begin(readers(coder=engine(WORDS), other=engine(BYTES)))
    service = ContextService(at.log, at.blobs, context_config(), clock=MemoryClock(), tokenizers=files)
    whole, version = WholePacks(service), at.story.version
    around = ("You test what others wrote.", "tests: pytest")
    beside = await whole.beside(STORY, "qa", around, as_of=version)
    assert beside == max(sum(Counter(kind).count(text) for text in around) for kind in ("bytes", "words"))
    assert await whole.beside(STORY, "qa", (), as_of=version) == 0
    alone = await service.pack(PackRequest(STORY, "qa", "TEST", version))
    free = await whole.pack(PackRequest(STORY, "qa", "TEST", version), beside)
    assert (free.text, free.hash) == (alone.text, alone.hash)
    assert (free.token_count, free.budget) == (alone.token_count + beside, alone.budget + beside)
    tight = await whole.pack(PackRequest(STORY, "qa", "TEST", version, token_budget=1_000), 300)
    assert tight.token_count <= tight.budget == 1_000
    assert tight.text == (await service.pack(PackRequest(STORY, "qa", "TEST", version, token_budget=700))).text
    with pytest.raises(ContextTooLarge) as refused:
        await whole.pack(PackRequest(STORY, "qa", "TEST", version, token_budget=1_000), 990)
    assert refused.value.details["budget"] == 1_000
    assert refused.value.details["sizes"]["system and tools"] == 990
    assert len(refused.value.details["sizes"]) > 1
