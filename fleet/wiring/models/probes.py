"""What `fleet models probe` measured, as files of the home: one for each engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from fleet.config.files import ConfigFiles
from fleet.kernel.errors import ConfigError
from fleet.models.probed import ProbedEngine
from fleet.models.profiles import ModelsConfig, load_models

_FOLDER = "probes"


def probe_file(home: Path, engine_id: str) -> Path:
    """Where the probe of this engine is kept."""
    return home / _FOLDER / f"{engine_id}.json"


def keep_probe(home: Path, probed: ProbedEngine) -> Path:
    """The probe is kept in place of an earlier one; the path of its file. Raises OSError."""
    path = probe_file(home, probed.engine_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(probed.model_dump_json(indent=1) + "\n")
    draft.replace(path)
    return path


def probed_models(files: ConfigFiles, home: Path) -> ModelsConfig:
    """models.yaml with the probes of this home. ConfigError names a file that cannot be read, and what to do."""
    return load_models(files.document("models.yaml")).with_probes(_probes(home))


def _probes(home: Path) -> Mapping[str, ProbedEngine]:
    found: dict[str, ProbedEngine] = {}
    for path in sorted((home / _FOLDER).glob("*.json")):
        try:
            probed = ProbedEngine.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ConfigError(
                f"{path} is no probe of an engine: remove it, or run `fleet models probe {path.stem}` again",
                file=str(path),
            ) from error
        found[probed.engine_id] = probed
    return found
