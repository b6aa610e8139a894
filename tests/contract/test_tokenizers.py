"""The contract of Tokenizers, on every adapter."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.context.memory import MemoryTokenizers
from fleet.context.port import Tokenizers
from fleet.context.tokenizers import FileTokenizers
from fleet.kernel.errors import ConfigError
from fleet.models.weights import TokenizerId
from tests.support.tokenizers import KINDS, gguf, id_of, real, trained, weights_with, write

KNOWN = id_of()
UNKNOWN = TokenizerId(name="lost", sha256="0" * 64)
TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200)
ADAPTERS = ("memory", "files", "weights")


class Given(NamedTuple):
    """Tokenizers, one of which is `known`."""

    tokenizers: Tokenizers
    known: TokenizerId


def make(kind: str, folder: Path) -> Given:
    if kind == "memory":
        return Given(MemoryTokenizers([KNOWN.sha256]), KNOWN)
    if kind == "files":
        return Given(FileTokenizers({KNOWN.sha256: write(folder)}, folder / "weights"), KNOWN)
    return pulled(folder, gguf())


def pulled(folder: Path, data: bytes) -> Given:
    """A file of weights that lies where a pull puts it."""
    weights = weights_with(data)
    (folder / weights.sha256).mkdir(exist_ok=True)
    (folder / weights.sha256 / weights.file).write_bytes(data)
    known = TokenizerId(name="tiny", sha256=weights.sha256)
    return Given(FileTokenizers({}, folder, weights={weights.sha256: weights}), known)


@pytest.fixture(params=ADAPTERS)
def given_(request: pytest.FixtureRequest, tmp_path: Path) -> Given:
    return make(request.param, tmp_path)


@pytest.mark.rule("CX-20")
async def test_counter_carries_name_and_digest_of_its_tokenizer(given_: Given) -> None:
    counter = await given_.tokenizers.counter(given_.known)
    assert counter.name == given_.known.label == f"{given_.known.name} sha256:{given_.known.sha256}"


@pytest.mark.rule("CX-20")
async def test_empty_text_has_no_tokens_and_a_longer_one_has_some(given_: Given) -> None:
    counter = await given_.tokenizers.counter(given_.known)
    assert counter.count("") == 0
    assert 0 < counter.count("a story") <= counter.count("a story " * 50)


@pytest.mark.rule("CX-25")
@pytest.mark.parametrize("kind", ADAPTERS)
@given(text=TEXTS)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_count_is_the_same_again_and_in_another_process(kind: str, text: str, tmp_path: Path) -> None:
    here, there = make(kind, tmp_path), make(kind, tmp_path)
    counter, other = await here.tokenizers.counter(here.known), await there.tokenizers.counter(there.known)
    first = counter.count(text)
    assert counter.count(text) == other.count(text) == first
    assert 0 <= first <= 3 * len(text.encode()), "a normal form may be longer than the text"


@pytest.mark.rule("CX-20")
async def test_unknown_digest_is_refused_and_nothing_else_counts(given_: Given) -> None:
    with pytest.raises(ConfigError, match="lost") as caught:
        await given_.tokenizers.counter(UNKNOWN)
    assert caught.value.details["sha256"] == UNKNOWN.sha256
    assert caught.value.details["reason"] == "missing_tokenizer"


async def test_threads_count_alike(given_: Given) -> None:
    counter = await given_.tokenizers.counter(given_.known)
    texts = [f"decision {n}: keep the lease for {n} seconds" for n in range(50)]
    found: list[list[int]] = []
    threads = [threading.Thread(target=lambda: found.append([counter.count(t) for t in texts])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[counter.count(t) for t in texts]] * 4


@pytest.mark.rule("CX-20")
@pytest.mark.parametrize("kind", KINDS)
async def test_file_counts_what_the_library_counts_whatever_the_file_says_of_lengths(kind: str, tmp_path: Path) -> None:
    counter = await FileTokenizers({id_of(kind).sha256: write(tmp_path, kind)}, tmp_path).counter(id_of(kind))
    text = (Path(__file__).parents[2] / "docs" / "context.md").read_text()
    assert counter.count(text) == len(real(kind).encode(text, add_special_tokens=False)) > 512


@pytest.mark.rule("CX-20", "MB-1")
async def test_file_of_another_digest_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(ConfigError, match="is not the file of tokenizer 'trained-bytes'.*models.yaml") as caught:
        await FileTokenizers({KNOWN.sha256: path}, tmp_path / "weights").counter(KNOWN)
    assert caught.value.details["reason"] == "wrong_digest"


@pytest.mark.rule("CX-20")
async def test_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b"{}")
    wanted = TokenizerId(name="odd", sha256="44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a")
    with pytest.raises(ConfigError, match="holds no tokenizer that can be used") as caught:
        await FileTokenizers({wanted.sha256: path}, tmp_path / "weights").counter(wanted)
    assert caught.value.details["reason"] == "not_a_tokenizer"


@pytest.mark.rule("CX-20")
async def test_missing_library_is_named_with_the_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"pip install 'swe-fleet\[tokenizers\]'") as caught:
        await make("files", tmp_path).tokenizers.counter(KNOWN)
    assert caught.value.details["reason"] == "missing_library"


@pytest.mark.rule("CX-25")
async def test_pulled_file_is_found_by_its_digest_when_the_configuration_names_another(tmp_path: Path) -> None:
    folder = tmp_path / "weights" / KNOWN.sha256
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_bytes(trained())
    assert (await FileTokenizers({}, tmp_path / "weights").counter(KNOWN)).name == KNOWN.label


@pytest.mark.rule("CX-20")
async def test_tokenizer_in_weights_counts_as_its_vocabulary_says(tmp_path: Path) -> None:
    here = pulled(tmp_path, gguf())
    counter, twin = await here.tokenizers.counter(here.known), real()
    text = (Path(__file__).parents[2] / "docs" / "context.md").read_text()
    words = re.sub(r"[0-9]", "", text)
    assert counter.count(words) == len(twin.encode(words, add_special_tokens=False))
    # Of digits this kind takes each by itself, the other one three at a time.
    assert counter.count("2026") == 4


@pytest.mark.rule("CX-20")
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (gguf(pre="llama-bpe"), "known are gpt2/qwen2"),
        (gguf(kind="llama"), "known are gpt2/qwen2"),
        (gguf()[:3000], "breaks off or is damaged"),
        (b"GGUF" + b"\xff" * 400, "damaged"),
        (b"no weights", "it is no GGUF file"),
    ],
)
async def test_weights_without_a_tokenizer_that_is_known_are_refused(tmp_path: Path, data: bytes, why: str) -> None:
    here = pulled(tmp_path, data)
    with pytest.raises(ConfigError, match=why) as caught:
        await here.tokenizers.counter(here.known)
    assert caught.value.details["reason"] == "not_a_tokenizer"


@pytest.mark.rule("CX-20", "MB-1")
async def test_weights_that_are_damaged_or_not_pulled_count_nothing(tmp_path: Path) -> None:
    weights = weights_with(gguf())
    missing = FileTokenizers({}, tmp_path, weights={weights.sha256: weights})
    with pytest.raises(ConfigError, match="the weights are not here"):
        await missing.counter(TokenizerId(name="tiny", sha256=weights.sha256))
    here = pulled(tmp_path, gguf())
    (tmp_path / weights.sha256 / weights.file).write_bytes(gguf() + b"x")
    with pytest.raises(ConfigError, match="is not the file of tokenizer 'tiny'"):
        await here.tokenizers.counter(here.known)
