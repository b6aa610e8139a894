"""Tokenizers of the configured models, and which of them reads the packs of which role."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from fleet.context.tokenizers import FileTokenizers
from fleet.kernel.errors import ConfigError
from fleet.models.engine_config import ActorEngine, EngineConfig
from fleet.models.profiles import ModelsConfig, load_models
from fleet.models.prompts.pack_readers import PackReaders, is_another_model, pack_readers
from fleet.models.weights import TOKENIZER_FILE, TokenizerFile, Weights
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.sandbox.plugins import active_roles

_NOT_YET = frozenset({"missing_tokenizer", "missing_library"})
"""What may be wrong with the tokenizer of an engine that no run has named yet."""


def make_tokenizers(endpoints: Endpoints) -> FileTokenizers:
    """Those of config/models.yaml, and every one that was pulled below the home."""
    return _tokenizers(_models(endpoints).engines, Path(endpoints.home), endpoints.environ)


def check_tokenizer(engine: EngineConfig, home: Path, environ: Mapping[str, str]) -> None:
    """The engine's tokenizer can be used here, if it has one for the model that it asks. Raises ConfigError."""
    if engine.tokenizer is not None and not is_another_model(engine, environ):
        _tokenizers([engine], home, environ).load(engine.tokenizer.id)


def _tokenizers(engines: Iterable[EngineConfig], home: Path, environ: Mapping[str, str]) -> FileTokenizers:
    paths, weights = dict[str, Path](), dict[str, Weights]()
    for engine in engines:
        tokenizer = engine.tokenizer
        if tokenizer is None or tokenizer.pulled is not None:
            continue
        if not tokenizer.in_weights:
            paths[tokenizer.sha256] = _path(engine, tokenizer, environ)
        elif isinstance(engine, ActorEngine) and engine.weights is not None:
            weights[tokenizer.sha256] = engine.weights
    return FileTokenizers(paths, home / "weights", weights=weights)


def make_pack_readers(endpoints: Endpoints) -> PackReaders:
    """What a story that is created now writes down."""
    roles = active_roles(endpoints.files)
    policies = {role.name: (role.model_policy, role.name, *role.lineage) for role in roles.roles.values()}
    return pack_readers(_models(endpoints), policies, environ=_given(endpoints))


def check_tokenizers(endpoints: Endpoints) -> None:
    """Every tokenizer that a chain of config/models.yaml needs can be used here, and none that is here is another.

    One whose engine stands in no chain may be missing: a run that names the engine is told so.

    Raises:
        ConfigError: says which one, why, and what to do.
    """
    models, tokenizers, given = _models(endpoints), make_tokenizers(endpoints), _given(endpoints)
    needed = {entry.engine_id for policy in models.policies.values() for entry in policy.chain}
    for engine in models.engines:
        is_needed = engine.engine_id in needed
        if engine.tokenizer is None or is_another_model(engine, given):
            continue
        if engine.tokenizer.in_weights and not is_needed:
            continue  # weights are compared when they are loaded
        try:
            tokenizers.load(engine.tokenizer.id)
        except ConfigError as error:
            if is_needed or error.details.get("reason") not in _NOT_YET:
                raise


def _given(endpoints: Endpoints) -> Mapping[str, str]:
    """The variables that a person set, not the fleet for an engine that it runs itself."""
    return {name: value for name, value in endpoints.environ.items() if name not in endpoints.served}


def _models(endpoints: Endpoints) -> ModelsConfig:
    return load_models(endpoints.files.document("models.yaml"))


def _path(engine: EngineConfig, tokenizer: TokenizerFile, environ: Mapping[str, str]) -> Path:
    named = environ.get(tokenizer.path_env, "") if tokenizer.path_env else ""
    path = Path(named or tokenizer.path or TOKENIZER_FILE).expanduser()
    if path.is_absolute():
        return path
    folder = ""
    if isinstance(engine, ActorEngine):
        folder = (environ.get(engine.path_env, "") if engine.path_env else "") or engine.path
    where = Path(folder).expanduser()
    return (where.parent if where.suffix == ".gguf" else where) / path
