"""Tokenizers of config/models.yaml as they are wired: where their files are, and what a start says of wrong ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.cli.local.local_principals import ensure_principals
from fleet.kernel.errors import ConfigError
from fleet.models.prompts.pack_readers import PackReader
from fleet.wiring.checks import check_configuration
from fleet.wiring.desk.contexts import make_context_service
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.models.tokenizers import make_pack_readers, make_tokenizers
from fleet.wiring.places import cluster_endpoints
from tests.support.tokenizers import id_of, trained, write

CODER = id_of()
STORES = {
    "FLEET_REDIS_URL": "redis://:pass@log:6379/0",
    "FLEET_NEO4J_URI": "bolt://graph:7687",
    "FLEET_NEO4J_PASSWORD": "pass",
}


class Site:
    """The folder of a fleet and what its config/models.yaml says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "config").mkdir()
        (folder / "model").mkdir()
        ensure_principals(folder / "principals.json")

    def endpoints(self, *, chain: str = "coder", environ: dict[str, str] | None = None, **tokenizer: Any) -> Endpoints:
        named = {"name": CODER.name, "sha256": CODER.sha256, **(tokenizer or {"path": "tokenizer.json"})}
        coder = {
            "engine_id": "coder",
            "kind": "vllm",
            "model": "coder",
            "path": str(self.folder / "model"),
            "path_env": "CODER_PATH",
            "base_url_env": "CODER_URL",
            "unpriced": True,
            "tokenizer": named,
        }
        models = {
            "engines": [coder, {"engine_id": "mock", "kind": "mock", "model": "m", "unpriced": True}],
            "policies": {"default": [{"engine_id": chain, "max_tokens": 1000, "timeout_s": 9}]},
        }
        (self.folder / "config" / "models.yaml").write_text(yaml.safe_dump(models))
        places = {"FLEET_HOME": str(self.folder), "FLEET_CONFIG": str(self.folder / "config"), **STORES}
        return cluster_endpoints({**places, **(environ or {})})


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.rule("CX-20", "MB-1")
async def test_tokenizer_lies_beside_the_weights_or_where_its_path_says(site: Site) -> None:
    write(site.folder / "model")
    check_configuration(site.endpoints())
    make_context_service(site.endpoints())
    elsewhere = site.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "other.json").write_bytes(trained())
    told: list[dict[str, Any]] = [
        {"environ": {"CODER_PATH": str(site.folder / "model")}},
        {"path": str(elsewhere / "other.json")},
        {"path_env": "TOKENIZER", "environ": {"TOKENIZER": str(elsewhere / "other.json")}},
    ]
    for changes in told:
        assert (await make_tokenizers(site.endpoints(**changes)).counter(CODER)).name == CODER.label


@pytest.mark.rule("CX-20", "GL-22")
@pytest.mark.parametrize("start", [check_configuration, make_context_service])
def test_start_is_refused_while_a_tokenizer_of_a_chain_is_missing_or_another(site: Site, start: Any) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read from .*tokenizer\.json.*put the file with sha256"):
        start(site.endpoints())
    (site.folder / "model" / "tokenizer.json").write_bytes(trained("words"))
    with pytest.raises(ConfigError, match="is not the file of tokenizer"):
        start(site.endpoints())


@pytest.mark.rule("CX-20")
def test_engine_that_no_chain_names_may_lack_its_tokenizer_and_not_have_another(site: Site) -> None:
    check_configuration(site.endpoints(chain="mock"))
    (site.folder / "model" / "tokenizer.json").write_bytes(trained("words"))
    with pytest.raises(ConfigError, match="is not the file of tokenizer"):
        check_configuration(site.endpoints(chain="mock"))


@pytest.mark.rule("CX-20", "MB-1")
async def test_tokenizer_that_was_pulled_is_found_below_the_home(site: Site) -> None:
    source = {"kind": "url", "url": "http://127.0.0.1:9/tokenizer.json"}
    endpoints = site.endpoints(size_bytes=len(trained()), sources=[source])
    with pytest.raises(ConfigError, match="fleet models pull"):
        check_configuration(endpoints)
    folder = site.folder / "weights" / CODER.sha256
    folder.mkdir(parents=True)
    write(folder)
    check_configuration(endpoints)
    assert (await make_tokenizers(endpoints).counter(CODER)).count("a story") > 0


@pytest.mark.rule("CX-20", "CX-21")
def test_readers_know_no_tokenizer_of_a_server_that_somebody_else_runs(site: Site) -> None:
    room = 32_768 - 1_000 - 1_024
    assert make_pack_readers(site.endpoints()).of("qa", None) == (PackReader(CODER, room),)
    foreign = site.endpoints(environ={"CODER_URL": "http://elsewhere/v1"})
    assert make_pack_readers(foreign).of("qa", None) == (PackReader(None, room),)
    own = replace(foreign, served=("CODER_URL",))
    assert make_pack_readers(own).of("qa", None) == (PackReader(CODER, room),)
